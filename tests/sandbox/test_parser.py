"""The sandbox's HTTP, byte by byte on raw sockets: it answers or closes, and the next good request works."""

from __future__ import annotations

import os
import random
import re
import socket
import threading
import time

import pytest

from hestiaos_lite.sandbox import Sandbox
from hestiaos_lite.sandbox.connection import Timeouts

from ..sandbox_call import call

HELLO = b'{"input": "hello"}'
GET = b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /api/v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n" + HELLO
CHUNKED = (
    b"POST /api/v1/run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;ext=1\r\n{"inp\r\nD\r\nut": "hello"}\r\n0\r\nTrailer: x\r\n\r\n'
)


@pytest.fixture(scope="module")
def box():
    with Sandbox() as running:
        yield running


def connect(box):
    client = socket.create_connection((box.host, box.port), 10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def send(client, data):
    try:
        client.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the sandbox had read enough to refuse


def read_all(client):
    """Everything until the sandbox closes."""
    received = b""
    try:
        while True:
            data = client.recv(65536)
            if not data:
                return received
            received += data
    except ConnectionResetError:
        return received


def exchange(box, data):
    """Send bytes and then nothing more; everything that comes back."""
    with connect(box) as client:
        send(client, data)
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # already closed by the other side
        return read_all(client)


def statuses(received):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n", received)]


def with_fields(*fields):
    return b"".join([b"GET /api/v1/health HTTP/1.1\r\n"] + [field + b"\r\n" for field in fields] + [b"\r\n"])


# -- good requests, however they are cut


@pytest.mark.parametrize(
    "data", [GET, POST, CHUNKED, POST + GET + CHUNKED], ids=["get", "post", "chunked", "pipelined"]
)
@pytest.mark.parametrize("step", [1, 7, 64])
def test_a_request_may_come_in_pieces(box, data, step):
    with connect(box) as client:
        for start in range(0, len(data), step):
            client.sendall(data[start : start + step])
        client.shutdown(socket.SHUT_WR)
        assert statuses(read_all(client)) == [200] * data.count(b"HTTP/1.1")


def test_a_chunked_body_is_put_together(box):
    exchange(box, CHUNKED)
    assert box.requests[-1].body == HELLO


def test_a_connection_is_kept(box):
    with connect(box) as client:
        for _ in range(3):
            client.sendall(POST)
            received = client.recv(65536)
            assert statuses(received) == [200]
            assert b"Connection:" not in received


@pytest.mark.parametrize(
    ("data", "connection"),
    [
        (with_fields(b"Host: x", b"Connection: close"), b"close"),
        (with_fields(b"Host: x", b"Connection: x, Close"), b"close"),
        (b"GET /api/v1/health HTTP/1.0\r\n\r\n", b"close"),
    ],
    ids=["close", "close in a list", "HTTP/1.0"],
)
def test_a_connection_is_closed_when_asked(box, data, connection):
    with connect(box) as client:
        client.sendall(data)
        received = read_all(client)
        assert statuses(received) == [200]
        assert b"\r\nConnection: " + connection + b"\r\n" in received


def test_http_1_0_may_keep_its_connection_and_gets_no_chunks(box):
    with connect(box) as client:
        for _ in range(2):
            client.sendall(b"GET /api/v1/health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"\r\nConnection: keep-alive\r\n" in client.recv(65536)
        client.sendall(
            b"POST /api/v1/run/stream HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 18\r\n\r\n"
            + HELLO
        )
        received = read_all(client)
        assert b"Transfer-Encoding" not in received
        assert received.endswith(b"\n\n")


def test_head_gets_no_body(box):
    received = exchange(box, b"HEAD /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert statuses(received) == [405]
    assert received.endswith(b"\r\n\r\n")
    assert b"\r\nAllow: GET\r\n" in received


def test_expect_100_continue(box):
    with connect(box) as client:
        client.sendall(POST.replace(HELLO, b"").replace(b"Host", b"Expect: 100-Continue\r\nHost"))
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(HELLO)
        assert statuses(client.recv(65536)) == [200]


@pytest.mark.parametrize(
    "target",
    [
        b"http://host/api/v1/health",
        b"HTTP://host:80/api/v1/health?x",
        b"/api/v1/health?a=b",
        b"/api/v1/health?",
    ],
)
def test_targets(box, target):
    assert statuses(exchange(box, GET.replace(b"/api/v1/health", target))) == [200]


def test_every_answer_has_a_date(box):
    assert re.search(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", exchange(box, GET))


# -- bad ones


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"\r\n" + GET, 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET api HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT host:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", 400),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (with_fields(), 400),
        (with_fields(b"Host: x", b"Host: x"), 400),
        (with_fields(b"Host: x", b"A : b"), 400),
        (with_fields(b"Host: x", b" folded"), 400),
        (with_fields(b"Host: x", b": b"), 400),
        (with_fields(b"Host: x", b"no colon"), 400),
        (with_fields(b"Host: x", b"A: b\x00c"), 400),
        (with_fields(b"Host: x", b"Expect: miracles"), 417),
        (with_fields(b"Host: x", *[b"A: b"] * 100), 431),
        (with_fields(b"Host: x", b"A: " + b"b" * 40_000), 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000, 431),
        (with_fields(b"Host: x", b"Content-Length: 0", b"Content-Length: 0"), 400),
        (with_fields(b"Host: x", b"Content-Length: -1"), 400),
        (with_fields(b"Host: x", b"Content-Length: +1"), 400),
        (with_fields(b"Host: x", b"Content-Length: 1, 1"), 400),
        (with_fields(b"Host: x", b"Content-Length: "), 400),
        (with_fields(b"Host: x", b"Content-Length: 0x1"), 400),
        (with_fields(b"Host: x", b"Content-Length: \xb2"), 400),
        (with_fields(b"Host: x", b"Content-Length: 1048577"), 413),
        (with_fields(b"Host: x", b"Content-Length: " + b"9" * 5_000), 413),
        (with_fields(b"Host: x", b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: gzip, chunked"), 501),
        (with_fields(b"Host: x", b"Transfer-Encoding: identity"), 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked") + b"x\r\n", 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked") + b"-1\r\n", 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked") + b"0x1\r\n", 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked") + b"1\nx\r\n0\r\n\r\n", 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked") + b"1\r\nxy\r\n0\r\n\r\n", 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked") + b"1;" + b"x" * 2_000, 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked") + b"fffffffff\r\n", 400),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked") + b"100001\r\n", 413),
        (with_fields(b"Host: x", b"Transfer-Encoding: chunked") + b"0\r\n" + b"A: b\r\n" * 2_000, 431),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_what_is_no_request_is_refused_and_the_connection_closed(box, data, status):
    before = box.requests_total
    with connect(box) as client:
        send(
            client, data + GET
        )  # the good request behind it must not be answered: nobody knows where it begins
        received = read_all(client)
    assert statuses(received) == [status]
    assert b"\r\nConnection: close\r\n" in received
    assert box.requests_total == before
    assert call(box, "GET", "/api/v1/health").status == 200


@pytest.mark.parametrize("size", [1024 * 1024, 1024 * 1024 + 1], ids=["a megabyte", "a byte more"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_the_body_limit(box, size, chunked):
    body = b'{"input": "' + b"x" * (size - 13) + b'"}'
    if chunked:
        framed = (
            b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:1000], body[1000:]))
            + b"0\r\n\r\n"
        )
        data = b"POST /api/v1/run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    else:
        data = b"POST /api/v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + body
    assert statuses(exchange(box, data)) == [200 if size == 1024 * 1024 else 413]


@pytest.mark.parametrize("cut", range(1, len(POST), 5))
def test_half_a_request_does_nothing(box, cut):
    before = box.requests_total
    assert exchange(box, POST[:cut]) == b""
    assert box.requests_total == before
    assert call(box, "GET", "/api/v1/health").status == 200


# -- slow and many


@pytest.mark.parametrize(
    ("timeouts", "start", "drip"),
    [
        (Timeouts(head=0.3), b"GET / HTTP/1.1\r\n", b"A: b\r\n"),
        (Timeouts(body=0.3), POST[:-10], b" "),
        (
            Timeouts(body=0.3),
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
        ),
    ],
    ids=["head", "body", "chunks"],
)
def test_a_dripping_request_is_a_408(timeouts, start, drip):
    with Sandbox() as box:
        box.stop()
        box.timeouts = timeouts
        box.start()
        with connect(box) as client:
            client.sendall(start)
            client.settimeout(0.05)
            received = b""
            deadline = time.monotonic() + 10
            while not received and time.monotonic() < deadline:
                send(client, drip if len(drip) > 1 else b"")
                try:
                    received = client.recv(65536)
                except socket.timeout:
                    continue
            assert statuses(received) == [408]
        assert call(box, "GET", "/api/v1/health").status == 200


def test_an_idle_connection_is_closed_without_a_word():
    box = Sandbox()
    box.timeouts = Timeouts(idle=0.1)
    with box, connect(box) as client:
        assert read_all(client) == b""


def test_200_idle_connections_hold_up_nobody():
    before = set(threading.enumerate())
    box = Sandbox().start()
    idle = [connect(box) for _ in range(200)]
    for client in idle[::2]:
        client.sendall(b"GET / HTTP")
    assert call(box, "POST", "/api/v1/run", {"input": "x"}).status == 200
    box.stop()
    for client in idle:
        assert read_all(client) == b""
        client.close()
    assert set(threading.enumerate()) == before


def test_connections_beyond_the_limit_are_closed(monkeypatch):
    from hestiaos_lite.sandbox import server

    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    with Sandbox() as box, connect(box) as one, connect(box) as two:
        for client in (one, two):
            client.sendall(GET)
            assert statuses(client.recv(65536)) == [200]
        with connect(box) as three:
            assert read_all(three) == b""
        one.sendall(GET)
        assert statuses(one.recv(65536)) == [200]


def test_a_client_that_leaves_a_stream_harms_nobody():
    with Sandbox(token_delay_seconds=0.01) as box:
        for _ in range(5):
            with connect(box) as client:
                body = b'{"input": "' + b"word " * 200 + b'"}'
                client.sendall(
                    b"POST /api/v1/run/stream HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
                assert b"200 OK" in client.recv(100)
        assert call(box, "GET", "/api/v1/health").status == 200


def test_a_client_that_does_not_read_is_given_up():
    box = Sandbox()
    box.timeouts = Timeouts(send=0.2)
    request = b"POST /api/v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    request += b'{"input": "' + b"x" * 999_987 + b'"}'
    with box, connect(box) as client:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100):  # 100 MB of answers that nobody reads: more than any socket holds
                client.sendall(request)
        assert 0 < box.requests_total < 100
        assert call(box, "GET", "/api/v1/health").status == 200


# -- anything at all


@pytest.mark.parametrize("rounds", [300, pytest.param(20_000, marks=pytest.mark.slow)], ids=["short", "long"])
def test_any_bytes_are_answered_or_the_connection_closed(box, rounds):
    seed = int(os.environ.get("SANDBOX_FUZZ_SEED", random.randrange(2**32)))
    print("SANDBOX_FUZZ_SEED={}".format(seed))
    rng = random.Random(seed)
    pieces = [b"\r\n", b"\n", b"\r", b":", b" ", b"\x00", b"\xff", b"0", b"{"]
    pieces += [b"Content-Length: 5\r\n", b"chunked", b"HTTP/1.1"]
    for _ in range(rounds):
        if rng.random() < 0.2:
            data = bytes(rng.getrandbits(8) for _ in range(rng.randrange(1, 400)))
        else:
            data = bytearray(rng.choice([GET, POST, CHUNKED, POST + GET]))
            for _ in range(rng.randrange(1, 6)):
                start = rng.randrange(len(data) + 1)
                stop = min(len(data), start + rng.randrange(0, 6))
                data[start:stop] = rng.choice(pieces)
        received = exchange(box, bytes(data))
        assert not received or received.startswith(b"HTTP/1.1 "), data
        assert 500 not in statuses(received), data
    assert call(box, "POST", "/api/v1/run", {"input": "x"}).status == 200
