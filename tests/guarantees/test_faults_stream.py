"""The fault table of streams: cut anywhere, malformed, silent, never ending; and ended by the caller, from any thread."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from concurrent.futures import Future
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Type

import pytest

from hestiaos_lite import (
    Client,
    EventStream,
    GovernanceBlock,
    HestiaError,
    InvalidInput,
    InvalidResponse,
    RateLimited,
    RequestTimeout,
    ServerError,
    StreamEvent,
    StreamInterrupted,
)

from ..faultserver import (
    TLS_AUTHORITY,
    FaultServer,
    Script,
    Wire,
    answer,
    answer_and_close,
    answer_and_drip,
    answer_and_hang,
    answer_and_reset,
    chunked,
    head,
    ok,
    reply,
    served,
    side_by_side,
    streamed,
    with_a_short_deadline,
)

# as in test_faults.py: shorter than any server below drips, long enough for a machine that is busy with something else
SLACK_SECONDS = 6.0
PATIENT = 10.0

START = {"type": "start", "data": {}, "trace_id": "t-1", "timestamp": ""}
TOKEN = {"type": "token", "data": {"text": "h\u00e9"}, "trace_id": "t-1", "timestamp": ""}
DONE = {"type": "done", "data": {}, "trace_id": "t-1", "timestamp": ""}


def sse(*events: Any, end: str = "\n\n") -> bytes:
    return "".join("data: " + json.dumps(event, ensure_ascii=False) + end for event in events).encode("utf-8")


PLAIN = {"Content-Type": "text/event-stream"}


def plain(**more: Any) -> Dict[str, Any]:
    return dict(PLAIN, **{name.replace("_", "-"): value for name, value in more.items()})


CHUNKED = plain(Transfer_Encoding="chunked")
GZIP = plain(Content_Encoding="gzip")
WHOLE = sse(START, TOKEN, DONE)
BEGUN = sse(START, TOKEN)


class Case(NamedTuple):
    """One row: what the server does, which events come, and how the stream ends (None: well)."""

    id: str
    script: Script
    events: Tuple[str, ...]
    error: Optional[Type[HestiaError]] = None
    facts: Any = None  # beside those of any stream's error
    is_total: bool = False  # the deadline is one for the whole stream, and not for each silence
    silence: float = PATIENT


def stream_of(data: bytes, headers: Any = PLAIN) -> Script:
    return answer_and_close(head(200, headers) + data)


def no_object(text: str) -> Dict[str, str]:
    return {"message": "an event is not a JSON object, or names a field twice", "details": text}


def untyped(id: str, event: Dict[str, Any], before: Tuple[Any, ...] = (START,)) -> Case:
    """Its error has the trace id that the event came with: never dropped, and never another's."""
    event = dict(event, trace_id="t-2")
    facts = {"details": event, "trace_id": "t-2"}
    return Case(id, stream_of(sse(*before, event, DONE)), FIRST[: len(before)], InvalidResponse, facts)


def talkative(wire: Wire) -> None:
    """Events without an end, and none to wait for."""
    wire.request()
    wire.send(head(200, PLAIN))
    while True:
        wire.pause(0)
        wire.send(sse(TOKEN))


def beating(wire: Wire) -> None:
    """Longer than a silence may be, but never silent for so long."""
    wire.request()
    wire.send(head(200, PLAIN))
    for _ in range(35):
        wire.pause(0.05)
        wire.send(b":\n")
    wire.send(WHOLE)


FIRST = ("start",)
TWO = ("start", "token")
ALL = ("start", "token", "done")
CASES = [
    # ended too soon
    Case("empty", stream_of(b""), (), StreamInterrupted),
    Case("without-done", stream_of(BEGUN), TWO, StreamInterrupted),
    Case("without-done-chunked", stream_of(chunked([BEGUN]), CHUNKED), TWO, StreamInterrupted),
    Case("without-done-sentinel", stream_of(BEGUN + b"data: [DONE]\n\n"), TWO, StreamInterrupted),
    Case("cut-in-event", stream_of(BEGUN + b'data: {"type": "fin'), TWO, StreamInterrupted),
    Case("reset", answer_and_reset(head(200, PLAIN) + BEGUN), TWO, StreamInterrupted),
    Case("length-not-kept", stream_of(BEGUN, plain(Content_Length=900)), TWO, StreamInterrupted),
    Case("chunks-without-end", stream_of(chunked([BEGUN], end=b""), CHUNKED), TWO, StreamInterrupted),
    Case("negative-chunk-size", stream_of(chunked([BEGUN], end=b"-1\r\n" + WHOLE), CHUNKED), TWO, StreamInterrupted),
    Case("gzip-cut", stream_of(gzip.compress(BEGUN)[:-8], GZIP), TWO, StreamInterrupted),
    # not what a stream must be
    Case("not-json", stream_of(sse(START) + b"data: hello\n\n"), FIRST, InvalidResponse, no_object("hello")),
    Case("not-json-in-braces", stream_of(sse(START) + b"data: {x}\n\n" + WHOLE), FIRST, InvalidResponse, no_object("{x}")),
    Case("a-list", stream_of(sse(START, [1]) + WHOLE), FIRST, InvalidResponse, no_object("[1]")),
    Case("a-number", stream_of(sse(START, 7)), FIRST, InvalidResponse),
    Case("null", stream_of(sse(START, None)), FIRST, InvalidResponse),
    Case("event-without-type", stream_of(sse(START, {"data": {}})), FIRST, InvalidResponse),
    untyped("event-without-type-and-data", {}),
    untyped("first-event-without-type", {}, before=()),
    untyped("type-null", {"type": None}),
    untyped("type-number", {"type": 5}),
    Case("half-an-object", stream_of(sse(START) + b'data: {"type": "token"\n\ndata: {}\n\n'), FIRST, InvalidResponse),
    Case("two-objects-on-a-line", stream_of(b"data: {} {}\n\n"), (), InvalidResponse),
    Case("too-deep", stream_of(sse(START) + b'data: {"type": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n\n"),
         FIRST, InvalidResponse),
    Case("endless-line", stream_of(sse(START) + b"data: " + b"x" * 17_000_000), FIRST, InvalidResponse),
    Case("endless-comment", stream_of(sse(START) + b":" + b"x" * 17_000_000), FIRST, InvalidResponse),
    Case("broken-gzip", stream_of(b"data: {}\n\n", GZIP), (), InvalidResponse),
    Case("unknown-encoding", stream_of(WHOLE, plain(Content_Encoding="br")), (), InvalidResponse),
    # never ending
    Case("silent", answer_and_hang(head(200, PLAIN) + BEGUN), TWO, RequestTimeout),
    Case("silent-from-the-start", answer_and_hang(head(200, PLAIN)), (), RequestTimeout),
    Case("silent-in-an-event", answer_and_hang(head(200, PLAIN) + BEGUN + b"data: {"), TWO, RequestTimeout),
    Case("silent-in-a-chunk", answer_and_hang(head(200, CHUNKED) + chunked([BEGUN], end=b"99\r\n")), TWO, RequestTimeout),
    Case("silent-past-its-total", answer_and_hang(head(200, PLAIN) + BEGUN), TWO, RequestTimeout, is_total=True),
    Case("heartbeats-only", answer_and_drip(head(200, PLAIN), b": ping\n\n" * 30), (), RequestTimeout, is_total=True),
    Case("heartbeats-in-chunks", answer_and_drip(head(200, CHUNKED), chunked([b": ping\n\n"] * 30)), (),
         RequestTimeout, is_total=True),
    Case("events-without-end", talkative, ("token",), RequestTimeout, is_total=True),
    Case("heartbeats-are-no-silence", beating, ALL, silence=1.5),
    # odd, and good
    Case("plain", stream_of(WHOLE), ALL),
    Case("open-after-done", answer_and_hang(head(200, PLAIN) + WHOLE), ALL),
    Case("open-after-done-chunked", answer_and_hang(head(200, CHUNKED) + chunked([WHOLE], end=b"")), ALL),
    Case("open-after-done-gzip", answer_and_hang(head(200, GZIP) + gzip.compress(WHOLE)[:-8]), ALL),
    Case("cut-after-done", stream_of(chunked([WHOLE], end=b""), CHUNKED), ALL),
    Case("reset-after-done", answer_and_reset(head(200, PLAIN) + WHOLE), ALL),
    Case("nonsense-after-done", stream_of(WHOLE + b"data: nonsense\n\n"), ALL),
    Case("done-without-line-end", stream_of(WHOLE.rstrip(b"\n")), ALL),
    Case("length", stream_of(WHOLE, plain(Content_Length=len(WHOLE))), ALL),
    Case("chunked", stream_of(chunked([WHOLE]), CHUNKED), ALL),
    Case("gzip", stream_of(gzip.compress(WHOLE), GZIP), ALL),
    Case("gzip-chunked", stream_of(chunked([gzip.compress(WHOLE)]), dict(CHUNKED, **GZIP)), ALL),
    Case("deflate", stream_of(zlib.compress(WHOLE), plain(Content_Encoding="deflate")), ALL),
    Case("crlf", stream_of(sse(START, TOKEN, DONE, end="\r\n\r\n")), ALL),
    Case("cr", stream_of(sse(START, TOKEN, DONE, end="\r\r")), ALL),
    Case("no-blank-lines", stream_of(sse(START, TOKEN, DONE, end="\n")), ALL),
    Case("byte-by-byte", answer_and_drip(head(200, PLAIN), WHOLE, 0.001), ALL),
    Case("byte-by-byte-chunked",
         answer_and_drip(head(200, CHUNKED), chunked([bytes([byte]) for byte in WHOLE]), 0.0002), ALL),
    Case("byte-order-mark", stream_of(b"\xef\xbb\xbf" + WHOLE), ALL),
    Case("pings-and-fields", stream_of(b": ping\nretry: 5\nid: 7\nevent: x\n\n" + WHOLE + b"data: [DONE]\n\n"), ALL),
    Case("one-object-on-many-lines", stream_of(WHOLE.replace(b'", "', b'",\ndata: "')), ALL),
    Case("trace-of-the-first-event", stream_of(sse(START, dict(DONE, trace_id="t-2"))), ("start", "done")),
    Case("error-then-done", stream_of(sse(START, dict(TOKEN, type="error"), DONE)), ("start", "error", "done")),
    Case("future-type", stream_of(sse(START, dict(TOKEN, type="picture"), DONE)), ("start", "picture", "done")),
    Case("not-utf-8", stream_of(sse(START) + b'data: {"type": "token", "data": {"text": "\xff"}}\n\n' + sse(DONE)), ALL),
    Case("no-content-type", stream_of(WHOLE, {}), ALL),
    Case("charset", stream_of(WHOLE, {"Content-Type": "Text/Event-Stream; charset=UTF-8"}), ALL),
]  # fmt: skip

ROWS = [(case, kind) for case in CASES for kind in ("own", "lent")]
assert len({(case.id, kind) for case, kind in ROWS}) == len(ROWS)


class Outcome(NamedTuple):
    """What one row has come to."""

    events: List[StreamEvent]
    error: Optional[BaseException]
    trace_id: Optional[str]
    deadline_seconds: float
    seconds_over: float
    request_ids: List[str]


def play(case: Case, kind: str) -> Outcome:
    """Run one row."""
    if case.error is RequestTimeout:
        return with_a_short_deadline(lambda seconds: play_for(seconds, case, kind))
    return play_for(case.silence, case, kind)[0]


def play_for(deadline_seconds: float, case: Case, kind: str) -> Tuple[Outcome, FaultServer, float]:
    events: List[StreamEvent] = []
    error, stream = None, None  # on a busy machine a short deadline may pass before there is a stream
    silence, total = (PATIENT, deadline_seconds) if case.is_total else (deadline_seconds, None)
    with served(case.script, kind=kind, timeout=silence) as (client, server):
        started = time.monotonic()
        try:
            with client.run_stream("hello", timeout_ms=100, timeout=total) as stream:
                for event in stream:
                    events.append(event)
        except BaseException as caught:  # noqa: BLE001  # looked at by the test, whatever it is
            error = caught
        over = time.monotonic() - started - deadline_seconds
    ids = [item.headers["x-request-id"] for item in server.requests]
    outcome = Outcome(events, error, stream.trace_id if stream else None, deadline_seconds, over, ids)
    return outcome, server, started


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Dict[Tuple[str, str], Future]]:  # type: ignore[type-arg]
    yield from side_by_side(request, "test_stream_fault", play)


@pytest.mark.parametrize("row", ROWS, ids=["{}-{}".format(case.id, kind) for case, kind in ROWS])
def test_stream_fault(row: Tuple[Case, str], outcomes: Any) -> None:
    case, kind = row
    outcome = outcomes[case.id, kind].result()
    assert tuple(event.type for event in outcome.events)[: len(case.events)] == case.events
    assert len(outcome.events) == len(case.events) or case.script is talkative
    trace_id = next((event.trace_id for event in outcome.events if event.trace_id), None)
    assert outcome.trace_id == trace_id
    if case.error is None:
        assert outcome.error is None
        assert all(event.text in ("", "h\u00e9", "\ufffd") for event in outcome.events)
        return
    error = outcome.error
    assert type(error) is case.error, error
    assert outcome.seconds_over < SLACK_SECONDS
    facts = dict({"status": 200, "delivered": True, "attempts": 1, "trace_id": trace_id}, **case.facts or {})
    assert {name: getattr(error, name) for name in facts} == facts, str(error)
    if case.error is RequestTimeout:
        words = (
            "no answer within {:g} s, gave up while reading"
            if case.is_total
            else "the stream was silent for {:g} s"
        )
        assert error.message.startswith(words.format(outcome.deadline_seconds))
    assert outcome.request_ids == [error.request_id]


NO_STREAM = "the answer to POST /api/v1/run/stream is {}, not an event stream"
FRAMINGS: Dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: head(200, PLAIN) + data,
    "length": lambda data: head(200, plain(Content_Length=len(data))) + data,
    "chunked": lambda data: head(200, CHUNKED) + chunked([data[:50], data[50:90], data[90:]]),
    "gzip": lambda data: head(200, GZIP) + gzip.compress(data),
    "gzip-chunked": lambda data: head(200, dict(CHUNKED, **GZIP)) + chunked([gzip.compress(data)]),
}


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_cut_at_every_place(framing: str, kind: str) -> None:
    """Whatever is cut off, what came before is handed out, and only a stream with its ``done`` ends well.

    A lent session differs in its connections alone: there every seventh place will do.
    """
    whole = FRAMINGS[framing](WHOLE)
    first = whole.index(b"\r\n\r\n") + 4
    expected = [StreamEvent.from_raw(event) for event in (START, TOKEN, DONE)]
    ended_well = False
    cuts = list(range(len(whole), first - 1, -1 if kind == "own" else -7))[::-1]
    with served(*[answer_and_close(whole[:cut]) for cut in cuts], kind=kind, timeout=PATIENT) as (
        client,
        server,
    ):
        for _ in cuts:
            events, error = streamed(client)
            assert error is None or isinstance(error, StreamInterrupted)
            assert events == expected[: len(events)]
            assert (error is None) == (len(events) == 3)
            assert error is None or (error.status, error.delivered, error.attempts) == (200, True, 1)
            assert error is None or error.trace_id == ("t-1" if events else None)
            assert error is None or not ended_well  # once it is long enough, more does not hurt
            ended_well = error is None
        assert ended_well
        assert server.hits == len(cuts)  # a POST: none was sent twice


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize(("script", "error", "facts"), [
    (answer_and_hang(ok(START)), InvalidResponse, {"status": 200, "details": START, "message": NO_STREAM.format("application/json")}),
    (answer_and_hang(reply(200, b"<html>", {"Content-Type": "text/html"})), InvalidResponse,
        {"status": 200, "details": "<html>", "message": NO_STREAM.format("text/html")}),
    (answer_and_close(head(200, {"Content-Type": "text/html", "Content-Length": 50})), InvalidResponse,
        {"status": 200, "details": None}),
    (answer_and_close(reply(403, b'{"detail": {"trace_id": "t-3"}}')), GovernanceBlock, {"status": 403, "trace_id": "t-3"}),
    (answer_and_close(reply(500, b"<html>")), ServerError, {"status": 500}),
    (answer(reply(422)), InvalidInput, {"status": 422}),
    (answer(reply(503)), ServerError, {"status": 503, "attempts": 2}),
    (answer(reply(429)), RateLimited, {"status": 429, "attempts": 2}),
], ids=["json", "html", "html-cut", "blocked", "failed", "refused", "away", "limited"])  # fmt: skip
def test_what_is_no_stream_is_raised_by_run_stream_itself(
    script: Script, error: Any, facts: Any, kind: str
) -> None:
    with served(script, kind=kind, timeout=PATIENT, retries=1) as (client, server):
        with pytest.raises(error) as caught:
            client.run_stream("hello")
        facts = dict({"delivered": True, "attempts": 1}, **facts)
        assert {name: getattr(caught.value, name) for name in facts} == facts
        assert server.hits == facts["attempts"]


def framed(framing: str) -> Tuple[bytes, Callable[[bytes], bytes]]:
    """The head of a stream in this framing, and how a piece of the stream goes over the wire in it."""
    if framing == "chunk-begun":
        return head(200, CHUNKED) + b"%x\r\n" % 10**9, lambda data: data
    compress = zlib.compressobj(wbits=31)
    headers = dict(CHUNKED if "chunked" in framing else PLAIN, **GZIP if "gzip" in framing else {})
    headers.update({"length": {"Content-Length": 10**9}, "close": {"Connection": "close"}}.get(framing, {}))

    def encode(data: bytes) -> bytes:
        if "gzip" in framing:
            data = compress.compress(data) + compress.flush(zlib.Z_SYNC_FLUSH)
        return chunked([data], end=b"") if "chunked" in framing else data

    return head(200, headers), encode


# fmt: off
FORMS: Dict[str, Callable[[Any], bytes]] = {
    "with blank lines": sse,
    "without blank lines": lambda event: sse(event, end="\n"),
    "CRLF": lambda event: sse(event, end="\r\n\r\n"),
    "CR": lambda event: sse(event, end="\r\r"),
    "several data lines": lambda event: sse(event).replace(b', "', b',\r\ndata: "'),
    "heartbeats and fields": lambda event: b": ping\n\nid: 7\nevent: x\nretry: 5\n" + sse(event) + b": ping\n\n",
    "sentinels": lambda event: b"data: [DONE]\n\n" + sse(event) + b"data: [DONE]\n\n",
}
# fmt: on
IN_HAND = [("chunked", form) for form in FORMS]
IN_HAND += [
    (framing, "without blank lines") for framing in ("chunk-begun", "plain", "length", "gzip", "gzip-chunked")
]
EVENTS = [START, TOKEN, dict(TOKEN, data={"text": "}{ \u2028 "}), dict(START, type="future"), DONE]


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize(("framing", "form"), IN_HAND)
def test_an_event_is_here_as_soon_as_its_bytes_are(framing: str, form: str, kind: str) -> None:
    """The server sends no byte more until the caller has the event: one held back would end in a timeout, not in a late pass."""
    asked = threading.Semaphore(0)

    def step(wire: Wire) -> None:
        begin, encode = framed(framing)
        wire.request()
        wire.send(begin)
        for event in EVENTS:
            assert asked.acquire(timeout=PATIENT)
            wire.send(encode(FORMS[form](event)))
        wire.hang()

    with served(step, kind=kind, timeout=PATIENT / 2) as (client, server):
        with client.run_stream("hello") as stream:
            for event in EVENTS:
                asked.release()
                assert next(stream) == StreamEvent.from_raw(event)
            assert list(stream) == []  # at `done`, though the connection stays open
        assert server.hits == 1


# -- ended by the caller


def begun_and_hanging(framing: str) -> Script:
    begin, encode = framed(framing)
    return answer_and_hang(begin + encode(sse(START)))


def has_seen_the_end(server: FaultServer) -> bool:
    """Whether a server that hangs sees its connection end, soon."""
    deadline = time.monotonic() + 5
    while not server.left_after and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(server.left_after)


@pytest.mark.parametrize("ending", ["cancel", "close"])
@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("framing", ["plain", "close", "chunked", "gzip", "tls"])
def test_another_thread_ends_a_blocked_stream(framing: str, kind: str, ending: str) -> None:
    tls = framing == "tls"
    scripts = begun_and_hanging(framing), answer(ok({"status": "ok"}))
    with served(*scripts, kind=kind, tls=tls, timeout=PATIENT, verify=TLS_AUTHORITY if tls else None) as (
        client,
        server,
    ):
        stream = client.run_stream("hello")
        assert next(stream).type == "start"
        ended: List[Any] = []

        def read() -> None:
            try:
                ended.append(list(stream))
            except BaseException as error:  # noqa: BLE001  # compared below
                ended.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.1)  # until it blocks
        assert not ended
        getattr(stream, ending)()
        reader.join(PATIENT / 2)  # for its own end it would wait for longer
        assert ended == [[]]  # the iteration ends, with no error
        stream.cancel()  # once more, to no effect
        stream.close()
        assert list(stream) == []
        assert has_seen_the_end(server)
        assert client.health().ok  # the client is as good as before,
        assert server.connections == 2  # and the connection was not used again


def test_a_late_cancel_does_not_strike_the_next_call() -> None:
    """The stream is over; its connection must not be one that another call is using now."""
    calling = threading.Event()

    def slow(wire: Wire) -> None:
        wire.request()
        calling.set()
        wire.pause(0.2)
        wire.send(ok({"status": "ok"}))

    whole = plain(Content_Length=len(BEGUN))  # ends in order, so that its connection could be kept

    def stream_then_slow(wire: Wire) -> None:
        wire.request()
        wire.send(head(200, whole) + BEGUN)
        slow(wire)

    with served(stream_then_slow, slow, timeout=PATIENT, retries=0) as (client, _):
        stream = client.run_stream("hello")
        with pytest.raises(StreamInterrupted):
            list(stream)
        canceller = threading.Thread(target=lambda: calling.wait(5) and stream.cancel())
        canceller.start()
        assert client.health().ok
        canceller.join()


def closed_inside(client: Client) -> EventStream:
    with client.run_stream("hello") as stream:
        next(stream)
    assert list(stream) == []
    return stream


def closed_by_hand(client: Client) -> EventStream:
    stream = client.run_stream("hello")
    next(stream)
    for _ in range(2):
        stream.close()
        assert list(stream) == []
    return stream


def broken_off(client: Client) -> None:
    for _ in client.run_stream("hello"):
        break


def failed_inside(client: Client) -> EventStream:
    with pytest.raises(ZeroDivisionError), client.run_stream("hello") as stream:
        raise ZeroDivisionError
    assert list(stream) == []
    return stream


def cancelled_unread(client: Client) -> EventStream:
    stream = client.run_stream("hello")
    stream.cancel()
    assert list(stream) == []
    return stream


def never_read(client: Client) -> None:
    client.run_stream("hello")


@pytest.mark.parametrize("leave", [
    closed_inside, closed_by_hand, broken_off, failed_inside, cancelled_unread,
    never_read, lambda client: next(client.run_stream("hello")),
], ids=["with", "close", "break", "error", "cancel", "never-read", "dropped"])  # fmt: skip
def test_a_stream_left_early_closes_its_connection_at_once(leave: Callable[[Client], Any]) -> None:
    scripts = begun_and_hanging("chunked"), answer(ok({"status": "ok"}))
    with served(*scripts, timeout=2 * PATIENT) as (client, server):
        kept = leave(client)  # what was closed, not what was dropped
        assert has_seen_the_end(server)
        assert client.health().ok
        assert server.connections == 2
        del kept


@pytest.mark.parametrize("what", ["stream", "call"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_ctrl_c_ends_what_blocks(what: str, tls: bool) -> None:
    """SIGINT inside a blocked read: KeyboardInterrupt long before the deadline, and the client is usable afterwards."""
    program = textwrap.dedent(
        """
        import sys
        from hestiaos_lite import Client
        with Client(sys.argv[1], timeout=80, verify=sys.argv[3] or None) as client:
            client.health()
            print("ready", flush=True)
            try:
                if sys.argv[2] == "stream":
                    for event in client.run_stream("hello"):
                        print("event", flush=True)
                else:
                    client.run("hello")
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            print(client.health().ok, flush=True)
        """
    )

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(ok({"status": "ok"}))
        wire.request()
        if what == "stream":
            wire.send(head(200, PLAIN) + sse(START))
        wire.hang()

    with FaultServer(script, answer(ok({"status": "ok"})), tls=tls) as server:
        arguments = [server.url, what, TLS_AUTHORITY if tls else ""]
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program] + arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        ) as process:
            assert process.stdout.readline() == "ready\n"
            assert what == "call" or process.stdout.readline() == "event\n"
            while server.hits < 2:
                time.sleep(0.01)
            time.sleep(0.1)
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=20)
        assert (out, err, process.returncode) == ("interrupted\nTrue\n", "", 0)
        assert (server.connections, server.hits) == (2, 3)
