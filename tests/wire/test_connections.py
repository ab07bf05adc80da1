"""What lies between the client and the service: TLS, proxies, ~/.netrc, and connections kept alive for too long."""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
import warnings
from typing import Any, Iterator, List

import pytest
import requests
import urllib3

from hestiaos_lite import AuthenticationError, Client, ConnectionFailed, InvalidInput, RequestTimeout

from ..faultserver import (
    TLS_AUTHORITY,
    FaultServer,
    Wire,
    answer,
    answer_and_close,
    closed_port,
    head,
    ok,
    reply,
    served,
)
from ..proxies import http_proxy, socks_reply, socks_request

PATIENT = 10.0
HEALTHY = ok({"status": "ok"})
EVENTS = b'data: {"type": "token", "data": {"text": "x"}}\n\ndata: {"type": "done"}\n\n'
HOST = "service.example"  # resolved by nobody but a proxy


@pytest.fixture(params=["own", "lent"])
def session(request: pytest.FixtureRequest) -> Iterator[Any]:
    """None for a session of ours, else one that is lent; a lent one stays usable."""
    if request.param == "own":
        yield None
        return
    with requests.Session() as lent:
        yield lent


# -- TLS


def test_tls_with_a_bundle_given_by_the_caller(session: Any) -> None:
    with served(
        answer(HEALTHY), tls=True, api_key="key", timeout=PATIENT, session=session, verify=TLS_AUTHORITY
    ) as (client, server):
        assert client.health().ok
        assert client.health().ok
        assert (server.hits, server.connections) == (2, 1)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_tls_with_a_bundle_named_by_the_environment(
    name: str, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, TLS_AUTHORITY)
    with served(answer(HEALTHY), tls=True, timeout=PATIENT, session=session) as (client, _):
        assert client.health().ok


def test_what_the_caller_says_wins_over_the_environment(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/at/all.pem")
    with served(answer(HEALTHY), tls=True, timeout=PATIENT, session=session, verify=TLS_AUTHORITY) as (
        client,
        server,
    ):
        assert client.health().ok
        with Client(server.url, timeout=PATIENT, session=session) as client, pytest.raises(
            InvalidInput
        ) as caught:
            client.health()
        assert (caught.value.code, caught.value.delivered) == ("CONFIGURATION", False)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_that_does_not_exist_stops_https_only(
    name: str, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "/nowhere/at/all.pem")
    with served(answer(HEALTHY), timeout=PATIENT, session=session) as (client, server):
        assert client.health().ok
        with Client(server.url, session=session, verify="/nowhere/at/all.pem") as client, pytest.raises(
            InvalidInput
        ):
            client.health()


def test_a_lent_session_s_verify_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/at/all.pem")
    with FaultServer(answer(HEALTHY), tls=True) as server, requests.Session() as lent:
        lent.verify = TLS_AUTHORITY
        with Client(server.url, timeout=PATIENT, session=lent) as client:
            assert client.health().ok


def test_no_verification_warns_once_for_the_client_and_not_at_every_connection() -> None:
    with FaultServer(answer_and_close(HEALTHY), tls=True) as server:
        with pytest.warns(UserWarning, match="verify=False") as warned:
            client = Client(server.url, timeout=PATIENT, verify=False)
        assert len(warned) == 1
        assert warned[0].filename == __file__
        with client:  # and from here on a warning is an error
            assert client.health().ok
            assert client.health().ok
        assert server.connections == 2


@pytest.mark.parametrize(("url", "key", "warns"), [
    ("http://service.example", "key", True),
    ("http://192.0.2.1:8000", "key", True),
    ("http://service.example", None, False),
    ("https://service.example", "key", False),
    ("http://localhost:8000", "key", False),
    ("http://127.0.0.1:8000", "key", False),
    ("http://[::1]:8000", "key", False),
    ("http://127.9.9.9", "key", False),
    ("http://box.localhost", "key", False),
])  # fmt: skip
def test_a_key_over_plain_http_warns_once_a_client(url: str, key: Any, warns: bool) -> None:
    """By Python's own default filter a second client made at the same place in the program warns no more."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            Client(url, key).close()
        assert len(caught) == 2 * warns
        assert all(
            "plain http" in str(warning.message) and warning.filename == __file__ for warning in caught
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            Client(url, key).close()
        assert len(caught) == warns


def test_a_stream_over_tls(session: Any) -> None:
    data = head(200, {"Content-Type": "text/event-stream"}) + EVENTS
    with served(answer_and_close(data), tls=True, timeout=PATIENT, session=session, verify=TLS_AUTHORITY) as (
        client,
        _,
    ):
        assert [event.text for event in client.run_stream("hello")] == ["x", ""]


# -- proxies


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("named_by", ["environment", "session"])
def test_a_proxy_is_used(named_by: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log: List[str] = []
    with FaultServer(answer(HEALTHY), tls=scheme == "https") as server, FaultServer(
        http_proxy(server.port, log)
    ) as middle:
        url = "http://user:word@127.0.0.1:{}".format(middle.port)
        with requests.Session() as lent:
            if named_by == "environment":
                monkeypatch.setenv(scheme + "_proxy", url)
            else:
                lent.proxies = {scheme: url}
            # the certificate is for the address; a name that the proxy alone resolves would need another
            verify = False if scheme == "https" else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Client(
                    "{}://{}".format(scheme, HOST),
                    timeout=PATIENT,
                    verify=verify,
                    session=lent if named_by == "session" else None,
                ) as client:
                    assert client.health().ok
        credentials = "Basic " + base64.b64encode(b"user:word").decode()
        target = (
            "GET http://{}/api/v1/health".format(HOST) if scheme == "http" else "CONNECT {}:443".format(HOST)
        )
        assert log == ["{} {}".format(target, credentials)]
        assert server.requests[0].headers["host"] == HOST
        assert "proxy-authorization" not in server.requests[0].headers or scheme == "http"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_loopback_url_never_goes_through_a_proxy_of_the_environment(
    host: str, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer(answer(HEALTHY)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:{}".format(closed_port()))
        with Client(
            "http://{}:{}".format(host, server.port), timeout=PATIENT, session=session, retries=0
        ) as client:
            assert client.health().ok


def test_a_loopback_url_goes_through_a_proxy_of_the_caller() -> None:
    log: List[str] = []
    with FaultServer(answer(HEALTHY)) as server, FaultServer(
        http_proxy(server.port, log)
    ) as middle, requests.Session() as lent:
        lent.proxies = {"http": middle.url}
        with Client(server.url, timeout=PATIENT, session=lent) as client:
            assert client.health().ok
        assert log == ["GET {}/api/v1/health -".format(server.url)]


def test_no_proxy_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:{}".format(closed_port()))
    monkeypatch.setenv("no_proxy", "elsewhere.example,.invalid")
    with Client("http://no-such-host.invalid", timeout=PATIENT, retries=0) as client:
        with pytest.raises(ConnectionFailed) as caught:
            client.health()
    assert "cannot be resolved" in str(
        caught.value
    )  # it was looked up here, which a proxy would have been asked to do


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_credentials(scheme: str, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain or on CONNECT it is one thing: nothing was done, another try will not help, and the proxy is named."""
    refusal = reply(407, b"<html>who are you?", {"Proxy-Authenticate": "Basic"})
    with FaultServer(answer(refusal)) as middle:
        monkeypatch.setenv(scheme + "_proxy", middle.url.replace("//", "//user:hunter2@"))
        with Client("{}://{}".format(scheme, HOST), timeout=PATIENT, session=session, retries=3) as client:
            for call in (client.health, lambda: client.run("hello")):
                with pytest.raises(AuthenticationError) as caught:
                    call()
                error = caught.value
                facts = error.status, error.delivered, error.effect, error.attempts, error.exit_code
                assert facts == (407, False, "none", 1, 77)
                assert "check the credentials in the URL of the proxy {} (".format(middle.url) in str(error)
                assert "hunter2" not in str(error)
        assert middle.hits == 2


def test_a_proxy_whose_answer_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a proxy answers to CONNECT is no answer of the service: the request has not left."""
    with FaultServer(answer_and_close(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n")) as middle:
        monkeypatch.setenv("https_proxy", middle.url)
        with Client("https://" + HOST, timeout=PATIENT, retries=0) as client:
            with pytest.raises(ConnectionFailed) as caught:
                client.run("hello")
    assert (caught.value.delivered, caught.value.effect) == (False, "none")


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@bad host:80", "http://user:hunter2@[::1", "http://user:hunter2@:1:2"]
)
def test_a_malformed_proxy_is_named_without_its_password(
    url: str, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", url)
    with Client("http://" + HOST, timeout=PATIENT, session=session, retries=0) as client:
        with pytest.raises((InvalidInput, ConnectionFailed)) as caught:
            client.run("hello")
    assert caught.value.delivered is False
    assert "hunter2" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:verify=False", "ignore:Unverified HTTPS")
@pytest.mark.parametrize(("by", "silent_in"), [
    ("http", "the service's TLS"),
    pytest.param("https", "the service's TLS", marks=pytest.mark.skipif(
        urllib3.__version__ == "1.26.5", reason="it checks a proxy's certificate in spite of verify=False"
    )),
    ("https", "the proxy's TLS"),
    ("socks5h", "the service's TLS"),
    ("socks5h", "the proxy's reply"),
])  # fmt: skip
def test_the_deadline_holds_through_a_proxy_that_is_late_and_then_silent(
    by: str, silent_in: str, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of the deadline goes into connecting, and then what follows hangs: it must not have the whole once more.

    It may with a session that is lent, and then ends all the same (docs/reference.md, "Deadlines").
    """
    deadline_seconds = 2.0

    def late_and_silent(wire: Wire) -> None:
        if by == "socks5h":
            socks_request(wire)
        elif silent_in != "the proxy's TLS":
            wire.request()
        wire.pause(0.8 * deadline_seconds)
        if silent_in == "the service's TLS":
            wire.send(socks_reply(0) if by == "socks5h" else b"HTTP/1.1 200 Connection established\r\n\r\n")
        wire.pause(20)

    with FaultServer(late_and_silent, tls=by == "https" and silent_in == "the service's TLS") as middle:
        monkeypatch.setenv("https_proxy", "{}://localhost:{}".format(by, middle.port))
        with Client("https://" + HOST, timeout=deadline_seconds, verify=False, session=session) as client:
            started = time.monotonic()
            with pytest.raises(RequestTimeout) as caught:
                client.run("hello", timeout_ms=100)
            took_seconds = time.monotonic() - started
        assert took_seconds < (1.6 if session is None else 2.6) * deadline_seconds
        is_known = session is None or silent_in == "the proxy's reply"
        assert caught.value.delivered is (False if is_known else None)


# -- ~/.netrc


@pytest.mark.parametrize("found_by", ["HOME", "NETRC"])
@pytest.mark.parametrize("key", [None, "the-key"])
def test_netrc_neither_adds_nor_replaces_credentials(
    key: Any, found_by: str, session: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text(
        "machine 127.0.0.1 login mallory password hunter2\ndefault login mallory password hunter2\n"
    )
    netrc.chmod(0o600)
    monkeypatch.setenv(found_by, str(tmp_path if found_by == "HOME" else netrc))
    with FaultServer(answer(HEALTHY)) as server:
        with requests.Session() as plain:  # the entry is one that requests would use
            plain.get(server.url)
        with Client(server.url, key, timeout=PATIENT, session=session) as client:
            client.health()
        assert [request.headers.get("authorization") for request in server.requests] == [
            "Basic bWFsbG9yeTpodW50ZXIy",
            None if key is None else "Bearer the-key",
        ]


def test_a_lent_session_s_own_credentials_are_used_when_there_is_no_key() -> None:
    with FaultServer(answer(HEALTHY)) as server, requests.Session() as lent:
        lent.auth = ("user", "word")
        for key in (None, "the-key"):
            with Client(server.url, key, timeout=PATIENT, session=lent) as client:
                client.health()
        sent = [request.headers["authorization"] for request in server.requests]
        assert sent == ["Basic " + base64.b64encode(b"user:word").decode(), "Bearer the-key"]


# -- connections kept alive


def test_a_connection_is_kept_and_used_again(session: Any) -> None:
    with served(answer(HEALTHY), timeout=PATIENT, session=session) as (client, server):
        for _ in range(3):
            client.health()
        assert (server.connections, server.hits) == (1, 3)


def test_a_client_that_was_closed_keeps_its_next_connection() -> None:
    with served(answer(HEALTHY), timeout=PATIENT) as (client, server):
        client.health()
        client.close()
        for _ in range(3):
            client.health()
        assert (server.connections, server.hits) == (2, 4)


def test_a_kept_connection_takes_a_large_request(session: Any) -> None:
    """It fills what the system keeps of it, and so has to wait: the look at what follows an answer does not."""
    with served(answer(ok({"result": "ALLOW", "trace_id": "t"})), timeout=30, retries=0, session=session) as (
        client,
        server,
    ):
        for size in (1, 20_000_000):
            client.run("x" * size)
        assert (server.connections, server.hits) == (1, 2)


@pytest.mark.parametrize("body", [reply(200, b"[]"), reply(500, b"{}"), reply(404)])
def test_a_connection_is_kept_after_an_error_that_was_read_whole(body: bytes) -> None:
    with served(answer(body, HEALTHY), timeout=PATIENT, retries=0) as (client, server):
        with pytest.raises(Exception, match="HTTP"):
            client.health()
        client.health()
        assert server.connections == 1


def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used(session: Any) -> None:
    closed = threading.Event()

    def once(wire: Wire) -> None:
        wire.request()
        wire.send(HEALTHY)
        wire.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    with served(
        once, answer(ok({"result": "r", "trace_id": "t"})), timeout=PATIENT, session=session, retries=0
    ) as (client, server):
        client.health()
        assert closed.wait(5)
        assert client.run("hello").trace_id == "t"  # a POST, not in doubt for a moment
        assert (server.connections, server.hits) == (2, 2)


def test_a_kept_connection_that_ends_with_the_next_request(session: Any) -> None:
    """The race that no client can win: a POST stays in doubt and is not repeated, a GET is."""

    def answers_one(wire: Wire) -> None:
        wire.request()
        wire.send(HEALTHY)
        wire.request()

    with served(answers_one, answers_one, answer(HEALTHY), timeout=PATIENT, session=session, retries=1) as (
        client,
        server,
    ):
        client.health()
        with pytest.raises(ConnectionFailed) as caught:
            client.run("hello")
        assert (caught.value.delivered, caught.value.status, caught.value.attempts) == (None, None, 1)
        assert (server.connections, server.hits) == (1, 2)
        client.health()
        assert client.health().ok
        assert (server.connections, server.hits) == (3, 5)


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="shows a connection's timers on Linux alone")
def test_a_connection_on_which_an_answer_is_awaited_is_probed() -> None:
    """TCP keep-alive is on, so that a NAT does not forget it, and a service that is gone is noticed."""
    timers: List[str] = []

    def looks(wire: Wire) -> None:
        wire.request()
        ends = tuple(
            "0100007F:{:04X}".format(end[1]) for end in (wire.sock.getpeername(), wire.sock.getsockname())
        )
        with open("/proc/net/tcp", encoding="ascii") as file:
            timers.extend(fields[5] for fields in map(str.split, file) if tuple(fields[1:3]) == ends)
        wire.send(HEALTHY)

    with FaultServer(looks) as server, Client(server.url, timeout=PATIENT) as client:
        client.health()
    assert [timer[:2] for timer in timers] == ["02"]  # the keep-alive timer


def test_an_answer_that_says_more_than_it_should_does_not_reach_the_next_call() -> None:
    """Bytes after a body are no answer to anything."""
    with served(answer(HEALTHY + ok({"status": "smuggled"}), ok({"status": "second"})), timeout=PATIENT) as (
        client,
        _,
    ):
        assert client.health().status == "ok"
        assert client.health().status == "second"


def test_a_lent_session_stays_open_and_as_it_was() -> None:
    with FaultServer(answer(HEALTHY)) as server, requests.Session() as lent:
        before = dict(vars(lent), adapters=dict(lent.adapters))
        with Client(server.url, "the-key", timeout=PATIENT, session=lent, headers={"X-Extra": "1"}) as client:
            client.health()
        assert dict(vars(lent), adapters=dict(lent.adapters)) == before
        assert lent.get(server.url).status_code == 200
        assert (server.connections, server.hits) == (1, 2)
        assert server.requests[1].headers.get("authorization") != "Bearer the-key"
