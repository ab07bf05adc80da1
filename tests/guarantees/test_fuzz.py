"""Random cuts, random bytes: the same events for any cut, and for any bytes an answer or one of our own errors.

200 rounds a test, or 100 over the wire, and more until all has happened that a test looks for; 100,000 with
``pytest -m slow tests/guarantees/test_fuzz.py``. A failure names its seed, and ``FUZZ_SEED=... pytest
tests/guarantees/test_fuzz.py`` plays it again.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import random
import socket
import time
from typing import Any, Callable, Iterable, Iterator, List, Set

import pytest

from hestiaos_lite import Client, InvalidResponse, StreamEvent, StreamInterrupted, models
from hestiaos_lite.sandbox import Sandbox
from hestiaos_lite.sse import EventTooLarge, MalformedEvent, ServerSentEvent, iter_events, iter_objects

from ..faultserver import answer, chunked, error_of, head, reply, served, streamed

SEED = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**32))
ROUNDS = [200, pytest.param(100000, marks=pytest.mark.slow)]
ROUNDS_OVER_THE_WIRE = [100, pytest.param(5000, marks=pytest.mark.slow)]


@pytest.fixture
def rng(request) -> random.Random:
    """Randomness of the test's own, so that one test replays as it ran, alone or among others."""
    print("FUZZ_SEED={}".format(SEED))
    return random.Random("{} {}".format(SEED, request.node.name))


def until(rounds: int, seen: Set[Any], wanted: Iterable[Any]) -> Iterator[int]:
    """Count the rounds, and go on, up to ten times as far, until all of ``wanted`` has been seen."""
    for number in range(10 * rounds):
        if number >= rounds and seen.issuperset(wanted):
            break
        yield number


with open(os.path.join(os.path.dirname(__file__), "..", "data", "sse_cases.json"), encoding="utf-8") as file:
    STANDARD = [bytes.fromhex(case["hex"]) for case in json.load(file)]

OBJECTS = [
    b'data: {"type": "start", "data": {"mode": "ALLOW"}, "trace_id": "t", "timestamp": "2026"}\n\n',
    'data: {"type": "token", "data": {"text": "a\u2028 \\"}{\\" \U0001f600"}}\n'.encode(),
    b'data:{"type":"token"}\r\ndata:{"type":"delta"}\r\r: ping\n\nid: 4\nretry: x\nevent: y\n',
    b'data: {\ndata: "type": "final",\n: ping\ndata: "data": {"output": [1, {}]}\ndata: }\n\n\n',
    b"\xef\xbb\xbf: ping\r\n\r\n",
    b"data: [DONE]\n\n",
    b'data: {"type": "done"}\n\n',
]
TOKENS = [
    b"data", b"data:", b"data: ", b"event:", b"id:", b"retry: 5", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n",
    b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b'"', b"\\", b"[", b"]", b",", b"[DONE]",
    b'{"type": "done"}', b"null", b"-1e999", b"NaN", b"\xe2\x80\xa8", b"\xed\xa0\x80", b'"\\ud800"',
    b"9" * 30,
]  # fmt: skip


def a_stream(rng: random.Random) -> bytes:
    """A stream out of good pieces, of the standard's cases or of nothing but tokens."""
    kind = rng.randrange(3)
    if kind == 0:
        return rng.choice(STANDARD)[:600]
    return b"".join(rng.choice(OBJECTS if kind == 1 else TOKENS) for _ in range(rng.randrange(1, 12)))


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A few bytes changed, taken out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(5)
        if kind == 0 and place < len(changed):
            changed[place] = rng.randrange(256)
        elif kind == 1:
            del changed[place : place + rng.randrange(1, 20)]
        elif kind == 2:
            changed[place:place] = rng.choice(TOKENS)
        elif kind == 3:
            changed[place:place] = changed[place : place + rng.randrange(40)]
        else:
            del changed[place:]
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> List[bytes]:
    """The bytes in random pieces, some of them empty."""
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 1, 2, 5, 20))))
    return [data[start:end] for start, end in zip([0] + places, places + [len(data)])]


def outcome(read: Callable[..., Iterator[Any]], chunks: List[bytes], **options: Any) -> Any:
    """What is read, and the class of our error that ends it; any other exception is the test's failure."""
    items = []
    try:
        for item in read(chunks, **options):
            items.append(item)
    except (EventTooLarge, MalformedEvent) as error:
        return items, type(error)
    return items, None


# -- Server-Sent Events


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("read", [iter_events, iter_objects])
def test_any_cut_gives_the_same_events(rng, read, rounds):
    seen = 0
    for _ in range(rounds):
        stream = a_stream(rng)
        if rng.randrange(2):
            stream = mutated(rng, stream)
        limit = rng.choice((8, 40, 200, 2**24))
        whole = outcome(read, [stream], max_event_bytes=limit)
        seen += len(whole[0])
        for chunks in (cut(rng, stream), [stream[i : i + 1] for i in range(len(stream))]):
            assert repr(outcome(read, chunks, max_event_bytes=limit)) == repr(whole), (stream, chunks, limit)
    assert seen > rounds / 4


@pytest.mark.parametrize("rounds", ROUNDS)
def test_any_mutation_gives_events_or_an_error_of_ours(rng, rounds):
    events, ended = 0, set()
    for _ in until(rounds, ended, (None, MalformedEvent)):
        stream = mutated(rng, a_stream(rng))
        chunks = cut(rng, stream)
        for item in outcome(iter_events, chunks)[0]:
            assert type(item) is ServerSentEvent
            assert [type(value) for value in item] == [str, str, str]
            assert item.event
        objects, error = outcome(iter_objects, chunks)
        assert all(type(item) is dict for item in objects)
        events += len(objects)
        ended.add(error)
    assert events > rounds / 4
    assert ended == {None, MalformedEvent}


@pytest.mark.parametrize("rounds", ROUNDS_OVER_THE_WIRE)
def test_an_event_stream_of_any_bytes_ends_at_done_or_with_an_error_of_ours(rng, rounds):
    streams = [b"".join(rng.sample(OBJECTS[:6], rng.randrange(1, 6))) + OBJECTS[6] for _ in range(rounds)]
    streams = [mutated(rng, stream) if rng.randrange(4) else stream for stream in streams]
    headers = head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
    ended = set()
    for begin in range(0, rounds, 500):  # a server has a thread for each connection, and keeps it
        some = streams[begin : begin + 500]
        replies = [headers + chunked(filter(None, cut(rng, stream))) for stream in some]
        with served(answer(*replies), timeout=30) as (client, _):
            for stream in some:
                events, error = streamed(client)
                assert error is None or (error.status, error.delivered) == (200, True)
                assert all(type(event) is StreamEvent for event in events)
                assert (error is None) == bool(events and events[-1].type == "done"), stream
                ended.add(type(error))
    assert ended == {type(None), StreamInterrupted, InvalidResponse}


@pytest.mark.parametrize("read", [iter_events, iter_objects])
def test_random_bytes_take_linear_time(rng, read):
    """Four times the bytes in at most eight times the processor time; quadratic work would take sixteen, at every try."""

    def seconds(stream: bytes) -> float:
        started = time.thread_time()
        try:
            for _ in read(stream[i : i + 100] for i in range(0, len(stream), 100)):
                pass
        except MalformedEvent:
            pytest.fail("this stream is well formed")
        return time.thread_time() - started

    for _ in range(2):
        pieces = [piece for piece in OBJECTS if not piece.startswith(b"\xef")]
        pieces += [b": ping\n" * 9, b"event: x\n" * 5, b"\n\r\n\r"]
        piece = b"".join(rng.choice(pieces) for _ in range(20)) + b"\n\n"
        ratios: List[float] = []
        while not ratios or (ratios[-1] > 8 and len(ratios) < 5):
            base = seconds(piece * (100000 // len(piece)))
            ratios.append(seconds(piece * (400000 // len(piece))) / base)
        assert min(ratios) <= 8, (ratios, piece)


# -- JSON into models


MODELS = [getattr(models, name) for name in models.__all__]
FIELDS = {name for model in MODELS for name in model.__dataclass_fields__}
NAMES = sorted(FIELDS | {"response", "output", "detail", "msg", "loc"})
SCALARS: List[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, float("nan"), float("inf"), "", "x", " ", "naïve \u2028", "\ud800",
    "X" * 400, "<html>",
]  # fmt: skip


def a_value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value, mostly an object of names that some model knows."""
    kind = rng.randrange(4) if depth < 4 else 0
    if kind == 0 and depth:
        return rng.choice(SCALARS)
    if kind == 1:
        return [a_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(NAMES): a_value(rng, depth + 1) for _ in range(rng.randrange(8))}


def a_body(rng: random.Random) -> Any:
    """A value as it comes from the wire: encoded, sometimes damaged, and decoded if it still can be."""
    text = json.dumps(a_value(rng))
    if rng.randrange(3) == 0:
        try:
            return json.loads(mutated(rng, text.encode("ascii")).decode("utf-8", "replace"))
        except ValueError:
            pass
    return json.loads(text)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_any_json_makes_a_model_or_an_invalid_response(rng, rounds):
    made = set()
    for _ in until(rounds, made, MODELS):
        body = a_body(rng)
        before = json.dumps(body)
        for model in MODELS:
            if isinstance(body, dict) and rng.randrange(2):
                for name in model.__dataclass_fields__:
                    body.setdefault(name, rng.choice(("x", 1, None, {})))
                before = json.dumps(body)
            try:
                answer = model.from_dict(body)
            except InvalidResponse as error:
                assert error.details is body
                assert error.message.startswith(
                    (model.__name__, "expected a JSON object for " + model.__name__)
                )
            else:
                made.add(model)
                again = model.from_dict(json.loads(json.dumps(answer.to_dict())))
                assert repr(again) == repr(answer)
                for name in dir(model):
                    if isinstance(getattr(model, name), property):
                        getattr(answer, name)
            assert json.dumps(body) == before, "the body was changed"
    assert made == set(MODELS)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_the_short_way_to_an_event_gives_what_the_long_way_gives(rng, rounds):
    def made(build: Callable[[Any], StreamEvent], raw: Any) -> Any:
        try:
            event = build(raw)
        except InvalidResponse as error:
            return str(error), error.trace_id
        return repr(event), repr(event.extra), sorted(vars(event))

    good = 0
    for _ in range(rounds):
        raw: Any = {"type": "token", "data": {"text": "x"}, "trace_id": "t", "timestamp": "2026"}
        for _ in range(rng.randrange(3)):
            raw[rng.choice(("type", "data", "trace_id", "timestamp", "more"))] = rng.choice(
                SCALARS + [{}, {"a": 1}, []]
            )
        if rng.randrange(4) == 0:
            del raw[rng.choice(list(raw))]
        if rng.randrange(20) == 0:
            raw = a_body(rng)
        long_way = made(StreamEvent.from_dict, raw)
        assert made(StreamEvent.from_raw, raw) == long_way, raw
        good += len(long_way) == 3
    assert rounds / 3 < good < rounds


@pytest.mark.parametrize("rounds", ROUNDS_OVER_THE_WIRE)
def test_any_error_body_makes_the_error_of_its_status(rng, rounds):
    statuses = (400, 401, 403, 404, 409, 418, 422, 429, 500, 502, 503, 599)
    bodies = [
        (rng.choice(statuses), a_body(rng) if rng.randrange(4) else rng.choice(SCALARS))
        for _ in range(rounds)
    ]
    replies = [reply(status, json.dumps(body).encode()) for status, body in bodies]
    with served(answer(*replies), timeout=30, retries=0) as (client, _):
        for status, body in bodies:
            error = error_of(client.health if rng.randrange(2) else lambda: client.run("x"))
            assert (error.status, error.delivered, repr(error.details)) == (status, True, repr(body))
            assert error.message
            assert "\n" not in error.message
            assert len(error.message) <= 300
            assert error.trace_id is None or error.trace_id.strip()
            assert str(error).startswith("[{}".format(error.code[:97]))
            assert "\n" not in str(error)
            assert len(str(error)) < 1000


# -- the sandbox's request parser


BODY = b'{"input": "hello"}'
GOOD = [
    b"POST /api/v1/run HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n" + BODY,
    b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /api/v1/run/stream HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n" + BODY,
    b"DELETE /api/secrets/a%2Fb?x=y HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
]  # fmt: skip
PROTOCOL = [
    b"\r\n", b"\n", b"\r\n\r\n", b":", b" ", b"\t", b"\0", b"\xff", b"HTTP/1.1", b"HTTP/9.9", b"GET ", b"%",
    b"%zz", b"%00", b"/../", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Host: y\r\n", b"Expect: 100-continue\r\n", b"0\r\n\r\n", b"ffffffffff\r\n", b"X: " + b"y" * 9000,
    b"A: b\r\n" * 120, b'{"input": ' + b"[" * 2000,
]  # fmt: skip
STATUS_LINE = b"HTTP/1.1 "


def say(box: Sandbox, data: bytes, rng: random.Random) -> bytes:
    """Send bytes in random pieces, say that no more will come, and take what is answered until the connection ends."""
    with socket.create_connection((box.host, box.port), timeout=10) as sock:
        answer = b""
        try:
            for piece in cut(rng, data):
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
            while True:
                received = sock.recv(65536)
                if not received:
                    return answer
                answer += received
        except OSError as error:
            assert error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
            return answer  # it closed while we were still talking, as it may


def is_well(box: Sandbox) -> None:
    """The next good request works."""
    connection = http.client.HTTPConnection(box.host, box.port, timeout=10)
    connection.request("POST", "/api/v1/run", BODY, {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200
    assert json.loads(response.read().decode("utf-8"))["output"] == "processed: hello"
    connection.close()


@pytest.mark.parametrize("rounds", [100, pytest.param(20000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["mutated requests", "random bytes", "half requests"])
def test_the_sandbox_answers_or_closes_and_takes_the_next_request(rng, caplog, kind, rounds):
    statuses = set()
    with Sandbox() as box:
        for number in range(rounds):
            if kind == "random bytes":
                data = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 200)))
            else:
                data = b"".join(rng.choice(GOOD) for _ in range(rng.randrange(1, 3)))
                if kind == "half requests":
                    data = data[: rng.randrange(len(data))]
                else:
                    for _ in range(rng.randrange(1, 4)):
                        place = rng.randrange(len(data) + 1)
                        data = data[:place] + rng.choice(PROTOCOL) + data[place + rng.randrange(3) :]
            said = say(box, data, rng)
            if said:
                assert said.startswith(STATUS_LINE), (data, said)
                statuses.add(int(said[len(STATUS_LINE) :][:3]))
            if number % 50 == 0:
                is_well(box)
        is_well(box)
    assert statuses <= {100, 200, 400, 404, 405, 411, 413, 414, 421, 422, 431, 501, 505}, statuses
    assert statuses & {400, 200}
    assert [
        record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")
    ] == []


def test_idle_and_slow_connections_do_not_keep_the_sandbox_from_the_next_request():
    with Sandbox() as box:
        idle = [socket.create_connection((box.host, box.port), timeout=10) for _ in range(200)]
        for number, sock in enumerate(idle):
            sock.sendall(GOOD[0][: number % len(GOOD[0])])
        is_well(box)
        with Client(box.url, timeout=10) as client:
            assert client.run("hello").output == "processed: hello"
        for sock in idle:
            sock.close()
        is_well(box)
