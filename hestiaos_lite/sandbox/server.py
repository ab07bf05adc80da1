"""HTTP by the standard library's threading server: a request in, a reply out, and an end that is quick."""

from __future__ import annotations

import io
import logging
import os
import re
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Callable, Dict, List, Optional

from .messages import Drop, Reply, Request, encode_json

MAX_BODY_BYTES = 1024 * 1024
MAX_CONNECTIONS = 512
BODILESS = (204, 304)
STOP_SECONDS = 5.0

_LENGTH = re.compile(r"[0-9]{1,18}")
_logger = logging.getLogger("hestiaos_lite.sandbox")


class Server(ThreadingHTTPServer):
    """Listens from the moment it is made; a thread for each connection.

    Args:
        answer: gives the reply to a request; raises ``Drop`` to close the connection instead.
        host: address or name to listen on.
        port: 0 takes a free one, to be read from ``port``.
        silence_seconds: how long a client may send nothing, or not read what it is sent.
    """

    request_queue_size = 1024
    # A restart on the same port must not wait for old connections to fade; on Windows it would share the port.
    allow_reuse_address = os.name == "posix"
    allow_reuse_port = False

    def __init__(
        self, answer: Callable[[Request], Reply], host: str, port: int, silence_seconds: float
    ) -> None:
        self.answer = answer
        self.silence_seconds = silence_seconds
        self._process_id = os.getpid()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads_of: Dict[socket.socket, threading.Thread] = {}
        self._waiting: Dict[socket.socket, None] = {}  # connections we wait for, the longest first
        found: List[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        super().__init__(address, Handler)
        self.port: int = self.server_address[1]
        self._acceptor = threading.Thread(
            target=self.serve_forever, args=(0.1,), name="sandbox-accept", daemon=True
        )
        self._acceptor.start()

    def stop(self) -> None:
        """Stop listening, close every connection, and wait for the threads."""
        if os.getpid() != self._process_id:
            return  # a forked child has none of our threads, and the connections are its parent's
        self._stopping.set()
        _end(self.socket)  # wakes the acceptor; where the system does not, it looks ten times a second
        self.shutdown()
        self._acceptor.join()
        self.server_close()
        with self._lock:
            threads = dict(self._threads_of)
        for connection in threads:
            _end(connection)
        deadline = time.monotonic() + STOP_SECONDS
        for thread in threads.values():
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    # -- connections

    def wait_for(self, connection: socket.socket) -> None:
        """Note that it is the client's turn on this connection: to send, or to take what it is sent."""
        with self._lock:
            self._waiting[connection] = None

    def waited_for(self, connection: socket.socket) -> None:
        """Note that it is our turn on this connection."""
        with self._lock:
            self._waiting.pop(connection, None)

    def _make_room(self) -> bool:
        """End the connection that has kept us waiting the longest; False where none does."""
        with self._lock:
            longest = next(iter(self._waiting), None)
            if longest is None:
                return False
            del self._waiting[longest]
        _end(longest)
        return True

    # -- what socketserver calls

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks DNS for the host's name

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:  # out of file descriptors: without room or a pause, the acceptor would spin
            if not self._make_room():
                self._stopping.wait(0.05)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="sandbox-connection",
            daemon=True,
        )
        with self._lock:
            full = len(self._threads_of) >= MAX_CONNECTIONS
        if full and not self._make_room():
            _logger.warning("%d connections are being answered: a further one was closed", MAX_CONNECTIONS)
            self.shutdown_request(request)
            return
        with self._lock:
            self._threads_of[request] = thread
            self._waiting[request] = None
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads; socketserver closes the connection
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._waiting.pop(connection, None)
            self._threads_of.pop(connection, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # an OSError: the client has gone
            _logger.exception("a connection failed")


class Reader(io.BufferedReader):
    """Remembers the last line, since the library takes half a head for a whole one when the client goes away."""

    last_line = b""

    def readline(self, size: Optional[int] = -1) -> bytes:
        self.last_line = super().readline(size)
        return self.last_line


class Handler(BaseHTTPRequestHandler):
    """One connection: the library parses, the sandbox answers."""

    server: Server
    rfile: Reader
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # what names no version is answered with a status line all the same
    disable_nagle_algorithm = True  # a token must not wait for the next one
    wbufsize = 64 * 1024  # head and body leave together

    def setup(self) -> None:
        super().setup()
        self.rfile = Reader(self.rfile.detach())
        self.connection.settimeout(self.server.silence_seconds)

    def handle_one_request(self) -> None:
        self.server.wait_for(self.connection)
        super().handle_one_request()

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _serve(self) -> None:
        if self.request_version == "HTTP/1.0":
            self.close_connection = True
        body = self._body()
        if body is None:
            return
        self.server.waited_for(self.connection)
        # Not self.path, in which newer libraries fold leading slashes.
        path, _, query = self.requestline.split()[1].partition("?")
        request = Request(self.command, path, query, self.headers, body)
        try:
            self._send(self._answer(request), self.headers.get("X-Request-Id", ""))
        except Drop:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _body(self) -> Optional[bytes]:
        """The request's body; None when it was refused or its sender has gone."""
        length = self.headers.get("Content-Length", "0")
        if self.rfile.last_line not in (b"\r\n", b"\n"):
            self.close_connection = True
        elif "Transfer-Encoding" in self.headers:
            self.send_error(411, "send a Content-Length instead of a transfer coding")
        elif not _LENGTH.fullmatch(length):
            self.send_error(400, "malformed Content-Length")
        elif int(length) > MAX_BODY_BYTES:
            self.send_error(413, "the body is larger than {} bytes".format(MAX_BODY_BYTES))
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                return body
            self.close_connection = True
        return None

    def _answer(self, request: Request) -> Reply:
        try:
            return self.server.answer(request)
        except Drop:
            raise
        except Exception:  # a fault of ours must cost one request, not the sandbox
            _logger.exception("%s %s failed", request.method, request.path)
            return Reply(500, {"detail": "Internal Server Error"})

    def _send(self, reply: Reply, request_id: str = "") -> None:
        """Send a whole reply; a stream event by event, chunked unless the client speaks HTTP/1.0."""
        if reply.events is None:
            self.server.wait_for(self.connection)
        chunked = reply.events is not None and self.request_version != "HTTP/1.0"
        headers = dict(reply.headers)
        if request_id.isprintable() and request_id:
            headers["X-Request-Id"] = request_id
        body = b""
        if reply.events is not None:
            headers.update({"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"})
            if chunked:
                headers["Transfer-Encoding"] = "chunked"
        elif reply.status not in BODILESS:
            body = reply.body_bytes()
            headers.update({"Content-Type": reply.content_type, "Content-Length": str(len(body))})
        if self.close_connection:
            headers["Connection"] = "close"
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if reply.events is None:
            return
        self.wfile.flush()
        for event in reply.events:
            data = b"data: " + encode_json(event) + b"\n\n"
            self._send_now(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        if chunked:
            self._send_now(b"0\r\n\r\n")

    def _send_now(self, data: bytes) -> None:
        self.server.wait_for(self.connection)
        self.connection.sendall(data)
        self.server.waited_for(self.connection)

    def send_error(self, code: int, message: Optional[str] = None, explain: Optional[str] = None) -> None:
        """Refuse what is no request; what follows it cannot be told apart, so the connection ends."""
        self.close_connection = True
        self._send(Reply(code, {"detail": message or self.responses[code][0]}))
        self.wfile.flush()
        # Closing with unread bytes would reset the connection and lose the answer (RFC 9112, section 9.6).
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(1.0)
        for _ in range(1024):
            if not self.connection.recv(64 * 1024):
                break

    def version_string(self) -> str:
        return "hestiaos-sandbox"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what was received is kept in ``Sandbox.requests``."""


def _end(sock: socket.socket) -> None:
    """End a connection, or listening, from another thread; a thread that waits for it wakes."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # already ended, by us or by the client
