"""A call ends by its deadline, and at once where all that it waits for is there: addresses, TLS, bodies, heads."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import socket
import ssl
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List

import pytest
import requests

from hestiaos_lite import (
    Client,
    ConnectionFailed,
    GovernanceBlock,
    HestiaError,
    InvalidResponse,
    RequestTimeout,
)

from ..faultserver import (
    TLS_AUTHORITY,
    FaultServer,
    Wire,
    answer,
    answer_and_hang,
    chunked,
    closed_port,
    head,
    ok,
    served,
)

RUN = json.dumps({"result": "ALLOW", "trace_id": "t-1"}).encode()
BLOCK = json.dumps({"detail": {"message": "no", "trace_id": "t-1"}}).encode()
PATIENT = 30.0  # nothing below waits for it

# -- addresses


@contextmanager
def silent(port: int) -> Iterator[Any]:
    """An address that takes no connection and refuses none: its listener's queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        time.sleep(0.05)  # until the queue is full
        yield listener.getsockname()


def named(monkeypatch: pytest.MonkeyPatch, *places: Any) -> str:
    """Give a host name these addresses, in this order: a look-up is the one thing that a test cannot arrange outside."""
    look_up = socket.getaddrinfo

    def found(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "replicas.example":
            return look_up(host, *args, **kwargs)
        families = {2: socket.AF_INET, 4: socket.AF_INET6}
        return [(families[len(place)], socket.SOCK_STREAM, 6, "", place) for place in places]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return "http://replicas.example:{}".format(places[-1][1])


def test_a_silent_first_address_costs_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(answer(ok({"status": "ok"}))) as server, silent(server.port) as dead:
        refused = ("127.0.0.3", server.port)
        url = named(monkeypatch, dead, dead, refused, ("127.0.0.1", server.port))
        with Client(url, timeout=PATIENT, retries=0) as client:
            assert client.health().ok
        assert server.hits == 1


def test_a_silent_first_address_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(answer(ok({"status": "ok"}))) as proxy, silent(proxy.port) as dead:
        monkeypatch.setenv("http_proxy", named(monkeypatch, dead, ("127.0.0.1", proxy.port)))
        with Client("http://service.example", timeout=PATIENT, retries=0) as client:
            assert client.health().ok
        assert proxy.requests[0].target == "http://service.example/api/v1/health"


@pytest.mark.parametrize("others", [0, 1])
def test_no_address_answers(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    with silent(port) as dead, Client(
        named(monkeypatch, dead, *[("127.0.0.1", port)] * others), timeout=0.6, retries=0
    ) as client:
        with pytest.raises(RequestTimeout) as caught:
            client.run("hello")
    assert (caught.value.delivered, caught.value.effect) == (False, "none")
    assert "gave up while connecting" in str(caught.value)


def test_every_address_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    url = named(monkeypatch, *[("127.0.0.1", closed_port()) for _ in range(3)])
    with Client(url, timeout=PATIENT, retries=0) as client, pytest.raises(ConnectionFailed) as caught:
        client.run("hello")
    assert caught.value.delivered is False
    assert "connection refused" in str(caught.value)


@pytest.mark.skipif(not hasattr(socket, "TCP_SYNCNT"), reason="Linux alone can be told to give up early")
@pytest.mark.parametrize("addresses", [1, 2])
def test_the_kernel_s_own_patience_is_not_the_deadline(
    addresses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ETIMEDOUT is the network saying no, though it has the class of our own wait from Python 3.10 on."""
    set_timeout = socket.socket.settimeout

    def impatient(sock: socket.socket, seconds: Any) -> None:
        if sock.type == socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)  # three seconds, not two minutes
        set_timeout(sock, seconds)

    with silent(closed_port()) as dead:
        url = named(monkeypatch, *[dead] * addresses)
        monkeypatch.setattr(socket.socket, "settimeout", impatient)
        with Client(url, timeout=PATIENT, retries=0) as client, pytest.raises(ConnectionFailed) as caught:
            client.run("hello")
        monkeypatch.undo()
    assert (caught.value.delivered, caught.value.effect) == (False, "none")
    assert "connection timed out" in str(caught.value)


def link_local() -> List[Any]:
    """This machine's link-local addresses with their interfaces."""
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    return [
        (socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0])), int(row[1], 16), row[5])
        for row in rows
        if row[3] == "20"
    ]


@pytest.mark.skipif(not link_local(), reason="no interface has a link-local address")
@pytest.mark.parametrize("by", ["address", "name"])
def test_the_scope_of_an_address_is_kept(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address, index, interface = link_local()[0]
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind((address, 0, 0, index))
        listener.listen(1)
        port = listener.getsockname()[1]

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(ok({"status": "ok"}))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = "http://[{}%25{}]:{}".format(address, interface, port)
        if by == "name":
            url = named(monkeypatch, (address, port, 0, index))
        with Client(url, timeout=PATIENT, retries=0) as client:
            assert client.health().ok
        thread.join()


def test_where_no_thread_can_be_started_a_name_is_looked_up_all_the_same() -> None:
    """127.1 is no address to Python, and one to the system's look-up; no stack of 128 TiB is to be had."""
    before = threading.stack_size(2**47 if sys.maxsize > 2**32 else 2**31 - 2**16)
    try:
        with Client("http://127.1:{}".format(closed_port()), timeout=PATIENT, retries=0) as client:
            with pytest.raises(ConnectionFailed) as caught:
                client.run("hello")
    finally:
        threading.stack_size(before)
    assert caught.value.delivered is False
    assert "connection refused" in str(caught.value)


@pytest.mark.parametrize("kind", ["own", "lent"])
def test_connecting_and_the_answer_share_one_deadline(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a read may take is seen where it is set: on the socket, once it has connected slowly."""
    connect, granted = socket.socket.connect, []
    set_timeout = socket.socket.settimeout

    def slowly(sock: socket.socket, place: Any) -> None:
        connect(sock, place)
        time.sleep(0.5)
        monkeypatch.setattr(socket.socket, "settimeout", watched)

    def watched(sock: socket.socket, seconds: Any) -> None:
        if seconds:
            granted.append(seconds)
        set_timeout(sock, seconds)

    with FaultServer(answer(ok({"status": "ok"}))) as server, requests.Session() as lent:
        monkeypatch.setattr(socket.socket, "connect", slowly)
        session = lent if kind == "lent" else None
        with Client(server.url, timeout=PATIENT, retries=0, session=session) as client:
            assert client.health().ok
        monkeypatch.undo()
    assert 0 < granted[0] <= PATIENT - 0.5  # the first is for the answer's head


# -- TLS, compression, patience


def test_what_follows_a_slow_connect_has_what_it_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The TLS handshake and the request, each one operation to the socket: its timeout was set before it connected."""
    connect, wrap, send = socket.socket.connect, ssl.SSLContext.wrap_socket, ssl.SSLSocket.sendall
    granted: List[Any] = []

    def slowly(sock: socket.socket, place: Any) -> None:
        connect(sock, place)
        time.sleep(0.5)

    def watched(context: Any, sock: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("server_side"):
            granted.append(sock.gettimeout())
        return wrap(context, sock, *args, **kwargs)

    def watched_send(sock: Any, *args: Any) -> None:
        if not sock.server_side:
            granted.append(sock.gettimeout())
        send(sock, *args)

    with FaultServer(answer(ok({"status": "ok"})), tls=True) as server:
        monkeypatch.setattr(socket.socket, "connect", slowly)
        monkeypatch.setattr(ssl.SSLContext, "wrap_socket", watched)
        monkeypatch.setattr(ssl.SSLSocket, "sendall", watched_send)
        with Client(server.url, timeout=PATIENT, retries=0, verify=TLS_AUTHORITY) as client:
            assert client.health().ok
    assert len(granted) == 2
    assert 0 < granted[1] <= granted[0] <= PATIENT - 0.5


@pytest.mark.parametrize("coding", ["gzip", "chunked"])
def test_a_stream_that_is_in_hand_ends_by_its_deadline(coding: str) -> None:
    """Thousands of events in one small compressed piece, or in a buffer of chunks: the limit is looked at for each."""
    event = (
        b'data: {"type": "token", "data": {"text": "'
        + (b"x" * 1000 if coding == "gzip" else b"")
        + b'"}}\n\n'
    )
    done = b'data: {"type": "done"}\n\n'
    if coding == "gzip":
        headers, body = {"Content-Encoding": "gzip"}, gzip.compress(event * 3000 + done)
    else:
        headers, body = {"Transfer-Encoding": "chunked"}, chunked([event] * 100 + [done])
    data = head(200, dict(headers, **{"Content-Type": "text/event-stream"})) + body
    with FaultServer(answer_and_hang(data)) as server, Client(server.url, timeout=PATIENT) as client:
        with client.run_stream("hello", timeout=0.5) as stream, pytest.raises(RequestTimeout):
            for _ in stream:
                time.sleep(0.002 if coding == "gzip" else 0.02)


@pytest.mark.parametrize("kind", ["own", "lent"])
def test_a_timeout_of_years_does_not_end_in_a_moment(kind: str) -> None:
    """Python hands poll() the milliseconds of a timeout as a C int: of this one a fifth of a second would be left."""

    def late(wire: Wire) -> None:
        wire.request()
        wire.pause(0.5)
        wire.send(ok({"status": "ok"}))

    with served(late, kind=kind, timeout=20 * 2**32 / 1000 + 0.2, retries=0) as (client, _):
        assert client.health().ok


def test_a_thousandth_retry_has_its_delay() -> None:
    """2.0 ** 1024 is an OverflowError."""
    from hestiaos_lite.wire.call import RetryPolicy

    policy = RetryPolicy(3000)
    failure = ConnectionFailed("refused", delivered=False)
    delays = [policy.delay_seconds(failure, attempt, repeatable=False) for attempt in (1000, 1025, 2999)]
    assert all(0 <= (delay or 0) <= 8 for delay in delays)


# -- the whole answer is in hand, and the connection stays open


LENGTH = "Content-Length: {}\r\n"
CHUNKS = "Transfer-Encoding: {}\r\n"
FORMS: Dict[str, Callable[[bytes], bytes]] = {
    "chunked, chunked": lambda body: CHUNKS.format("chunked, chunked").encode() + b"\r\n" + chunked([body]),
    "identity, chunked": lambda body: CHUNKS.format("identity, chunked").encode() + b"\r\n" + chunked([body]),
    "chunked in two lines": lambda body: CHUNKS.format("chunked").encode() * 2 + b"\r\n" + chunked([body]),
    "identity and chunked in two lines": lambda body: (
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked([body])
    ),
    "one length twice": lambda body: LENGTH.format("{0}, {0}".format(len(body))).encode() + b"\r\n" + body,
    "one length in two lines": lambda body: LENGTH.format(len(body)).encode() * 2 + b"\r\n" + body,
}
DEFECTS: Dict[str, Callable[[bytes], bytes]] = {
    "no colon": lambda body: b"X-Broken\r\n" + LENGTH.format(len(body)).encode() + b"\r\n" + body,
    "no colon, and chunks": lambda body: (
        b"X-Broken\r\n" + CHUNKS.format("chunked").encode() + b"\r\n" + chunked([body])
    ),
    "a blank before the colon": lambda body: "Content-Length : {}\r\n\r\n".format(len(body)).encode() + body,
    "a blank before the name": lambda body: " Content-Length: {}\r\n\r\n".format(len(body)).encode() + body,
}


def call(kind: str, status: int, rest: bytes) -> Any:
    """Call a service that says this and then keeps the connection open; return the result or the error."""
    data = "HTTP/1.1 {} Said\r\n".format(status).encode() + rest
    with served(answer_and_hang(data), kind=kind, timeout=PATIENT, retries=0) as (client, _):
        started = time.monotonic()
        try:
            result: Any = client.run("hello")
        except HestiaError as error:
            result = error
        assert time.monotonic() - started < PATIENT / 2
        return result


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("form", FORMS)
def test_a_whole_answer_in_hand_is_not_waited_for(form: str, kind: str) -> None:
    assert call(kind, 200, FORMS[form](RUN)).trace_id == "t-1"
    refused = call(kind, 403, FORMS[form](BLOCK))
    assert (type(refused), refused.trace_id) == (GovernanceBlock, "t-1")


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("form", DEFECTS)
def test_a_line_of_the_head_that_is_no_header(form: str, kind: str) -> None:
    refused = call(kind, 200, DEFECTS[form](RUN))
    assert type(refused) is InvalidResponse, refused
    assert (refused.delivered, refused.effect != "none") == (True, True)
    assert "a line of its head is not a header" in str(refused)
    blocked = call(kind, 403, DEFECTS[form](BLOCK))
    assert (type(blocked), blocked.trace_id) == (GovernanceBlock, "t-1")


@pytest.mark.parametrize("coding", ["UTF-8", "none", "identity", ""])
def test_a_coding_that_is_none(coding: str) -> None:
    data = ok(json.loads(RUN), {"Content-Encoding": coding})
    with FaultServer(answer(data)) as server, Client(server.url, timeout=PATIENT) as client:
        assert client.run("hello").trace_id == "t-1"


def test_a_deadline_that_ends_while_it_connects_leaves_no_socket_open() -> None:
    """At whichever step it ends: a forgotten socket is a ResourceWarning, which the suite takes for an error."""
    with FaultServer(answer(ok({"status": "ok"}))) as server:
        for step in range(150):
            with Client(server.url, timeout=0.0001 + step * 0.00001, retries=0) as client:
                with contextlib.suppress(RequestTimeout):
                    client.health()
    gc.collect()
