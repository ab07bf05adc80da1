"""A server that misbehaves on purpose: raw sockets on a loopback port, one script for each connection.

    with FaultServer(answer(ok({"status": "ok"})), drop) as server:
        Client(server.url).health()

The first connection gets the first script, and so on; the last script serves every further one. A script is a function of a
`Wire`. What was received is in ``server.requests``; a script's own fault is raised when the server is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import pytest
import requests

from hestiaos_lite import Client, HestiaError, StreamEvent

from .sandbox_call import steady_port

TLS_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "tls")
# It signed the server's certificate, which is for 127.0.0.1 alone.
TLS_AUTHORITY = os.path.join(TLS_FOLDER, "authority.pem")
TLS_EXPIRED = os.path.join(TLS_FOLDER, "expired.pem")  # signed by itself, for 127.0.0.1, until February 2020
_SERVER_CERTIFICATE = os.path.join(TLS_FOLDER, "server.pem")


class Received(NamedTuple):
    """One request as it came."""

    method: str
    target: str
    headers: Dict[str, str]  # names in lower case
    body: bytes


class Closed(Exception):
    """The client closed its connection, or the server is being closed."""


class Wire:
    """One connection, as a script sees it."""

    def __init__(self, server: FaultServer, sock: socket.socket) -> None:
        self._server = server
        self.sock = sock
        self._file = sock.makefile("rb")

    def request(self) -> Received:
        """Read one request and put it on record."""
        method, target, _ = self._line().split(" ", 2)
        headers: Dict[str, str] = {}
        for line in iter(self._line, ""):
            name, _, value = line.partition(":")
            assert name.lower() not in headers, "header sent twice: " + name
            headers[name.lower()] = value.strip()
        received = Received(method, target, headers, self.read(int(headers.get("content-length", "0"))))
        self._server._record(received)
        return received

    def read(self, size: int) -> bytes:
        """Read so many bytes, of something that is no HTTP."""
        data = self._file.read(size)
        if len(data) < size:
            raise Closed
        return data

    def _line(self) -> str:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise Closed
        return line[:-2].decode("latin-1")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes, seconds: float) -> None:
        """Send byte by byte, with a pause after each."""
        for position in range(len(data)):
            self.send(data[position : position + 1])
            self.pause(seconds)

    def pause(self, seconds: float) -> None:
        self._server._note_idle()
        if self._server._stopped.wait(seconds):
            raise Closed

    def hang(self) -> None:
        """Do nothing until the client has gone; note how long that took."""
        started = self._server._note_idle()
        while not self._server._stopped.is_set():
            if select.select([self.sock], [], [], 0.02)[0]:
                try:
                    gone = not self.sock.recv(65536)
                except OSError:
                    gone = True
                if gone:
                    self._server.left_after.append(time.monotonic() - started)
                    return

    def refuse_others(self) -> None:
        """Let the server accept no further connection."""
        self._server.refuse()

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()


Script = Callable[[Wire], None]


class FaultServer:
    """The server; a context manager.

    Attributes:
        url: its base URL.
        connections: how many were accepted.
        requests: what came, whole requests only, in order.
        idle_since: when a script first paused, or hung.
        left_after: for each script that hung, the seconds until the client had gone.
    """

    def __init__(
        self,
        *scripts: Script,
        tls: bool = False,
        certificate: str = _SERVER_CERTIFICATE,
        unix_path: Optional[str] = None,
    ) -> None:
        self._scripts = scripts
        self._certificate = certificate
        self._tls = tls
        self._stopped = threading.Event()
        self._waker, self._wakened = socket.socketpair()
        self._lock = threading.Lock()
        self._sockets: List[socket.socket] = []
        self._threads: List[threading.Thread] = []
        self._faults: List[BaseException] = []
        self.connections = 0
        self.requests: List[Received] = []
        self.left_after: List[float] = []
        self.idle_since: Optional[float] = None
        self._listener = socket.socket(socket.AF_UNIX if unix_path else socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(unix_path or ("127.0.0.1", 0))
        self._listener.listen(128)
        self.port = 0 if unix_path else self._listener.getsockname()[1]
        self.url = "{}://127.0.0.1:{}".format("https" if tls else "http", self.port)
        self._accepting = threading.Thread(target=self._accept, name="faultserver", daemon=True)
        self._accepting.start()

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def hits(self) -> int:
        """How many requests came."""
        with self._lock:
            return len(self.requests)

    def close(self) -> None:
        self._stopped.set()
        self.refuse()
        with self._lock:
            sockets, threads = list(self._sockets), list(self._threads)
        for sock in sockets:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass  # closed already
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "a script does not end"
        if self._faults:
            raise self._faults[0]

    def refuse(self) -> None:
        """Accept no further connection."""
        self._waker.close()
        self._accepting.join()

    def _record(self, received: Received) -> None:
        with self._lock:
            self.requests.append(received)

    def _note_idle(self) -> float:
        now = time.monotonic()
        if self.idle_since is None:
            self.idle_since = now
        return now

    def _accept(self) -> None:
        with self._listener, self._wakened:
            while self._wakened not in select.select([self._listener, self._wakened], [], [])[0]:
                sock, _ = self._listener.accept()
                if self.port:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    script = self._scripts[min(self.connections, len(self._scripts) - 1)]
                    self.connections += 1
                    self._sockets.append(sock)
                    thread = threading.Thread(
                        target=self._serve, args=(sock, script), name="faultserver", daemon=True
                    )
                    self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket, script: Script) -> None:
        try:
            if self._tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self._certificate)
                sock = context.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._sockets.append(sock)
            with contextlib.closing(Wire(self, sock)) as wire:
                script(wire)
        except (Closed, OSError):
            pass  # the client went first, as it may
        except BaseException as fault:  # noqa: BLE001  # whatever a script did wrong is raised by close()
            self._faults.append(fault)
        finally:
            sock.close()


@contextlib.contextmanager
def served(
    *scripts: Script, kind: str = "own", tls: bool = False, **options: Any
) -> Iterator[Tuple[Client, FaultServer]]:
    """A client of a server that plays these scripts, on a session of its own or on one that is ``lent``."""
    with FaultServer(*scripts, tls=tls) as server, requests.Session() as lent:
        if kind == "lent":
            options["session"] = lent
        with Client(server.url, **options) as client:
            yield client, server


def error_of(call: Callable[[], Any]) -> HestiaError:
    """The error of ours that this call raises."""
    with pytest.raises(HestiaError) as caught:
        call()
    return caught.value


def streamed(client: Client) -> Tuple[List[StreamEvent], Optional[HestiaError]]:
    """The events of a stream, and the error of ours that ended it."""
    events: List[StreamEvent] = []
    try:
        for event in client.run_stream("hello"):
            events.append(event)
    except HestiaError as error:
        return events, error
    return events, None


# -- what scripts are made of


def head(status: int = 200, headers: Optional[Mapping[str, Any]] = None, reason: str = "Scripted") -> bytes:
    """A response's head, with just these headers."""
    lines = ["HTTP/1.1 {} {}".format(status, reason)]
    lines += ["{}: {}".format(name, value) for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def reply(status: int, body: bytes = b"", headers: Optional[Mapping[str, Any]] = None) -> bytes:
    """A whole response with a Content-Length."""
    fields: Dict[str, Any] = {"Content-Type": "application/json", "Content-Length": len(body)}
    fields.update(headers or {})
    return head(status, {name: value for name, value in fields.items() if value is not None}) + body


def ok(value: Any, headers: Optional[Mapping[str, Any]] = None) -> bytes:
    """A 200 with a JSON body."""
    return reply(200, json.dumps(value).encode("utf-8"), headers)


def chunked(pieces: Iterable[bytes], end: bytes = b"0\r\n\r\n") -> bytes:
    """Chunked framing of a body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


def answer(*replies: bytes) -> Script:
    """Keep the connection alive; answer each request, of this connection or the next, with the next of ``replies``.

    The last of them serves all further requests.
    """
    left = list(replies)

    def script(wire: Wire) -> None:
        while True:
            wire.request()
            wire.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def answer_and(data: bytes, end: Script) -> Script:
    """Read one request, send ``data``, and go on as ``end`` does."""

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(data)
        end(wire)

    return script


def answer_and_close(data: bytes) -> Script:
    """Read one request, send ``data``, close: for one call alone, since the next may still take the connection for open."""
    return answer_and(data, hang_up)


def answer_and_hang(data: bytes) -> Script:
    """Read one request, send ``data``, and leave the connection open."""
    return answer_and(data, Wire.hang)


def answer_and_reset(data: bytes) -> Script:
    """Read one request, send ``data``, and reset the connection once it may have been read."""

    def reset(wire: Wire) -> None:
        if data:
            wire.pause(0.1)
        wire.reset()

    return answer_and(data, reset)


def answer_and_drip(data: bytes, drops: bytes, seconds: float = 0.1) -> Script:
    """Read one request, send ``data`` at once and ``drops`` byte by byte, then close."""
    return answer_and(data, lambda wire: wire.drip(drops, seconds))


def drop(wire: Wire) -> None:
    """Read one request and close without a word."""
    wire.request()


def drop_and_leave(wire: Wire) -> None:
    """Read one request and close without a word, once no further connection is accepted."""
    wire.request()
    wire.refuse_others()


def hang(wire: Wire) -> None:
    """Read one request and never answer."""
    wire.request()
    wire.hang()


def hang_up(wire: Wire) -> None:
    """Close at once, before anything is read."""


def closed_port() -> int:
    """A port of this host on which nothing listens."""
    return steady_port()


def with_a_short_deadline(play: Callable[[float], Any]) -> Any:
    """What a row comes to that waits for its deadline, in seconds, with the shortest that does.

    The row counts if its server was where it waits in the first half, which on a busy machine takes longer.
    ``play`` gives the outcome, the server, and when the call began.
    """
    for seconds in (0.4, 1.5, 6.0):
        outcome, server, started = play(seconds)
        if server.idle_since is not None and server.idle_since - started < seconds / 2:
            break
    return outcome


def side_by_side(request: Any, test: str, play: Callable[[Any, str], Any]) -> Iterator[Dict[Any, Future]]:  # type: ignore[type-arg]
    """Play a table's chosen rows, ``(case, kind)``, side by side: most of them do nothing but wait. For a fixture.

    All have ended before the first test looks: what a later test puts in place of the network must not meet them.
    """
    prefix = "{}::{}[".format(request.node.nodeid, test)
    chosen = [item.callspec.params["row"] for item in request.session.items if item.nodeid.startswith(prefix)]
    pool = ThreadPoolExecutor(8)
    try:
        futures = {(case.id, kind): pool.submit(play, case, kind) for case, kind in chosen}
    finally:
        pool.shutdown()
    yield futures
