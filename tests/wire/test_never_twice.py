"""One answer for one request: nothing left over is taken for the next one's, and nothing is sent twice or called unsent."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any, Dict, List

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.util import Retry

from hestiaos_lite import (
    AegisClient,
    AuthenticationError,
    Client,
    ConnectionFailed,
    HestiaError,
    RequestTimeout,
)

from ..faultserver import (
    TLS_AUTHORITY,
    FaultServer,
    Wire,
    answer,
    chunked,
    closed_port,
    drop_and_leave,
    head,
    ok,
    reply,
    served,
)

KINDS = ("own", "lent")
RUN = {"result": "ALLOW", "trace_id": "t"}
JSON = {"Content-Type": "application/json"}

# -- what a service says beyond its answer

BEYOND = {
    "another answer": ok(dict(RUN, trace_id="smuggled")),
    "a byte": b"x",
    "a line": b"\r\n",
}
FRAMED = {
    "by length": ok(RUN),
    "in chunks": head(200, dict(JSON, **{"Transfer-Encoding": "chunked"}))
    + chunked([json.dumps(RUN).encode()]),
    "as a refusal": reply(404, b'{"detail": "no"}'),
}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("framed", FRAMED)
@pytest.mark.parametrize("beyond", BEYOND)
def test_bytes_beyond_an_answer_are_no_answer_to_the_next_call(
    beyond: str, framed: str, kind: str, tls: bool
) -> None:
    """In one write, so that one TLS record and one read hold both."""
    first = FRAMED[framed] + BEYOND[beyond]
    with FaultServer(answer(first), answer(ok(dict(RUN, trace_id="second"))), tls=tls) as server:
        with requests.Session() as lent, Client(
            server.url, timeout=10, retries=0, verify=TLS_AUTHORITY, session=lent if kind == "lent" else None
        ) as client:
            try:
                assert client.run("hello").trace_id == "t"
            except HestiaError as error:
                assert error.status == 404
            assert client.run("hello").trace_id == "second"
        assert (server.connections, server.hits) == (2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_beyond_a_body_in_its_tls_record_are_no_answer(kind: str) -> None:
    """They stay in the TLS object, where a look at the socket does not see them; the head came in a record of its own."""

    def script(wire: Wire) -> None:
        wire.request()
        first, blank, body = ok(RUN).partition(b"\r\n\r\n")
        wire.send(first + blank)
        wire.send(body + ok(dict(RUN, trace_id="smuggled")))
        wire.hang()

    with FaultServer(script, answer(ok(dict(RUN, trace_id="second"))), tls=True) as server:
        with requests.Session() as lent, Client(
            server.url, timeout=10, retries=0, verify=TLS_AUTHORITY, session=lent if kind == "lent" else None
        ) as client:
            assert [client.run("hello").trace_id for _ in range(2)] == ["t", "second"]
        assert server.connections == 2


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("framed", FRAMED)
def test_a_connection_with_nothing_left_is_kept(framed: str, kind: str, tls: bool) -> None:
    with served(
        answer(FRAMED[framed], ok(RUN)), kind=kind, tls=tls, timeout=10, retries=0, verify=TLS_AUTHORITY
    ) as (client, server):
        for _ in range(2):
            try:
                client.run("hello")
            except HestiaError as error:
                assert error.status == 404
        assert (server.connections, server.hits) == (1, 2)


# -- sessions that repeat by themselves


class Insists(HTTPAdapter):
    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        try:
            return super().send(*args, **kwargs)
        except requests.ConnectionError:
            return super().send(*args, **kwargs)


class InsistingSession(requests.Session):
    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        try:
            return super().send(*args, **kwargs)
        except requests.ConnectionError:
            return super().send(*args, **kwargs)


class OwnRetry(Retry):
    def increment(self, *args: Any, **kwargs: Any) -> Retry:
        return self.new(total=-1) if self.total == 0 else super().increment(*args, **kwargs)


def retrying(**counts: Any) -> HTTPAdapter:
    return HTTPAdapter(max_retries=Retry(allowed_methods=None, backoff_factor=0, **counts))


REPEATING: Dict[str, Any] = {
    "a total": lambda: ("", retrying(total=1)),
    "no total, and one read": lambda: ("", retrying(total=None, connect=0, read=1)),
    "no total, and one of another kind": lambda: ("", retrying(total=None, connect=0, read=0, status=0, other=1)),
    "a longer prefix": lambda: ("/api/v1/run", retrying(total=1)),
    "an adapter of its own": lambda: ("", Insists()),
    "a Retry of its own": lambda: ("", HTTPAdapter(max_retries=OwnRetry(0, allowed_methods=None))),
}  # fmt: skip


@pytest.mark.parametrize("name", [*REPEATING, "a session of its own"])
def test_a_session_that_repeats_is_not_believed_about_its_last_try(name: str) -> None:
    """The first try was read by the service, which then went away; the second was refused."""
    lent = InsistingSession() if name == "a session of its own" else requests.Session()
    with FaultServer(drop_and_leave) as server, lent:
        if name in REPEATING:
            prefix, adapter = REPEATING[name]()
            lent.mount(server.url + prefix, adapter)
        with Client(server.url, timeout=10, retries=2, session=lent) as client:
            with pytest.raises(ConnectionFailed) as caught:
                client.run("hello")
        error = caught.value
        assert (server.hits, error.delivered, error.effect, error.attempts) == (1, None, "unknown", 1)


@pytest.mark.parametrize("retry", [
    Retry(0, read=False),
    Retry(False),
    Retry(0),
    Retry(None, connect=0, read=0, redirect=0, status=0, other=0),
], ids=str)  # fmt: skip
def test_a_session_that_repeats_nothing_is_believed(retry: Retry) -> None:
    with requests.Session() as lent:
        lent.mount("http://", HTTPAdapter(max_retries=retry))
        url = "http://127.0.0.1:{}".format(closed_port())
        with Client(url, timeout=10, retries=0, session=lent) as client:
            with pytest.raises(ConnectionFailed) as caught:
                client.run("hello")
    assert (caught.value.delivered, caught.value.effect) == (False, "none")


# -- `delivered` speaks of the whole call


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [429, 503])
def test_turned_away_and_then_refused_has_reached_the_service(status: int, kind: str) -> None:
    def leave(wire: Wire) -> None:
        server.refuse()
        wire.request()
        wire.send(reply(status, b"{}", {"Connection": "close"}))

    with served(leave, kind=kind, timeout=10, retries=1) as (client, server):
        with pytest.raises(ConnectionFailed) as caught:
            client.run("hello")
    error = caught.value
    assert (error.delivered, error.effect, error.attempts, error.exit_code) == (True, "none", 2, 69)
    assert "nothing was done" in str(error)
    assert "never reached" not in str(error)


def test_a_407_where_no_proxy_is_set_is_the_service_s() -> None:
    with FaultServer(answer(reply(407, b"{}"))) as server, Client(server.url, timeout=10) as client:
        with pytest.raises(AuthenticationError) as caught:
            client.run("hello")
    assert (caught.value.delivered, caught.value.effect, caught.value.attempts) == (True, "none", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_that_fails_after_a_refusal_has_reached_the_service(kind: str) -> None:
    """The service refuses a body by its head and closes under the rest of it: what was read of it, it has."""

    def refuse(wire: Wire) -> None:
        wire.read(100)
        wire.send(reply(413, b"{}"))
        wire.reset()

    with served(refuse, kind=kind, timeout=10, retries=3) as (client, server):
        with pytest.raises(HestiaError) as caught:
            client.run("x" * 20_000_000)
    assert (caught.value.delivered is not False, caught.value.attempts, server.connections) == (True, 1, 1)


def test_an_attempt_in_doubt_and_then_refused_is_in_doubt() -> None:
    def leave(wire: Wire) -> None:
        server.refuse()
        wire.request()

    with FaultServer(leave) as server:
        with AegisClient(server.url, api_key="k", thread_id="t", timeout=10, max_retries=1) as client:
            with pytest.raises(ConnectionFailed) as caught:
                client.approve("key")
    assert (caught.value.delivered, caught.value.effect, caught.value.attempts) == (None, "unknown", 2)


# -- connections that were closed, or are too old


def test_a_client_that_is_closed_while_other_threads_call() -> None:
    """A pool closed under a call is no failure of the call: nothing was sent by then."""
    failures: List[BaseException] = []

    def work(client: Client) -> None:
        try:
            for _ in range(60):
                client.run("hello")
        except HestiaError as error:
            failures.append(error)

    with FaultServer(answer(ok(RUN))) as server, Client(server.url, timeout=30, retries=0) as client:
        switched = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # so that a close comes between any two steps of a call
        try:
            threads = [threading.Thread(target=work, args=(client,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                client.close()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(switched)
        assert failures == []
        assert server.hits == 240


def test_a_lent_session_that_is_closed_under_a_call_has_sent_nothing() -> None:
    with FaultServer(answer(ok(RUN))) as server, requests.Session() as lent:
        adapter: Any = lent.get_adapter(server.url)
        name = "get_connection_with_tls_context"  # of requests since 2.32
        name = name if hasattr(adapter, name) else "get_connection"
        pool_of = getattr(adapter, name)

        def closed(*args: Any, **kwargs: Any) -> Any:
            pool = pool_of(*args, **kwargs)
            pool.close()
            return pool

        setattr(adapter, name, closed)
        with Client(server.url, timeout=10, retries=0, session=lent) as client:
            with pytest.raises(ConnectionFailed) as caught:
                client.run("hello")
        assert (server.hits, caught.value.delivered, caught.value.effect) == (0, False, "none")


@pytest.mark.parametrize(("said", "idle_seconds", "connections"), [
    (None, 3.9, 1),
    (None, 4.0, 2),  # uvicorn, Node and Apache close theirs after 5 s
    ("timeout=60", 4.0, 2),
    ("timeout=3, max=100", 1.9, 1),
    ("timeout=3, max=100", 2.0, 2),
    ('max=5, TIMEOUT="3"', 2.0, 2),
    ("timeout=1", 0.0, 2),
    ("timeout=soon", 3.9, 1),
])  # fmt: skip
def test_a_connection_is_given_up_before_the_service_does(
    said: Any, idle_seconds: float, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with served(answer(ok(RUN, said and {"Keep-Alive": said})), timeout=10, retries=0) as (client, server):
        client.run("hello")
        now[0] += idle_seconds
        client.run("hello")
        assert (server.connections, server.hits) == (connections, 2)


def test_a_deadline_that_passes_before_a_kept_connection_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """While urllib3 has the request: not a byte of it has left."""
    urlopen = HTTPConnectionPool.urlopen

    def late(pool: Any, *args: Any, **kwargs: Any) -> Any:
        time.sleep(1.6)
        return urlopen(pool, *args, **kwargs)

    with FaultServer(answer(ok(RUN))) as server, Client(server.url, timeout=1.5, retries=0) as client:
        client.run("hello")
        monkeypatch.setattr(HTTPConnectionPool, "urlopen", late)
        with pytest.raises(RequestTimeout) as caught:
            client.run("hello")
        assert (caught.value.delivered, caught.value.effect, server.hits) == (False, "none", 1)
