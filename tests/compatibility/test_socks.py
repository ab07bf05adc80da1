"""PySocks: through a SOCKS proxy nothing is sent twice, and deadline and cancel hold as they do without one."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Iterator, List

import pytest
import requests

from hestiaos_lite import AuthenticationError, Client, ConnectionFailed, RequestTimeout

from ..faultserver import (
    FaultServer,
    Wire,
    answer,
    answer_and_drip,
    answer_and_hang,
    closed_port,
    drop,
    head,
    ok,
)
from ..proxies import socks_proxy, socks_reply, socks_request

pytestmark = pytest.mark.filterwarnings("ignore:verify=False", "ignore:Unverified HTTPS request")

PATIENT = 20.0
HASTY = 1.0
HOST = "service.example"  # resolved by nobody but the proxy
START = b'data: {"type": "start"}\n\n'
STREAM = head(200, {"Content-Type": "text/event-stream"})

MakeClient = Callable[..., Client]


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["own", "callers"])
def client_of(scheme: str, request: pytest.FixtureRequest, monkeypatch: Any) -> Iterator[MakeClient]:
    """Make a client that reaches its service through the SOCKS proxy on a port: its session is its own, or is callers."""
    with requests.Session() as callers:

        def make(port: int, **options: Any) -> Client:
            url = "socks5h://127.0.0.1:{}".format(port)
            if request.param == "callers":
                callers.proxies = {scheme: url}
                options["session"] = callers
            monkeypatch.setenv(scheme + "_proxy", url)
            # the server's certificate is for an address
            verify = False if scheme == "https" else None
            return Client("{}://{}".format(scheme, HOST), verify=verify, **options)

        yield make


def test_a_call_goes_through_it_and_its_connection_is_kept(scheme: str, client_of: MakeClient) -> None:
    log: List[str] = []
    with FaultServer(answer(ok({"status": "ok"})), tls=scheme == "https") as server, FaultServer(
        socks_proxy(server.port, log)
    ) as proxy, client_of(proxy.port, timeout=PATIENT) as client:
        assert client.health().ok
        assert client.health().ok
    assert (log, server.hits) == (["{}:{}".format(HOST, 443 if scheme == "https" else 80)], 2)


def test_a_post_whose_answer_is_lost_is_sent_once(scheme: str, client_of: MakeClient) -> None:
    with FaultServer(drop, tls=scheme == "https") as server, FaultServer(
        socks_proxy(server.port, [])
    ) as proxy, client_of(proxy.port, timeout=PATIENT, retries=3) as client:
        with pytest.raises(ConnectionFailed) as caught:
            client.run("hello")
        assert (caught.value.delivered, caught.value.effect, caught.value.attempts) == (None, "unknown", 1)
        assert server.hits == 1


def refuses(wire: Wire) -> None:
    """A proxy that cannot reach the service."""
    socks_request(wire)
    wire.send(socks_reply(5))


def test_a_proxy_that_refuses_has_sent_nothing(client_of: MakeClient) -> None:
    with FaultServer(refuses) as proxy, client_of(proxy.port, timeout=PATIENT, retries=1) as client:
        with pytest.raises(ConnectionFailed) as caught:
            client.run("hello")
        assert (caught.value.delivered, caught.value.attempts, proxy.connections) == (False, 2, 2)


def wants_credentials(wire: Wire) -> None:
    """A proxy that takes none of the ways to log in which it is offered."""
    wire.read(wire.read(2)[1])
    wire.send(b"\x05\xff")


def test_a_proxy_that_wants_credentials(client_of: MakeClient) -> None:
    with FaultServer(wants_credentials) as proxy, client_of(proxy.port, timeout=PATIENT, retries=3) as client:
        with pytest.raises(AuthenticationError, match="of the proxy socks5h://127") as caught:
            client.run("hello")
        assert (caught.value.delivered, caught.value.attempts, proxy.connections) == (False, 1, 1)


def test_a_proxy_that_is_not_there(client_of: MakeClient) -> None:
    with client_of(closed_port(), timeout=PATIENT, retries=0) as client:
        with pytest.raises(ConnectionFailed) as caught:
            client.run("hello")
        assert caught.value.delivered is False


@pytest.mark.parametrize("client_of", ["own"], indirect=True)
@pytest.mark.parametrize("dripped", ["negotiation", "head"])
def test_the_deadline_holds_against_drips(dripped: str, scheme: str, client_of: MakeClient) -> None:
    """Each byte comes within the timeout, and all of them long after the deadline."""

    def negotiates_slowly(wire: Wire) -> None:
        socks_request(wire)
        wire.drip(b"\x05\x00\x00\x03\xff" + 255 * b"x", 0.2)

    slow = answer_and_drip(b"", head(200, {"X-Padding": 100 * "x"}), 0.2)
    with FaultServer(slow, tls=scheme == "https") as server, FaultServer(
        negotiates_slowly if dripped == "negotiation" else socks_proxy(server.port, [])
    ) as proxy, client_of(proxy.port, timeout=HASTY) as client:
        started = time.monotonic()
        with pytest.raises(RequestTimeout) as caught:
            client.run("hello")
        assert time.monotonic() - started < 10
        assert caught.value.delivered is (False if dripped == "negotiation" else None)


@pytest.mark.parametrize("client_of", ["own"], indirect=True)
def test_a_connection_that_comes_too_late_is_closed(client_of: MakeClient) -> None:
    """A socket that is only forgotten is a ResourceWarning, which the suite takes for an error."""

    def replies_late(wire: Wire) -> None:
        wire.pause(0.7 * HASTY)  # PySocks allows each wait the whole
        socks_request(wire)
        wire.pause(0.7 * HASTY)
        wire.send(socks_reply(0))
        wire.hang()

    with FaultServer(replies_late) as proxy, client_of(proxy.port, timeout=HASTY) as client:
        with pytest.raises(RequestTimeout):
            client.run("hello")
        while not proxy.left_after:
            time.sleep(0.05)


def test_the_deadline_holds_against_a_dripped_body(scheme: str, client_of: MakeClient) -> None:
    slow = answer_and_drip(head(200, {"Content-Length": 100}), 100 * b" ", 0.2)
    with FaultServer(slow, tls=scheme == "https") as server, FaultServer(
        socks_proxy(server.port, [])
    ) as proxy, client_of(proxy.port, timeout=HASTY) as client:
        started = time.monotonic()
        with pytest.raises(RequestTimeout):
            client.run("hello")
        assert time.monotonic() - started < 10


def test_cancel_wakes_the_reader(scheme: str, client_of: MakeClient) -> None:
    with FaultServer(answer_and_hang(STREAM + START), tls=scheme == "https") as server, FaultServer(
        socks_proxy(server.port, [])
    ) as proxy, client_of(proxy.port, timeout=PATIENT) as client:
        stream = client.run_stream("hello")
        assert next(stream).type == "start"
        threading.Timer(0.2, stream.cancel).start()
        started = time.monotonic()
        assert list(stream) == []  # and not a timeout
        assert time.monotonic() - started < PATIENT / 2
