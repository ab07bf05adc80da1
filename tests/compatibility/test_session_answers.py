"""What a caller's session may do to an answer before we have it: hooks that read or judge it, responses made by hand."""

from __future__ import annotations

import io
from typing import Any, Callable, Iterator, Optional

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from hestiaos_lite import AegisClient, Client, ConnectionFailed, GovernanceBlock, InvalidResponse, ServerError

from ..faultserver import FaultServer, answer, chunked, head, ok, reply
from . import needs
from .play import EXCHANGES, RUN


@pytest.fixture
def callers() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


# -- a body that somebody else has read


def reads_content(response: requests.Response, *args: Any, **kwargs: Any) -> None:
    assert response.content is not None


def judges(response: requests.Response, *args: Any, **kwargs: Any) -> None:
    response.raise_for_status()


def reads_lines(response: requests.Response, *args: Any, **kwargs: Any) -> None:
    list(response.iter_lines())


def reads_raw(response: requests.Response, *args: Any, **kwargs: Any) -> None:
    response.raw.read(1)


@pytest.mark.parametrize("hook", [reads_content, judges])
def test_a_hook_that_reads_an_answer_or_raises_for_its_status_changes_nothing(
    hook: Any, callers: requests.Session
) -> None:
    callers.hooks["response"].append(hook)
    for exchange in EXCHANGES:
        headers = {"Content-Type": exchange.content_type}
        with FaultServer(answer(reply(exchange.status, exchange.body.encode("utf-8"), headers))) as server:
            assert exchange.played(callers, server.url) == exchange.outcome, exchange.name


class NeverStreams(requests.Session):
    """A session that reads every body at once, whatever it is asked for."""

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        return super().send(request, **dict(settings, stream=False))


def test_a_session_that_never_streams() -> None:
    for exchange in EXCHANGES:
        data = head(exchange.status, {"Content-Type": exchange.content_type, "Transfer-Encoding": "chunked"})
        data += chunked([exchange.body.encode("utf-8")])
        with FaultServer(answer(data)) as server, NeverStreams() as callers:
            assert exchange.played(callers, server.url) == exchange.outcome, exchange.name


@pytest.mark.parametrize("hook", [reads_lines, reads_raw])
def test_a_body_that_is_gone_was_an_answer_all_the_same(hook: Any, callers: requests.Session) -> None:
    """A decision that was accepted is not sent again for it."""
    callers.hooks["response"].append(hook)
    accepted = reply(202, b'{"request_id": "r-1"}')
    with FaultServer(answer(accepted)) as server:
        with AegisClient(server.url, session=callers, tenant_id="acme", thread_id="main") as aegis:
            with pytest.raises(InvalidResponse, match="its body was already read") as caught:
                aegis.approve("key")
        assert (caught.value.effect, caught.value.attempts, server.hits) == ("accepted", 1, 1)


@pytest.mark.parametrize("kind", [pytest.param("dump", marks=needs("requests_toolbelt"))])
def test_the_dump_of_requests_toolbelt(kind: str, callers: requests.Session) -> None:
    from requests_toolbelt.utils import dump

    seen = []
    callers.hooks["response"].append(lambda response, *args, **kwargs: seen.append(dump.dump_all(response)))
    with FaultServer(answer(ok(RUN))) as server, Client(server.url, session=callers) as client:
        assert client.run("hello").text == "hello"
    assert b'"trace_id": "t-1"' in seen[0]


# -- a status that somebody else has judged


def test_the_facts_of_what_a_hook_has_raised_for(callers: requests.Session) -> None:
    callers.hooks["response"].append(judges)
    refusal = reply(403, b'{"message": "no", "trace_id": "t-9"}')
    with FaultServer(answer(refusal)) as server, Client(server.url, session=callers) as client:
        with pytest.raises(GovernanceBlock) as caught:
            client.run("hello")
    assert (caught.value.trace_id, caught.value.delivered, caught.value.exit_code) == ("t-9", True, 1)


def test_what_a_hook_has_raised_for_is_sent_again_where_that_helps(callers: requests.Session) -> None:
    callers.hooks["response"].append(judges)
    with FaultServer(answer(reply(503, b"", {"Retry-After": 0}), ok({"status": "ok"}))) as server:
        with Client(server.url, session=callers, retries=1) as client:
            assert client.health().ok
        assert server.hits == 2


def test_a_hook_s_own_request_that_fails_is_not_ours(callers: requests.Session) -> None:
    """Its 401 says nothing of our request, which was answered."""
    with FaultServer(answer(reply(401, b""))) as other, FaultServer(answer(ok(RUN))) as server:
        callers.hooks["response"].append(lambda *args, **kwargs: requests.get(other.url).raise_for_status())
        with Client(server.url, session=callers, retries=3) as client:
            with pytest.raises(ConnectionFailed) as caught:
                client.run("hello")
        assert (caught.value.status, caught.value.effect, server.hits) == (None, "unknown", 1)


# -- responses made by hand


class Canned(HTTPAdapter):
    """Answers with a Response of its own making."""

    def __init__(self, status: int, make_raw: Callable[[], Any], content: Optional[bytes] = None) -> None:
        super().__init__()
        self._status = status
        self._make_raw = make_raw
        self._content = content

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:  # type: ignore[override]
        response = requests.Response()
        response.status_code = self._status
        response.raw = self._make_raw()
        if self._content is not None:
            response._content = self._content
        return response


def test_a_response_made_by_hand(callers: requests.Session) -> None:
    for exchange in EXCHANGES:
        body = exchange.body.encode("utf-8")
        for canned in (
            Canned(exchange.status, lambda body=body: io.BytesIO(body)),
            Canned(exchange.status, lambda body=body: HTTPResponse(io.BytesIO(body), preload_content=False)),
            Canned(exchange.status, lambda: None, body),
        ):
            callers.mount("http://", canned)
            assert exchange.played(callers) == exchange.outcome, exchange.name


def test_a_response_without_a_body(callers: requests.Session) -> None:
    callers.mount("http://", Canned(200, lambda: None))
    with Client("http://service.example", session=callers) as client:
        assert client.secrets.delete("k") is None
        with pytest.raises(InvalidResponse, match="is empty"):
            client.run("hello")
    callers.mount("http://", Canned(500, lambda: None))
    with Client("http://service.example", session=callers) as client, pytest.raises(ServerError):
        client.run("hello")
