"""Proxies, as scripts of a `FaultServer`: whatever host they are asked for, the answer comes from a port of this machine."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any, List

from .faultserver import Script, Wire


def http_proxy(target_port: int, log: List[str]) -> Script:
    """An HTTP proxy, for CONNECT and for whole URLs; it notes what it was asked for, and with which credentials."""

    def script(wire: Wire) -> None:
        request = wire.request()
        log.append(
            "{} {} {}".format(request.method, request.target, request.headers.get("proxy-authorization", "-"))
        )
        with socket.create_connection(("127.0.0.1", target_port)) as onward:
            if request.method == "CONNECT":
                wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = "/" + request.target.split("/", 3)[3]
                lines = ["{} {} HTTP/1.1".format(request.method, path), "Connection: close"]
                lines += [
                    "{}: {}".format(*item) for item in request.headers.items() if item[0] != "connection"
                ]
                onward.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body)
            _join(wire.sock, onward)

    return script


def socks_proxy(target_port: int, log: List[str]) -> Script:
    """A SOCKS5 proxy (RFC 1928) without credentials; it notes the hosts it was asked for."""

    def script(wire: Wire) -> None:
        log.append(socks_request(wire))
        with socket.create_connection(("127.0.0.1", target_port)) as onward:
            wire.send(socks_reply(0))
            _join(wire.sock, onward)

    return script


def socks_request(wire: Wire) -> str:
    """Read what a SOCKS5 client says before it awaits the reply; return ``host:port``."""
    methods = wire.read(2)[1]
    wire.read(methods)
    wire.send(b"\x05\x00")  # no credentials
    assert wire.read(4) == b"\x05\x01\x00\x03"  # CONNECT, to a host by its name
    host = wire.read(wire.read(1)[0]).decode("ascii")
    return "{}:{}".format(host, *struct.unpack(">H", wire.read(2)))


def socks_reply(code: int) -> bytes:
    """A SOCKS5 reply: 0 connected, 5 refused."""
    return bytes([5, code, 0, 1, 127, 0, 0, 1, 0, 0])


def _join(one: Any, other: Any) -> None:
    """Carry bytes both ways until an end closes."""
    ends = {one: other, other: one}
    while True:
        for end in select.select(list(ends), [], [])[0]:
            data = end.recv(65536)
            if not data:
                return
            ends[end].sendall(data)
