"""sse.py: bytes in, events out; every case is fed whole, byte by byte and cut in two at every place."""

from __future__ import annotations

import json
import os
import random
import time
import tracemalloc
from typing import Any, Callable, Iterable, Iterator, List, Tuple

import pytest

from hestiaos_lite.sse import EventTooLarge, MalformedEvent, ServerSentEvent, iter_events, iter_objects

with open(os.path.join(os.path.dirname(__file__), "data", "sse_cases.json"), encoding="utf-8") as file:
    STANDARD_CASES = json.load(file)

Outcome = Tuple[List[Any], Any]


def outcome(read: Callable[[Iterable[bytes]], Iterator[Any]], chunks: Iterable[bytes]) -> Outcome:
    """The items read, and the class of the error that ended them or None."""
    items = []
    try:
        for item in read(chunks):
            items.append(item)
    except ValueError as error:
        return items, type(error)
    return items, None


def check_every_feeding(
    read: Callable[[Iterable[bytes]], Iterator[Any]], stream: bytes, expected: Outcome
) -> None:
    """The one harness: whole, byte by byte, in pieces with empty ones between, and cut in two at every place."""
    assert outcome(read, [stream]) == expected
    assert outcome(read, [stream[i : i + 1] for i in range(len(stream))]) == expected
    assert (
        outcome(read, [piece for i in range(0, len(stream), 3) for piece in (b"", stream[i : i + 3])])
        == expected
    )
    for cut in range(1, len(stream)):
        assert outcome(read, [stream[:cut], stream[cut:]]) == expected, "cut at {}".format(cut)


# -- iter_events: the standard to the letter


def test_the_154_standard_cases():
    assert len({case["name"] for case in STANDARD_CASES}) == 154
    for case in STANDARD_CASES:
        print(case["name"])  # the last one printed is the one that fails
        expected = [ServerSentEvent(**event) for event in case["expect"]]
        check_every_feeding(iter_events, bytes.fromhex(case["hex"]), (expected, None))


EVENT_CASES = {
    "empty": (b"", []),
    "BOM alone": (b"\xef\xbb\xbf", []),
    "BOM": (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
    "BOM twice": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [("message", "b", "")]),
    "BOM later": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("message", "a", "")]),
    "CR and LF and CRLF": (b"data: a\r\rdata: b\n\ndata: c\r\n\r\n", [("message", "a", ""), ("message", "b", ""), ("message", "c", "")]),
    "mixed blank lines": (b"data: a\n\r\ndata: b\r\n\ndata: c\n\rdata: d\r\r\n", [("message", c, "") for c in "abcd"]),
    "other line breaks are text": ("data: a\u2028b\x85c\x0bd\x0ce\x1cf\n\n".encode(), [("message", "a\u2028b\x85c\x0bd\x0ce\x1cf", "")]),
    "empty event field": (b"event: x\nevent\ndata\n\n", [("message", "", "")]),
    "event without data": (b"event: x\n\ndata: a\n\n", [("message", "a", "")]),
    "two lines": (b"event: x\ndata: a\ndata: b\n\ndata: c\n\n", [("x", "a\nb", ""), ("message", "c", "")]),
    "id lives on": (b"id: 1\ndata: a\n\nid: 2\n\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "2")]),
    "id taken back": (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "")]),
    "id with NUL": (b"id: 1\nid: 2\0\ndata: a\n\n", [("message", "a", "1")]),
    "not UTF-8": (b"data: \xff\xfe\nevent: \xff\nid: \xff\n\n", [("\ufffd", "\ufffd\ufffd", "\ufffd")]),
    "comment not UTF-8": (b": \xff\ndata: a\n\n", [("message", "a", "")]),
    "cut off": (b"data: cut off", []),
    "no blank line": (b"data: no blank line\n", []),
    "one space is removed": (b"data:  two spaces\ndata:none\n\n", [("message", " two spaces\nnone", "")]),
    "more lines than a slice": (b"data:a\n" * 70 + b"\n", [("message", "\n".join(["a"] * 70), "")]),
    "empty lines": (b"event: x\n" + b"data\n" * 130 + b"\n", [("x", "\n" * 129, "")]),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "expected"), EVENT_CASES.values(), ids=EVENT_CASES.keys())
def test_events(stream, expected):
    check_every_feeding(iter_events, stream, ([ServerSentEvent(*event) for event in expected], None))


# -- iter_objects: line by line, as the service's contract reads


OBJECT_CASES = {
    "nothing": (b"", []),
    "with blank lines": (b'data: {"a": 1}\n\ndata: {"b": 2}\n\n', [{"a": 1}, {"b": 2}]),
    "no blank lines": (b'data: {"a": 1}\ndata: {"b": 2}\ndata:{"c":3}\n', [{"a": 1}, {"b": 2}, {"c": 3}]),
    "one object over several lines": (b'data: {\ndata: "a": [1,\ndata:\ndata: 2]\ndata: }\n\n', [{"a": [1, 2]}]),
    "two of them, no blank line": (b'data: {"a":\ndata: 1}\ndata: {"b":\ndata: {}}\n', [{"a": 1}, {"b": {}}]),
    "comment inside an object": (b'data: {"a":\n: ping\nid: 3\ndata: 1}\n', [{"a": 1}]),
    "braces in strings": (b'data: {"a": "}{\\"}",\ndata: "b\\\\": "{"}\n', [{"a": '}{"}', "b\\": "{"}]),
    "heartbeats": (b': ping\n\n:\n\n: ping\ndata: {"a": 1}\n: ping\n\n', [{"a": 1}]),
    "fields": (b'event: token\nid: 7\nretry: 10\ndata: {"a": 1}\n\n', [{"a": 1}]),
    "unknown fields": (b'DATA: x\ndata\n data: x\ndatum: x\ndata: {"a": 1}\n\n', [{"a": 1}]),
    "[DONE]": (b'data: [DONE]\n\ndata: {"a": 1}\n\ndata:[DONE]  \n', [{"a": 1}]),
    "empty data": (b'data:\n\ndata:   \ndata: {"a": 1}\ndata:\n\n', [{"a": 1}]),
    "U+2028 in a string": ('data: {"a": "x\u2028y\u2029\x85"}\n\n'.encode(), [{"a": "x\u2028y\u2029\x85"}]),
    "beyond ASCII": ('data: {"a": "naïve \U0001f600"}\n'.encode(), [{"a": "naïve \U0001f600"}]),
    "CRLF": (b'data: {"a": 1}\r\n\r\ndata: {\r\ndata: "b": 2}\r\n\r\n', [{"a": 1}, {"b": 2}]),
    "CR": (b'data: {"a": 1}\r\rdata: {"b": 2}\r', [{"a": 1}, {"b": 2}]),
    "BOM": (b'\xef\xbb\xbfdata: {"a": 1}\n', [{"a": 1}]),
    "BOM before a last line without ending": (b'\xef\xbb\xbfdata: {"a": 1}', [{"a": 1}]),
    "BOM later, before such a line": (b'data: {"a": 1}\n\xef\xbb\xbfdata: {"b": 2}', [{"a": 1}]),
    "last line without ending": (b'data: {"a": 1}\n\ndata: {"b": 2}', [{"a": 1}, {"b": 2}]),
    "last line completes": (b'data: {"a":\ndata: 1}', [{"a": 1}]),
    "last line cut off": (b'data: {"a": 1}\ndata: {"b": "un', [{"a": 1}]),
    "last line no object": (b'data: {"a": 1}\ndata: [DO', [{"a": 1}]),
    "pending at the end": (b'data: {"a": 1}\ndata: {\n', [{"a": 1}]),
    "white space around": (b'data:\t {"a": 1} \t\n', [{"a": 1}]),
    "not UTF-8": (b'data: {"a": "\xff"}\n', [{"a": "\ufffd"}]),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "expected"), OBJECT_CASES.values(), ids=OBJECT_CASES.keys())
def test_objects(stream, expected):
    check_every_feeding(iter_objects, stream, (expected, None))


MALFORMED_CASES = {
    "not JSON": b"data: {nonsense}\n",
    "text": b"data: hello\n",
    "two objects on one line": b'data: {"b": 2}{"c": 3}\n',
    "an object and more": b'data: {"b": 2} x\n',
    "one brace too many": b'data: {"b": 2}}\n',
    "a number": b"data: 5\n",
    "a list": b"data: [1]\n",
    "a string": b'data: "x"\n',
    "null": b"data: null\n",
    "a blank line inside": b'data: {"b":\n\ndata: 2}\n',
    "a string over two lines": b'data: {"b": "x\ndata: y"}\n',
    "a string not closed": b'data: {"b": "x}\n',
    "[DONE] inside": b'data: {"b":\ndata: [DONE]\ndata: }\n',
    "nested too deep": b'data: {"b":' + b"[" * 200000 + b"]" * 200000 + b"}\n",
}


@pytest.mark.parametrize("stream", MALFORMED_CASES.values(), ids=MALFORMED_CASES.keys())
def test_malformed_objects(stream):
    before, after = b'data: {"a": 1}\n', b'data: {"z": 1}\n'
    read = [before + stream + after] if len(stream) > 1000 else None
    if read:  # every cut of a long one would only take long
        assert outcome(iter_objects, read) == ([{"a": 1}], MalformedEvent)
    else:
        check_every_feeding(iter_objects, before + stream + after, ([{"a": 1}], MalformedEvent))


def test_a_malformed_event_is_reported_with_its_own_line_not_later():
    """So that it is not lost where a server that malforms its events then keeps the connection open."""
    for stream in (b'data: {"b": 2}}\n', b'data: {"b": "x}\n', b"data: hello\n"):

        def feed(first=stream):
            yield first
            pytest.fail("more was asked for")

        with pytest.raises(MalformedEvent):
            next(iter_objects(feed()))


def test_a_malformed_event_keeps_its_text_and_shows_only_the_beginning():
    with pytest.raises(MalformedEvent) as caught:
        list(iter_objects([b"data: " + b"x" * 500 + b"\n"]))
    assert caught.value.text == "x" * 500
    assert str(caught.value) == "not a JSON object: " + "x" * 100


@pytest.mark.parametrize(("read", "pieces"), [
    (iter_events, [(b"data: a\n\n", ("message", "a", "")), (b"id: 1\rdata: b\r\r", ("message", "b", "1"))]),
    (iter_objects, [(b'data: {"a": 1}\n', {"a": 1}), (b'data: {\r\ndata: "b": 1}\r', {"b": 1})]),
], ids=["iter_events", "iter_objects"])  # fmt: skip
def test_an_event_comes_with_its_last_byte(read, pieces):
    asked = []

    def feed():
        for number, (stream, _) in enumerate(pieces):
            for place in range(len(stream)):
                yield stream[place : place + 1]
            asked.append(number)

    items = read(feed())
    for number, (_, expected) in enumerate(pieces):
        assert next(items) == expected
        assert asked == list(range(number))  # the feed stands at this piece's last byte


def test_every_split_of_a_mixed_stream_gives_the_same_objects():
    pieces = [
        b'\xef\xbb\xbf: ping\r\n\r\nevent: start\r\ndata: {"type": "start", "data": {}}\r\n\r\n',
        'data: {"type": "token", "data": {"text": "a\u2028 \\n\\"b\\" \U0001f600"}}\n'.encode(),
        b'data:{"type":"token"}\rdata:{"type":"delta"}\r\r: ping\n\nid: 4\nretry: x\n',
        b'data: {\ndata: "type": "final",\n: ping\ndata: "data": {"output": "}"}\ndata: }\n\n\n',
        b'data: [DONE]\n\ndata: {"type": "done"}',
    ]
    expected = [
        {"type": "start", "data": {}},
        {"type": "token", "data": {"text": 'a\u2028 \n"b" \U0001f600'}},
        {"type": "token"},
        {"type": "delta"},
        {"type": "final", "data": {"output": "}"}},
        {"type": "done"},
    ]
    stream = b"".join(pieces)
    check_every_feeding(iter_objects, stream, (expected, None))
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(300):
        cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(1, 12)))
        chunks = [stream[a:b] for a, b in zip([0] + cuts, cuts + [len(stream)])]
        assert outcome(iter_objects, chunks) == (expected, None), chunks


# -- limits


LIMIT = 32


LIMIT_CASES = {
    "line fits": (iter_events, b"data: a\n\ndata: " + b"x" * 26 + b"\n\n", ([("message", "a", ""), ("message", "x" * 26, "")], None)),
    "line too large": (iter_events, b"data: a\n\ndata: " + b"x" * 27 + b"\n\n", ([("message", "a", "")], EventTooLarge)),
    "lines fit": (iter_events, b"id:1\n\n" + b"data: 1\n" * 10 + b"\n", ([("message", "1\n" * 9 + "1", "1")], None)),
    "lines too large": (iter_events, b"data: a\n\n" + b"data: 1\n" * 11 + b"\n", ([("message", "a", "")], EventTooLarge)),
    "comment fits": (iter_events, b"data: a\n\n:" + b"x" * 31 + b"\n", ([("message", "a", "")], None)),
    "comment too large": (iter_events, b"data: a\n\n:" + b"x" * 32 + b"\n", ([("message", "a", "")], EventTooLarge)),
    "endless comment": (iter_events, b"data: a\n\n:" + b"x" * 32, ([("message", "a", "")], EventTooLarge)),
    "object fits": (iter_objects, b'data: {}\ndata: {"a":"' + b"x" * 18 + b'"}\n', ([{}, {"a": "x" * 18}], None)),
    "object too large": (iter_objects, b'data: {}\ndata: {"a":"' + b"x" * 19 + b'"}\n', ([{}], EventTooLarge)),
    "pending fits": (iter_objects, b"data: {}\ndata: {\n" + b"data:    \n" * 27 + b"data: }\ndata: {}\n", ([{}, {}, {}], None)),
    "pending too large": (iter_objects, b"data: {}\ndata: {\n" + b"data:    \n" * 31 + b"data: }\ndata: {}\n", ([{}], EventTooLarge)),
    "endless line": (iter_objects, b"data: {}\n" + b"y" * 33, ([{}], EventTooLarge)),
}  # fmt: skip


@pytest.mark.parametrize(("read", "stream", "expected"), LIMIT_CASES.values(), ids=LIMIT_CASES.keys())
def test_the_limit_does_not_depend_on_how_the_bytes_are_cut(read, stream, expected):
    check_every_feeding(lambda chunks: read(chunks, max_event_bytes=LIMIT), stream, expected)


def pieces_of(stream: bytes, size: int = 1024) -> Iterator[bytes]:
    for start in range(0, len(stream), size):
        yield stream[start : start + size]


def seconds_for(read: Callable[..., Any], chunks: Iterable[bytes]) -> float:
    """Processor time of this thread: what else the machine does matters little."""
    started = time.thread_time()
    for _ in read(chunks):
        pass
    return time.thread_time() - started


def many_lines(size: int) -> bytes:
    return b"data: x\n" * (size // 8) + b"\n"


def one_long_line(size: int) -> bytes:
    return b"data: " + b"x" * size + b"\n\n"


def one_object(size: int) -> bytes:
    return b'data: {"a": "' + b"x" * size + b'"}\n\n'


def object_in_lines(size: int) -> bytes:
    return b'data: {"a": [\n' + b"data: 1,\n" * (size // 9) + b"data: 1]}\n"


def comments(size: int) -> bytes:
    return b": ping\n" * (size // 7)


def small_events(size: int) -> bytes:
    return b'data: {"type": "token"}\n\n' * (size // 25)


MIB = 1024 * 1024
SHAPES = [
    (iter_events, many_lines, 1024),
    (iter_events, many_lines, 64 * MIB),
    (iter_events, one_long_line, 1024),
    (iter_events, one_long_line, 1),
    (iter_events, comments, 1024),
    (iter_events, small_events, 1024),
    (iter_objects, one_object, 1024),
    (iter_objects, one_object, 1),
    (iter_objects, object_in_lines, 1024),
    (iter_objects, object_in_lines, 64 * MIB),
    (iter_objects, comments, 1024),
    (iter_objects, small_events, 1024),
]
SHAPE_IDS = ["{}-{}-{}".format(read.__name__, make.__name__, size) for read, make, size in SHAPES]


@pytest.mark.parametrize(("read", "make", "chunk_bytes"), SHAPES, ids=SHAPE_IDS)
def test_time_is_linear_in_the_bytes(read, make, chunk_bytes):
    """Eight times the bytes in at most 24 times the time; quadratic work would take 64, at every try.

    That leaves a factor of three to memory: what is small is in a cache, and what is large was fetched anew from the system.
    """
    size = MIB if chunk_bytes > 1 else MIB // 8
    small, large = make(size // 8), make(size)
    ratios = []
    while not ratios or (ratios[-1] > 24 and len(ratios) < 5):
        base = seconds_for(read, pieces_of(small, chunk_bytes))
        ratios.append(seconds_for(read, pieces_of(large, chunk_bytes)) / base)
    assert min(ratios) <= 24, ratios


def peak_bytes(read: Callable[..., Any], chunks: Iterable[bytes]) -> int:
    tracemalloc.start()
    try:
        for _ in read(chunks):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def repeated(piece: bytes, size: int) -> Iterator[bytes]:
    for _ in range(size // len(piece)):
        yield piece


@pytest.mark.parametrize("read", [iter_events, iter_objects])
@pytest.mark.parametrize("piece", [
    b": ping\n" * 100, b":" + b"x" * 1000 + b"\n", b"id: 1\n" * 100, b"\n" * 1000, b"x: y\r\n" * 99,
    b"data: {}\n\n" * 99,
], ids=["pings", "long comments", "ids", "blank lines", "unknown fields", "events"])  # fmt: skip
def test_memory_stays_small_however_long_the_stream(read, piece):
    assert peak_bytes(read, repeated(piece, MIB // 8)) < MIB // 16


@pytest.mark.parametrize(("read", "make"), [
    (iter_events, many_lines),
    (iter_events, one_long_line),
    (iter_objects, one_object),
    (iter_objects, object_in_lines),
], ids=["many lines", "one line", "one object", "object in lines"])  # fmt: skip
def test_memory_is_a_small_multiple_of_one_large_event(read, make):
    size = MIB // 8
    stream = make(size)
    assert peak_bytes(read, pieces_of(stream)) < 6 * size


@pytest.mark.parametrize("read", [iter_events, iter_objects])
def test_an_endless_line_ends_at_the_limit_of_16_mib(read):
    given = []

    def endless():
        while True:
            given.append(1)
            yield b"x" * (64 * 1024)

    with pytest.raises(EventTooLarge, match="larger than 16777216 bytes"):
        list(read(endless()))
    assert len(given) == 257
