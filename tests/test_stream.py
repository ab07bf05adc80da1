"""EventStream: each event in hand as soon as its bytes are, an end at `done`, and no end that is not one.

Against the sandbox where the service's own form matters, and raw servers where the bytes do; guarantees/test_faults_stream.py has
each way in which a stream ends badly.
"""

from __future__ import annotations

import gc
import json
import queue
import threading
import time
import zlib

import pytest
import requests

from hestiaos_lite import (
    Client,
    ConnectionFailed,
    EventStream,
    GovernanceBlock,
    InvalidInput,
    InvalidResponse,
    RateLimited,
    RequestTimeout,
    ServerError,
    StreamEvent,
    StreamInterrupted,
)

from .faultserver import (
    FaultServer,
    answer,
    answer_and_close,
    answer_and_hang,
    chunked,
    closed_port,
    head,
    ok,
)

TRACE = "trace-1"
START = StreamEvent("start", {"mode": "ALLOW"}, TRACE, "2026-11-21T00:00:00Z")
EVENTS = [
    START,
    StreamEvent("token", {"text": "naïve \u2028 "}, TRACE, "2026-11-21T00:00:01Z"),
    StreamEvent("delta", {"text": "}{"}, TRACE, "2026-11-21T00:00:02Z"),
    StreamEvent("tool_call", {"name": "search"}, TRACE, "2026-11-21T00:00:03Z"),
    StreamEvent("future", {}, TRACE, "2026-11-21T00:00:04Z"),
    StreamEvent("final", {"output": "done"}, TRACE, "2026-11-21T00:00:05Z"),
    StreamEvent("done", {}, TRACE, "2026-11-21T00:00:06Z"),
]
SSE = {"Content-Type": "text/event-stream"}


def encoded(event, form="data: {}\n\n"):
    return form.format(json.dumps(event.to_dict(), ensure_ascii=False)).encode("utf-8")


WHOLE = b"".join(map(encoded, EVENTS))


def over_lines(event):
    """One object spread over several data lines, as a standard server may write it."""
    lines = json.dumps(event.to_dict(), indent=1).split("\n")
    return "".join("data: {}\r\n".format(line) for line in lines).encode("utf-8") + b"\r\n"


class Plain:
    """Bytes to the close."""

    headers = SSE

    def __init__(self):
        pass

    def __call__(self, data):
        return data


class Chunked(Plain):
    headers = dict(SSE, **{"Transfer-Encoding": "chunked"})

    def __call__(self, data):
        return chunked([data], b"")


class ByLength(Plain):
    headers = dict(SSE, **{"Content-Length": 10**9})


class Gzip(Plain):
    headers = dict(SSE, **{"Content-Encoding": "gzip"})

    def __init__(self):
        self.deflater = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)

    def __call__(self, data):
        return self.deflater.compress(data) + self.deflater.flush(zlib.Z_SYNC_FLUSH)


class GzipChunked(Gzip):
    headers = dict(Gzip.headers, **{"Transfer-Encoding": "chunked"})

    def __call__(self, data):
        return chunked([super().__call__(data)], b"")


@pytest.fixture(params=["our session", "lent session"])
def session(request):
    if request.param == "our session":
        yield None
    else:
        with requests.Session() as lent:
            yield lent


def open_stream(server, timeout=5.0, session=None, **options):
    client = Client(server.url, timeout=timeout, retries=0, session=session)
    return client, client.run_stream("hello", **options)


# -- as they come


FORMS = {
    "with blank lines": encoded,
    "without blank lines": lambda event: encoded(event, "data: {}\n"),
    "CRLF": lambda event: encoded(event, "data: {}\r\n\r\n"),
    "CR": lambda event: encoded(event, "data: {}\r\r"),
    "several data lines": over_lines,
    "heartbeats and fields": lambda event: encoded(
        event, ": ping\n\nid: 7\nevent: x\nretry: 5\ndata:{}\n: ping\n\n"
    ),
    "sentinels": lambda event: encoded(event, "data: [DONE]\n\ndata: {}\n\ndata: [DONE]\n\n"),
}


def one_at_a_time(framing, form, asked):
    """A server that sends an event only when the test has asked for it, and then keeps the connection open."""

    def script(wire):
        encode = framing()
        wire.request()
        wire.send(head(200, framing.headers))
        for event in EVENTS:
            asked.get(timeout=10)
            wire.send(encode(form(event)))
        wire.hang()

    return script


IN_HAND = [(Chunked, form, kind) for form in FORMS for kind in ("own", "lent")]
IN_HAND += [
    (framing, "with blank lines", kind)
    for framing in (Plain, ByLength, Gzip, GzipChunked)
    for kind in ("own", "lent")
]


@pytest.mark.parametrize(
    ("framing", "form", "kind"), IN_HAND, ids=lambda value: getattr(value, "__name__", value)
)
def test_an_event_is_in_hand_as_soon_as_its_bytes_are(framing, form, kind):
    """The server waits for each event to be taken; one held back would end in a timeout, not in a late pass."""
    asked = queue.Queue()
    with FaultServer(one_at_a_time(framing, FORMS[form], asked)) as server, requests.Session() as lent:
        client, stream = open_stream(server, session=lent if kind == "lent" else None)
        with client, stream:
            for expected in EVENTS:
                asked.put(None)
                assert next(stream) == expected
            assert list(stream) == []  # at `done`, though the connection stays open
        assert server.hits == 1


# -- the sandbox


def test_the_sandbox_streams_word_by_word(box):
    with Client(box.url) as client:
        with client.run_stream(
            "create a report", session_id="s", agent_id="a", mode_hint="m", timeout_ms=700
        ) as stream:
            assert isinstance(stream, EventStream)
            assert iter(stream) is stream
            assert stream.trace_id is None
            events = list(stream)
        trace = client.trace(stream.trace_id)
    assert [event.type for event in events] == ["start", "token", "token", "token", "token", "final", "done"]
    assert [event.text for event in events] == ["", "processed:", " create", " a", " report", "", ""]
    assert {event.trace_id for event in events} == {stream.trace_id}
    assert events[-2].data["output"] == "processed: create a report"
    assert (trace.trace_id, trace.decision) == (stream.trace_id, "ALLOW")
    request = box.requests[0]
    assert (request.method, request.path) == ("POST", "/api/v1/run/stream")
    assert request.json == {
        "input": "create a report",
        "context": {"session_id": "s", "agent_id": "a", "mode_hint": "m"},
        "options": {"timeout_ms": 700, "stream": True},
    }
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["x-request-id"] == stream.request_id


def test_the_connection_of_a_finished_stream_is_not_needed_to_go_on(box):
    with Client(box.url) as client:
        for _ in range(3):
            assert [event.type for event in client.run_stream("x")][-1] == "done"
            assert client.health().ok


@pytest.mark.parametrize("after_events", [0, 1, 3])
def test_a_stream_that_the_sandbox_drops(box, after_events):
    box.drop_next_stream(after_events=after_events)
    with Client(box.url) as client:
        stream = client.run_stream("create a report")
        events = []
        with pytest.raises(StreamInterrupted) as caught:
            for event in stream:
                events.append(event)
        assert [event.type for event in events] == ["start", "token", "token"][:after_events]
        error = caught.value
        assert (error.status, error.delivered, error.attempts) == (200, True, 1)
        assert (error.trace_id, error.request_id) == (stream.trace_id, stream.request_id)
        assert (stream.trace_id is None) == (after_events == 0)
        assert client.health().ok
    assert [request.path for request in box.requests].count("/api/v1/run/stream") == 1


def test_a_block_is_raised_by_the_call_itself(box):
    with Client(box.url) as client:
        with pytest.raises(GovernanceBlock) as caught:
            client.run_stream("rm -rf /")
        assert client.trace(caught.value.trace_id).decision == "BLOCK"


@pytest.mark.parametrize(
    ("status", "cls", "requests_seen"),
    [(503, ServerError, 2), (429, RateLimited, 2), (500, ServerError, 1), (422, InvalidInput, 1)],
)
def test_a_refusal_is_raised_by_the_call_itself_after_its_retries(box, status, cls, requests_seen):
    box.fail_next(status, times=2)
    with Client(box.url, retries=1) as client, pytest.raises(cls) as caught:
        client.run_stream("x")
    assert (caught.value.status, caught.value.attempts) == (status, requests_seen)
    assert len(box.requests) == requests_seen


def test_a_refused_connection_is_raised_by_the_call_itself():
    with Client("http://127.0.0.1:{}".format(closed_port()), retries=0) as client, pytest.raises(
        ConnectionFailed
    ) as caught:
        client.run_stream("x")
    assert (caught.value.delivered, caught.value.attempts) == (False, 1)


# -- ends that are none


def ended(data, script=answer_and_close, timeout=5.0, session=None, **options):
    """The events before the error, and the error."""
    events = []
    with FaultServer(script(data)) as server:
        client, stream = open_stream(server, timeout, session, **options)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each test looks at the class it is given
            for event in stream:
                events.append(event)
        assert list(stream) == [], "an iterator that has raised has ended"
        client.close()
        assert server.hits == 1
    return events, caught.value, stream


@pytest.mark.parametrize("body", [b"{nonsense}", b"[1]"], ids=["not JSON", "a list"])
def test_what_is_no_object_breaks_the_contract(body):
    events, error, _ = ended(head(200, SSE) + encoded(START) + b"data: " + body + b"\n\n" + WHOLE)
    assert (events, type(error)) == ([START], InvalidResponse)
    fault = "an event is not a JSON object, or names a field twice"
    assert (error.message, error.details) == (fault, body.decode("ascii"))


@pytest.mark.parametrize("bad", [{}, {"type": None}, {"type": 5}, {"data": {}}], ids=str)
def test_an_event_without_a_type_breaks_the_contract(bad):
    bad = dict(bad, trace_id="trace-2")
    body = "data: {}\n\n".format(json.dumps(bad)).encode("ascii")
    for before in ([START], []):
        events, error, _ = ended(head(200, SSE) + b"".join(map(encoded, before)) + body + WHOLE)
        assert events == before
        assert type(error) is InvalidResponse
        assert error.message.startswith("StreamEvent: required field 'type' is ")
        assert (error.details, error.status, error.delivered) == (bad, 200, True)
        assert error.trace_id == "trace-2"  # the one it came with: never dropped, and never another's


@pytest.mark.parametrize(("response", "words"), [
    (ok({"result": "ALLOW"}), "is application/json, not an event stream"),
    (head(200, {"Content-Type": "text/html", "Content-Length": 4}) + b"<p/>", "is text/html, not an event stream"),
], ids=["JSON", "HTML"])  # fmt: skip
def test_an_answer_that_is_no_stream(response, words):
    with FaultServer(answer_and_hang(response)) as server:
        client = Client(server.url, timeout=5, retries=2)
        with pytest.raises(InvalidResponse) as caught:
            client.run_stream("x")
        client.close()
        assert server.hits == 1
    assert caught.value.message == "the answer to POST /api/v1/run/stream " + words
    assert caught.value.details is not None


def test_the_trace_of_a_stream_is_that_of_its_first_event():
    other = StreamEvent("done", {}, "trace-2", "2026")
    with FaultServer(answer_and_close(head(200, SSE) + encoded(START) + encoded(other))) as server:
        client, stream = open_stream(server)
        assert (list(stream), stream.trace_id) == ([START, other], TRACE)
        client.close()


# -- time


def test_silence_is_a_timeout():
    with FaultServer(answer_and_hang(head(200, SSE) + encoded(START))) as server:
        client, stream = open_stream(server, timeout=0.3, timeout_ms=100)
        assert next(stream) == START
        with pytest.raises(RequestTimeout, match="the stream was silent for 0.3 s"):
            next(stream)
        client.close()


def test_a_stream_that_never_begins_is_a_timeout_of_the_call():
    with FaultServer(answer_and_hang(b"")) as server:
        client = Client(server.url, timeout=0.3, retries=3)
        with pytest.raises(RequestTimeout) as caught:
            client.run_stream("x", timeout_ms=100)
        assert (caught.value.delivered, caught.value.attempts, caught.value.status) == (None, 1, None)
        client.close()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "soon"], ids=repr)
def test_a_bad_timeout_is_refused_before_anything_is_sent(box, timeout):
    with Client(box.url) as client, pytest.raises(InvalidInput):
        client.run_stream("x", timeout=timeout)
    assert box.requests == []


# -- ending it


def connection_is_gone(server):
    """It was closed, and is not kept for another request."""
    deadline = time.monotonic() + 5
    while not server.left_after:
        assert time.monotonic() < deadline, "the connection stays open"
        time.sleep(0.01)


def test_cancel_from_another_thread_wakes_the_reader_and_ends_its_iteration(session):
    with FaultServer(answer_and_hang(head(200, Chunked.headers) + chunked([encoded(START)], b""))) as server:
        client, stream = open_stream(server, timeout=20, session=session)
        read = []

        def reader():
            for event in stream:
                read.append(event)
                reading.set()

        reading = threading.Event()
        thread = threading.Thread(target=reader)
        thread.start()
        assert reading.wait(5)
        time.sleep(0.05)  # so that it most likely waits for the next event
        stream.cancel()
        thread.join(10)
        assert not thread.is_alive()
        assert read == [START]
        assert list(stream) == []
        stream.cancel()
        stream.close()
        client.close()
        connection_is_gone(server)


def test_cancel_before_the_first_event():
    with FaultServer(answer_and_hang(head(200, SSE) + WHOLE)) as server:
        client, stream = open_stream(server)
        stream.cancel()
        assert list(stream) == []
        client.close()


@pytest.mark.parametrize("how", ["close", "with", "break", "drop unread", "drop half read"])
def test_whatever_ends_it_early_closes_the_connection_and_leaves_the_client_usable(how):
    def script(wire):
        wire.request()
        wire.send(head(200, Chunked.headers) + chunked([encoded(START)], b""))
        wire.hang()

    with FaultServer(script, answer(ok({"status": "ok"}))) as server:
        client, stream = open_stream(server, timeout=20)
        if how == "close":
            assert next(stream) == START
            stream.close()
            stream.close()
            assert list(stream) == []
        elif how == "with":
            with stream:
                pass
        elif how == "break":
            for _ in stream:
                break
            del _
        elif how == "drop half read":
            assert next(stream) == START
        del stream
        gc.collect()
        connection_is_gone(server)
        assert client.health().ok
        assert server.connections == 2
        client.close()


def test_two_streams_of_one_client_at_once(box):
    with Client(box.url) as client:
        first, second = client.run_stream("one two"), client.run_stream("three")
        read = [next(first), next(second), next(first), next(second)]
        assert [event.text for event in read] == ["", "", "processed:", "processed:"]
        assert [event.text for event in first] == [" one", " two", "", ""]
        assert [event.text for event in second] == [" three", "", ""]
        assert first.trace_id != second.trace_id
