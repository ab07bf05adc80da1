"""The sandbox's HTTP on raw sockets: connections kept and ended, bounds, and clients that are slow, silent or many."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
from typing import Any, List

import pytest

from hestiaos_lite.sandbox import Sandbox

from ..cli_call import program
from ..sandbox_call import call, connect, name_of, read_all

HELLO = b'{"input": "hello"}'
HOST = b"Host: localhost\r\n"
GET = b"GET /api/v1/health HTTP/1.1\r\n" + HOST + b"\r\n"
POST = (
    b"POST /api/v1/run HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 18\r\n\r\n"
) + HELLO
STREAM = POST.replace(b"/run ", b"/run/stream ")
BIG = POST.replace(HELLO, b'{"input": "' + b"x" * 999_987 + b'"}').replace(b"Length: 18", b"Length: 1000000")


def exchange(box: Any, data: bytes, step: int = 1 << 20) -> bytes:
    """Send bytes, so many at a time, and then nothing more; everything that comes back."""
    with connect(box) as client:
        with contextlib.suppress(OSError):  # the sandbox had read enough to refuse, or has closed
            for start in range(0, len(data), step):
                client.sendall(data[start : start + step])
            client.shutdown(socket.SHUT_WR)
        return read_all(client)


def statuses(received: bytes) -> List[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n", received)]


def get(*fields: bytes) -> bytes:
    return GET.replace(HOST, b"".join(field + b"\r\n" for field in (b"Host: localhost",) + fields))


# -- connections


@pytest.mark.parametrize("step", [1, 7, 64])
def test_a_request_may_come_in_pieces_and_several_on_one_connection(lasting: Any, step: int) -> None:
    received = exchange(lasting, POST + GET + STREAM + POST, step)
    assert (statuses(received), received.count(b"\r\n0\r\n\r\n")) == ([200] * 4, 1)


HTTP_1_0 = b"GET /api/v1/health HTTP/1.0\r\n"


@pytest.mark.parametrize(
    "data",
    [get(b"Connection: close"), HTTP_1_0 + b"\r\n", HTTP_1_0 + b"Connection: keep-alive\r\n\r\n"],
    ids=["close", "HTTP/1.0", "HTTP/1.0 that would keep it"],
)
def test_a_connection_is_closed_when_asked_and_after_http_1_0(lasting: Any, data: bytes) -> None:
    with connect(lasting, data) as client:
        received = read_all(client)
        assert (statuses(received), received.count(b"\r\nConnection: close\r\n")) == ([200], 1)


def test_a_stream_to_http_1_0_has_no_chunks(lasting: Any) -> None:
    head, _, body = exchange(lasting, STREAM.replace(b"HTTP/1.1", b"HTTP/1.0")).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    kinds = [json.loads(block[6:])["type"] for block in body.decode("utf-8").split("\n\n")[:-1]]
    assert kinds == ["start", "token", "token", "final", "done"]


def test_a_head_that_says_more(lasting: Any) -> None:
    received = exchange(lasting, GET.replace(b"GET", b"HEAD"))
    assert statuses(received) == [405]
    assert (received[-4:], received.count(b"\r\nAllow: GET\r\n")) == (b"\r\n\r\n", 1)
    # a request id that would break the head is not sent back
    received = exchange(lasting, get(b"X-Request-Id: a\r\n b"))
    assert (statuses(received), b"X-Request-Id" in received) == ([200], False)
    assert statuses(exchange(lasting, get(b"Host: attacker.example"))) == [421]  # every Host counts
    with connect(
        lasting, POST.replace(HELLO, b"").replace(b"Host", b"Expect: 100-Continue\r\nHost")
    ) as client:
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(HELLO)
        client.shutdown(socket.SHUT_WR)
        assert statuses(read_all(client)) == [200]


def test_each_token_is_sent_as_it_is_made() -> None:
    with Sandbox(token_delay_seconds=30) as slow, connect(slow, STREAM) as client:
        seen = b""
        while b'"start"' not in seen:  # the rest would be half a minute away
            seen += client.recv(4096)
        assert b"Transfer-Encoding: chunked" in seen
        assert b'"token"' not in seen


# -- bounds

# fmt: off
NO_REQUEST = [
    # what is sent                                             status
    (b"\x16\x03\x01\x02\x00\x01\r\n",                          400),  # TLS
    (b"GET /api/v1/health\r\n\r\n",                            400),  # no version
    (b"POST /api/v1/run\r\n\r\n",                              400),
    (b"GET / HTTP/x\r\n" + HOST + b"\r\n",                     400),
    (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",                400),
    (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",                   505),
    (b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",                  501),
    (b"GET /" + b"a" * 65_536 + b" HTTP/1.1\r\n\r\n",          414),
    (get(*[b"A: b"] * 101),                                    431),
    (get(b"A: " + b"b" * 65_536),                              431),
    (get(b"Content-Length : 5"),                               400),  # what comes behind would not be seen
    (get(b"no colon"),                                         400),
    (GET.replace(HOST, b"Host : attacker.example\r\n"),        400),
    (GET.replace(HOST, b" Host: localhost\r\n"),               400),
    (get(b"Content-Length: -1"),                               400),
    (get(b"Content-Length: +1"),                               400),
    (get(b"Content-Length: 0x1"),                              400),
    (get(b"Content-Length: \xb2"),                             400),
    (get(b"Content-Length:"),                                  400),
    (get(b"Content-Length: 5", b"Content-Length: 6"),          400),
    (get(b"Content-Length: 1048577"),                          413),
    (get(b"Content-Length: " + b"9" * 18),                     413),
    (get(b"Content-Length: " + b"9" * 19),                     400),
    (get(b"Transfer-Encoding: chunked") + b"0\r\n\r\n",        411),
    (get(b"Transfer-Encoding: chunked", b"Content-Length: 5"), 411),
]
# fmt: on


@pytest.mark.parametrize(("data", "status"), NO_REQUEST, ids=name_of)
def test_what_is_no_request_is_refused_in_json_and_the_connection_closed(
    lasting: Any, data: bytes, status: int
) -> None:
    before = lasting.requests_total
    received = exchange(lasting, data + GET)  # nobody knows where the good request behind it begins
    head, _, body = received.partition(b"\r\n\r\n")
    assert (statuses(received), b"\r\nConnection: close" in head) == ([status], True)
    assert list(json.loads(body.decode("utf-8"))) == ["detail"]
    assert lasting.requests_total == before
    assert call(lasting, "GET", "/api/v1/health").status == 200


@pytest.mark.parametrize(("size", "status"), [(1024 * 1024, 200), (1024 * 1024 + 1, 413)])
def test_the_largest_body(lasting: Any, size: int, status: int) -> None:
    body = {"credential_ref": "big", "secret": ""}
    body["secret"] = "x" * (size - len(json.dumps(body)))
    assert call(lasting, "POST", "/api/secrets", body).status == status


@pytest.mark.parametrize("cut", range(1, len(POST), 9))
def test_half_a_request_does_nothing(lasting: Any, cut: int) -> None:
    before = lasting.requests_total
    assert b" 200 " not in exchange(lasting, POST[:cut])
    assert lasting.requests_total == before


# -- slow and many


def test_a_client_that_is_silent_or_does_not_read_is_given_up() -> None:
    box = Sandbox(policy=[])  # no rules: judging a megabyte takes as long as everything else
    box.silence_seconds = 0.1
    with box:
        for start in (b"", b"GET / HTTP/1.1\r\n", POST[:-10]):
            with connect(box, start) as client:
                assert read_all(client) == b""
        with connect(box) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100):  # 100 MB of answers that nobody reads: more than any socket holds
                client.sendall(BIG)
        assert 0 < box.requests_total < 100
        assert call(box, "GET", "/api/v1/health").status == 200


def test_a_client_that_leaves_a_stream_harms_nobody(caplog: Any) -> None:
    with Sandbox(token_delay_seconds=0.01) as box:
        for _ in range(5):
            with connect(box, STREAM) as client:
                assert b"200 OK" in client.recv(100)
        assert call(box, "GET", "/api/v1/health").status == 200
    assert caplog.records == []


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
    for client in clients + [further]:
        client.connect((box.host, box.port))
    for client in clients:
        client.close()
    further.sendall(b"GET /api/v1/health HTTP/1.0\\r\\n\\r\\n")
    print(further.recv(100)[:15])
    further.close()
"""
    assert program(script) == ["b'HTTP/1.1 200 OK'"]
