"""The sandbox's HTTP on raw sockets: connections kept and ended, bounds, and clients that are slow, silent or many."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from typing import Any, List

import pytest

from hestiaos_lite.sandbox import Sandbox

from ..sandbox_call import call

HELLO = b'{"input": "hello"}'
GET = b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = (
    b"POST /api/v1/run HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 18\r\n\r\n" + HELLO
)
STREAM_1_0 = POST.replace(b"/run HTTP/1.1", b"/run/stream HTTP/1.0")


@pytest.fixture(scope="module")
def box() -> Any:
    with Sandbox() as running:
        yield running


def connect(box: Any) -> socket.socket:
    return socket.create_connection((box.host, box.port), 10)


def send(client: socket.socket, data: bytes) -> None:
    try:
        client.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the sandbox had read enough to refuse


def read_all(client: socket.socket) -> bytes:
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


def exchange(box: Any, data: bytes) -> bytes:
    """Send bytes and then nothing more; everything that comes back."""
    with connect(box) as client:
        send(client, data)
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # already closed by the other side
        return read_all(client)


def answered(client: socket.socket) -> bytes:
    """One whole answer with a length, on a connection that is kept."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.search(rb"Content-Length: (\d+)", head)
    assert found
    while len(body) < int(found.group(1)):
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def statuses(received: bytes) -> List[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n", received)]


def with_fields(*fields: bytes) -> bytes:
    return b"".join([b"GET /api/v1/health HTTP/1.1\r\n"] + [field + b"\r\n" for field in fields] + [b"\r\n"])


# -- connections


@pytest.mark.parametrize("step", [1, 7, 64])
def test_a_request_may_come_in_pieces_and_several_on_one_connection(box: Any, step: int) -> None:
    data = POST + GET + POST
    with connect(box) as client:
        for start in range(0, len(data), step):
            client.sendall(data[start : start + step])
        client.shutdown(socket.SHUT_WR)
        assert statuses(read_all(client)) == [200] * 3


@pytest.mark.parametrize(
    "data",
    [
        with_fields(b"Host: localhost", b"Connection: close"),
        b"GET /api/v1/health HTTP/1.0\r\n\r\n",
        b"GET /api/v1/health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
    ids=["close", "HTTP/1.0", "HTTP/1.0 that would keep it"],
)
def test_a_connection_is_closed_when_asked_and_after_http_1_0(box: Any, data: bytes) -> None:
    with connect(box) as client:
        client.sendall(data)
        received = read_all(client)
        assert statuses(received) == [200]
        assert b"\r\nConnection: close\r\n" in received


def test_a_stream_to_http_1_0_has_no_chunks(box: Any) -> None:
    with connect(box) as client:
        client.sendall(STREAM_1_0)
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    blocks = body.decode("utf-8").split("\n\n")
    assert [json.loads(block[6:])["type"] for block in blocks[:-1]] == [
        "start",
        "token",
        "token",
        "final",
        "done",
    ]


def test_a_stream_keeps_the_connection_for_the_next_request(box: Any) -> None:
    with connect(box) as client:
        client.sendall(POST.replace(b"/run ", b"/run/stream ") + GET)
        client.shutdown(socket.SHUT_WR)
        received = read_all(client)
    assert (statuses(received), received.count(b"\r\n0\r\n\r\n")) == ([200, 200], 1)


def test_head_gets_no_body(box: Any) -> None:
    received = exchange(box, GET.replace(b"GET", b"HEAD"))
    assert statuses(received) == [405]
    assert received.endswith(b"\r\n\r\n")
    assert b"\r\nAllow: GET\r\n" in received


def test_expect_100_continue(box: Any) -> None:
    with connect(box) as client:
        client.sendall(POST.replace(HELLO, b"").replace(b"Host", b"Expect: 100-Continue\r\nHost"))
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(HELLO)
        assert statuses(answered(client)) == [200]


def test_a_request_id_that_would_break_the_head_is_not_sent_back(box: Any) -> None:
    received = exchange(box, with_fields(b"Host: localhost", b"X-Request-Id: a\r\n b"))
    assert statuses(received) == [200]
    assert b"X-Request-Id" not in received


# -- bounds


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n", 400),
        (b"GET /api/v1/health\r\n\r\n", 400),
        (with_fields(b"Host: localhost", b"Content-Length : 5"), 400),
        (with_fields(b"Host : attacker.example"), 400),
        (with_fields(b"Host: localhost", b"Content-Length: 5", b"Content-Length: 6"), 400),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"GET /" + b"a" * 65_536 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (with_fields(b"Host: localhost", *[b"A: b"] * 101), 431),
        (with_fields(b"Host: localhost", b"A: " + b"b" * 65_536), 431),
        (with_fields(b"Host: localhost", b"Content-Length: -1"), 400),
        (with_fields(b"Host: localhost", b"Content-Length: 0x1"), 400),
        (with_fields(b"Host: localhost", b"Content-Length: \xb2"), 400),
        (with_fields(b"Host: localhost", b"Content-Length: 1048577"), 413),
        (with_fields(b"Host: localhost", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 411),
    ],
    ids=[
        "TLS",
        "no version",
        "space before a colon",
        "a host that would not be seen",
        "two lengths",
        "version",
        "method",
        "long target",
        "101 fields",
        "long field",
        "negative",
        "hexadecimal",
        "superscript two",
        "large",
        "chunked",
    ],
)
def test_what_is_no_request_is_refused_in_json_and_the_connection_closed(
    box: Any, data: bytes, status: int
) -> None:
    before = box.requests_total
    with connect(box) as client:
        send(client, data + GET)  # nobody knows where the good request behind it begins
        client.shutdown(socket.SHUT_WR)
        received = read_all(client)
    assert statuses(received) == [status]
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in head + b"\r\n"
    assert list(json.loads(body.decode("utf-8"))) == ["detail"]
    assert box.requests_total == before
    assert call(box, "GET", "/api/v1/health").status == 200


@pytest.mark.parametrize(("size", "status"), [(1024 * 1024, 200), (1024 * 1024 + 1, 413)])
def test_the_body_limit_is_told_to_whom_exceeds_it(box: Any, size: int, status: int) -> None:
    assert call(box, "POST", "/api/v1/run", {"input": "x" * (size - len('{"input": ""}'))}).status == status


@pytest.mark.parametrize("cut", range(1, len(POST), 9))
def test_half_a_request_does_nothing(box: Any, cut: int) -> None:
    before = box.requests_total
    assert b" 200 " not in exchange(box, POST[:cut])
    assert box.requests_total == before
    assert call(box, "GET", "/api/v1/health").status == 200


# -- slow and many


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\n", POST[:-10]], ids=["idle", "head", "body"])
def test_a_silent_connection_is_closed(start: bytes) -> None:
    box = Sandbox()
    box.silence_seconds = 0.1
    with box, connect(box) as client:
        client.sendall(start)
        assert read_all(client) == b""
        assert call(box, "GET", "/api/v1/health").status == 200


def test_stop_does_not_wait_for_clients() -> None:
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


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_NOFILE and /proc")
def test_a_sandbox_out_of_file_descriptors_goes_on_once_there_are_some() -> None:
    script = """
import os, resource, socket
from hestiaos_lite.sandbox import Sandbox
with Sandbox() as box:
    used = len(os.listdir("/proc/self/fd"))
    clients = [socket.socket() for _ in range(20)]
    further = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 24, used + 24))
    for client in clients:
        client.connect((box.host, box.port))
    further.connect((box.host, box.port))
    for client in clients:
        client.close()
    further.sendall(b"GET /api/v1/health HTTP/1.0\\r\\n\\r\\n")
    print(further.recv(100)[:15])
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=True)
    assert done.stdout == b"b'HTTP/1.1 200 OK'\n"


def test_a_client_that_leaves_a_stream_harms_nobody(caplog: Any) -> None:
    with Sandbox(token_delay_seconds=0.01) as box:
        for _ in range(5):
            with connect(box) as client:
                client.sendall(STREAM_1_0.replace(b"HTTP/1.0", b"HTTP/1.1"))
                assert b"200 OK" in client.recv(100)
        assert call(box, "GET", "/api/v1/health").status == 200
    assert caplog.records == []


def test_a_client_that_does_not_read_is_given_up() -> None:
    box = Sandbox()
    box.silence_seconds = 0.2
    body = b'{"input": "' + b"x" * 999_987 + b'"}'
    request = POST.replace(HELLO, body).replace(b"Length: 18", b"Length: %d" % len(body))
    with box, connect(box) as client:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100):  # 100 MB of answers that nobody reads: more than any socket holds
                client.sendall(request)
        assert 0 < box.requests_total < 100
        assert call(box, "GET", "/api/v1/health").status == 200
