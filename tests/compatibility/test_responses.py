"""responses, as a user's own tests use it: every call and the stream, without a network."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import responses

from hestiaos_lite import Client, ConnectionFailed

from .play import EXCHANGES, URL, session_of


@pytest.fixture(params=["own", "callers"])
def session(request: pytest.FixtureRequest) -> Any:
    return session_of(request.param)


@responses.activate
def test_each_call(session: Any) -> None:
    for exchange in EXCHANGES:
        responses.reset()
        facts = {"status": exchange.status, "content_type": exchange.content_type}
        responses.add(exchange.method, URL + exchange.path, body=exchange.body, **facts)
        assert exchange.played(session) == exchange.outcome, exchange.name


@responses.activate
def test_what_was_sent(session: Any) -> None:
    responses.add(responses.POST, URL + "/api/v1/run", json={"result": "ALLOW", "trace_id": "t-1"})
    with Client(URL, session=session, headers={"X-Job": "nightly"}) as client:
        assert client.run("hello", session_id="s-1").trace_id == "t-1"
    sent = responses.calls[0].request
    assert json.loads(sent.body)["input"] == "hello"
    assert sent.headers["X-Job"] == "nightly"


@responses.activate
def test_a_post_whose_answer_is_lost_is_sent_once(session: Any) -> None:
    responses.add(responses.POST, URL + "/api/v1/run", body=requests.ConnectionError("lost"))
    with Client(URL, session=session, retries=3) as client, pytest.raises(ConnectionFailed) as caught:
        client.run("hello")
    assert (caught.value.delivered, caught.value.effect, len(responses.calls)) == (None, "unknown", 1)


@responses.activate
def test_an_answer_that_passes_is_asked_for_again(session: Any) -> None:
    responses.add(responses.GET, URL + "/api/v1/health", status=503, headers={"Retry-After": "0"})
    responses.add(responses.GET, URL + "/api/v1/health", json={"status": "ok"})
    with Client(URL, session=session, retries=1) as client:
        assert client.health().ok
    assert len(responses.calls) == 2
