"""EventStream against the sandbox, where the service's own form matters.

guarantees/test_faults_stream.py has each framing, and each way in which a stream ends badly or is ended.
"""

from __future__ import annotations

import pytest

from hestiaos_lite import (
    Client,
    ConnectionFailed,
    EventStream,
    GovernanceBlock,
    InvalidInput,
    RequestTimeout,
    StreamInterrupted,
)

from .faultserver import closed_port, hang, served


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


def test_a_refused_connection_is_raised_by_the_call_itself():
    with Client("http://127.0.0.1:{}".format(closed_port()), retries=0) as client, pytest.raises(
        ConnectionFailed
    ) as caught:
        client.run_stream("x")
    assert (caught.value.delivered, caught.value.attempts) == (False, 1)


def test_a_stream_that_never_begins_is_a_timeout_of_the_call():
    with served(hang, timeout=0.3, retries=3) as (client, _), pytest.raises(RequestTimeout) as caught:
        client.run_stream("x", timeout_ms=100)
    assert (caught.value.delivered, caught.value.attempts, caught.value.status) == (None, 1, None)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "soon"], ids=repr)
def test_a_bad_timeout_is_refused_before_anything_is_sent(box, timeout):
    with Client(box.url) as client, pytest.raises(InvalidInput):
        client.run_stream("x", timeout=timeout)
    assert box.requests == []


def test_two_streams_of_one_client_at_once(box):
    with Client(box.url) as client:
        first, second = client.run_stream("one two"), client.run_stream("three")
        read = [next(first), next(second), next(first), next(second)]
        assert [event.text for event in read] == ["", "", "processed:", "processed:"]
        assert [event.text for event in first] == [" one", " two", "", ""]
        assert [event.text for event in second] == [" three", "", ""]
        assert first.trace_id != second.trace_id
