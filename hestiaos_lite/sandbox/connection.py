"""One client's connection: requests out of its bytes, replies into them, every wait bounded."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Dict, Optional

from . import http1
from .messages import Reply, Request, encode_json

RECEIVE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Timeouts:
    """How long a connection waits, in seconds.

    Attributes:
        idle: for the next request of a kept connection.
        head: from a request's first byte to the end of its head.
        body: for a whole body.
        send: for the client to take what is sent.
        linger: for the client to read a refusal before the connection goes away.
    """

    idle: float = 120.0
    head: float = 10.0
    body: float = 30.0
    send: float = 30.0
    linger: float = 1.0


class Connection:
    """Reads requests from and writes replies to one socket, which it owns."""

    def __init__(self, sock: socket.socket, timeouts: Timeouts) -> None:
        self._socket = sock
        self._timeouts = timeouts
        self._buffer = bytearray()
        if sock.family != getattr(socket, "AF_UNIX", None):
            # a token must not wait for the next one
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_request(self) -> Optional[Request]:
        """The next request; None when the client has gone or stayed silent.

        Raises ProtocolError for bytes that are no request, and OSError when the connection breaks.
        """
        head = self._read_head()
        if head is None:
            return None
        body = b""
        if head.chunked or head.content_length:
            if head.expects_continue and not self._buffer:
                self._send(http1.CONTINUE)
            whole = self._read_chunks() if head.chunked else self._read_exactly(head.content_length)
            if whole is None:
                return None
            body = whole
        return Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            body=body,
            keep_alive=head.keep_alive,
            http_1_0=head.http_1_0,
        )

    def send_reply(self, request: Request, reply: Reply) -> bool:
        """Send a whole reply, a stream event by event; True when the connection may serve another request.

        Raises OSError when the client has gone.
        """
        headers = dict(reply.headers)
        if "x-request-id" in request.headers:
            headers["X-Request-Id"] = request.headers["x-request-id"]
        # A stream to an HTTP/1.0 client has no other end than the connection's.
        keep_alive = request.keep_alive and not (reply.events is not None and request.http_1_0)
        if not keep_alive:
            headers["Connection"] = "close"
        elif request.http_1_0:
            headers["Connection"] = "keep-alive"
        if reply.events is not None:
            self._send_events(request, reply, headers)
            return keep_alive
        body = b"" if reply.status in http1.BODILESS else reply.body_bytes()
        if reply.status not in http1.BODILESS:
            headers["Content-Type"] = reply.content_type
            headers["Content-Length"] = str(len(body))
        head = http1.encode_head(reply.status, headers)
        self._send(head if request.method == "HEAD" else head + body)  # one send: no half answers in flight
        return keep_alive

    def refuse(self, error: http1.ProtocolError) -> None:
        """Answer bytes that are no request, and stop; a client that is still sending gets time to read."""
        body = encode_json({"detail": error.message})
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        self._send(http1.encode_head(error.status, headers) + body)
        self._socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + self._timeouts.linger
        # Closing with unread bytes would reset the connection and lose the answer (RFC 9112, section 9.6).
        while self._receive(deadline):
            self._buffer.clear()

    def abort(self) -> None:
        """End it from another thread: blocked reads and writes return, and the owner then closes."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # already ended, by us or by the client

    def close(self) -> None:
        """End it and let go of the socket; safe to call twice."""
        self.abort()
        self._socket.close()

    def forget(self) -> None:
        """Let go of this process's copy of the socket without ending the connection (in a forked child)."""
        self._socket.close()

    def _send_events(self, request: Request, reply: Reply, headers: Dict[str, str]) -> None:
        headers["Content-Type"] = "text/event-stream; charset=utf-8"
        headers["Cache-Control"] = "no-cache"
        chunked = not request.http_1_0
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        self._send(http1.encode_head(reply.status, headers))
        for event in reply.events or ():
            data = b"data: " + encode_json(event) + b"\n\n"
            self._send(http1.encode_chunk(data) if chunked else data)
        if chunked:
            self._send(http1.LAST_CHUNK)

    def _read_head(self) -> Optional[http1.Head]:
        if not self._buffer and not self._receive(time.monotonic() + self._timeouts.idle):
            return None
        deadline = time.monotonic() + self._timeouts.head
        searched = 0
        while True:
            end = http1.head_end(self._buffer, searched)
            if end >= 0:
                head = http1.parse_head(bytes(self._buffer[:end]))
                del self._buffer[:end]
                return head
            searched = len(self._buffer)
            if not self._receive_in_time(deadline):
                return None

    def _read_exactly(self, length: int) -> Optional[bytes]:
        deadline = time.monotonic() + self._timeouts.body
        while len(self._buffer) < length:
            if not self._receive_in_time(deadline):
                return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _read_chunks(self) -> Optional[bytes]:
        deadline = time.monotonic() + self._timeouts.body
        body = http1.ChunkedBody()
        while not body.feed(self._buffer):
            if not self._receive_in_time(deadline):
                return None
        return bytes(body.data)

    def _receive_in_time(self, deadline: float) -> bool:
        """Like ``_receive``, inside a request: its deadline passing is the client's fault, a 408."""
        if self._receive(deadline):
            return True
        if time.monotonic() >= deadline:
            raise http1.ProtocolError(408, "the request did not arrive in time")
        return False

    def _receive(self, deadline: float) -> bool:
        """Add what has arrived to the buffer; False at the end of the connection or at the deadline."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except socket.timeout:
            return False
        self._buffer += data
        return bool(data)

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._timeouts.send)
        self._socket.sendall(data)
