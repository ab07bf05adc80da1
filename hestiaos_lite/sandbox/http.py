"""HTTP on the standard library's threading server, for loopback, and whom a sandbox without a key answers."""

from __future__ import annotations

import io
import ipaddress
import logging
import os
import socket
import sys
import threading
import time
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Callable, Dict, Optional
from urllib.parse import urlsplit

from .messages import Drop, Reply, Request, encode, refusal

MAX_BODY_BYTES = 1024 * 1024
STOP_SECONDS = 5.0
# What the library makes of a line that is no header: it takes those after it, Host and length too, for a body.
MALFORMED = (MissingHeaderBodySeparatorDefect, FirstHeaderLineIsContinuationDefect)

_logger = logging.getLogger("hestiaos_lite.sandbox")


class Server(ThreadingMixIn, TCPServer):
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

    def __init__(
        self, answer: Callable[[Request], Reply], host: str, port: int, silence_seconds: float
    ) -> None:
        self.answer = answer
        self.silence_seconds = silence_seconds
        self._process_id = os.getpid()
        # By connection; only the acceptor changes it.
        self._thread_of: Dict[socket.socket, threading.Thread] = {}
        found: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        super().__init__(address, Handler)
        self.port: int = self.server_address[1]
        self._acceptor = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Stop listening, close every connection, and wait for the threads."""
        if os.getpid() != self._process_id:
            return  # a forked child has none of our threads, and the connections are its parent's
        _end(self.socket)  # wakes the acceptor; where the system does not, it looks ten times a second
        self.shutdown()
        self._acceptor.join()
        self.server_close()
        for connection in self._thread_of:
            _end(connection)
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._thread_of.values():
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    # -- what socketserver calls

    def process_request(self, request: Any, client_address: Any) -> None:
        answer = self.process_request_thread
        thread = threading.Thread(target=answer, args=(request, client_address), daemon=True)
        thread.start()
        self._thread_of = {known: each for known, each in self._thread_of.items() if each.is_alive()}
        self._thread_of[request] = thread

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
    default_request_version = "HTTP/1.0"  # what names no version is refused with a status line all the same
    disable_nagle_algorithm = True  # a token must not wait for the next one

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.silence_seconds)
        self.rfile = Reader(self.rfile.detach())

    def _serve(self) -> None:
        body = self._body()
        if body is None:
            return
        if self.request_version == "HTTP/1.0":
            self.close_connection = True
        # Not self.path, in which newer libraries fold leading slashes.
        path, _, query = self.requestline.split()[1].partition("?")
        try:
            reply = self._answer(Request(self.command, path, query, self.headers, body))
            self._send(reply, self.headers.get("X-Request-Id", ""))
        except Drop:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _body(self) -> Optional[bytes]:
        """The request's body; None when it was refused or its sender has gone."""
        if len(self.requestline.split()) != 3:  # HTTP/0.9: some Pythons read a head all the same, some do not
            self.send_error(400, "the request names no HTTP version")
            return None
        lengths = self.headers.get_all("Content-Length", ["0"])
        if self.rfile.last_line not in (b"\r\n", b"\n"):
            self.close_connection = True
        elif any(isinstance(defect, MALFORMED) for defect in self.headers.defects):
            self.send_error(400, "malformed header")
        elif "Transfer-Encoding" in self.headers:
            self.send_error(411, "send a Content-Length instead of a transfer coding")
        elif len(lengths) > 1 or not lengths[0].isdecimal() or len(lengths[0]) > 18:
            self.send_error(400, "malformed Content-Length")
        elif int(lengths[0]) > MAX_BODY_BYTES:
            self.send_error(413, "the body is larger than {} bytes".format(MAX_BODY_BYTES))
        else:
            body = self.rfile.read(int(lengths[0]))
            if len(body) == int(lengths[0]):
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
        headers, body = dict(reply.headers), b""
        chunked = reply.events is not None and self.request_version != "HTTP/1.0"
        if request_id and request_id.isprintable():
            headers["X-Request-Id"] = request_id
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif reply.events is None and reply.status not in (204, 304):
            body = reply.body
            headers["Content-Length"] = str(len(body))
        if self.close_connection:
            headers["Connection"] = "close"
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        for event in reply.events or ():
            data = b"data: " + encode(event) + b"\n\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def send_error(self, code: int, message: Optional[str] = None, explain: Optional[str] = None) -> None:
        """Refuse what is no request; what follows it cannot be told apart, so the connection ends."""
        self.close_connection = True
        self._send(Reply(code, {"detail": message or self.responses[code][0]}))
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


# -- who may speak to a sandbox without a key: programs of this machine, but no page that its browser shows
#
# A page of another site can reach a loopback port. By a name of its own that it lets point to 127.0.0.1 (DNS
# rebinding) it could even read the answers; then the Host header has that name. What a page sends across sites
# without being asked has an Origin or Sec-Fetch-Site header that says so.


def is_loopback(host: str) -> bool:
    """Whether every address this host has is a loopback address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        return False
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    return bool(addresses) and all(ipaddress.ip_address(address).is_loopback for address in addresses)


def refuse_foreign(request: Request, bound_host: str) -> None:
    """Raise the Refusal of a request that a page of another site may have made.

    Args:
        bound_host: a further name, beside the loopback ones, that Host and Origin may have.
    """
    hosts = request.headers.get_all("Host", [])
    if not all(_is_own("//" + host, bound_host) for host in hosts):
        message = "this sandbox has no API key, so it answers only to a loopback host: {}".format(bound_host)
        raise refusal(421, "FOREIGN_HOST", message)
    origins = request.headers.get_all("Origin", [])
    across_sites = "cross-site" in request.headers.get_all("Sec-Fetch-Site", [])
    if across_sites or not all(_is_own(origin, bound_host) for origin in origins):
        message = "this sandbox has no API key, so it answers no page of another site"
        raise refusal(403, "FOREIGN_ORIGIN", message)


def _is_own(url: str, bound_host: str) -> bool:
    """Whether a URL's host is a loopback one by its spelling; it is never looked up, since its owner decides that."""
    try:
        host = urlsplit(url.strip()).hostname or ""
        by_name = host in ("localhost", bound_host.lower()) or host.endswith(".localhost")
        return by_name or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
