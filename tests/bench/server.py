"""A raw-socket server that sends prepared bytes, so that the server is never what a benchmark measures.

Run as ``python -m tests.bench.server``; it prints its port. The path's first segment says what to send:

- ``/calls``: a small JSON answer to every request, on a kept-alive connection;
- ``/stream-COUNT-EACH``: COUNT events, EACH of them in one HTTP chunk;
- ``/slow-FRAMING``: 40 events, each at its own time, framed as chunked, close or gzip, stamped with the moment of sending;
- ``/silent``: one event, and then nothing until the client goes.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import zlib
from typing import Dict, Iterator, Tuple

# fmt: off
RUN = (b'{"result": "ALLOW", "output": "processed: hi", "mode": "ALLOW", "budget": 1.0, "trace_id": "t-1", '
       b'"latency_ms": 1.5}')
HEALTH = b'{"status": "ok", "version": "1.0.1", "uptime_seconds": 12.5, "api_version": "v1"}'
STATUS = (b'{"status": "ok", "ollama": true, "vllm": true, "dsgk": true, "storage": true, "version": "1.0.1", '
          b'"uptime_seconds": 12.5}')
# fmt: on


def event(kind: str, **data: object) -> bytes:
    """One event as the service sends it."""
    stamp = {"trace_id": "3f1c9a52-0f8e-4b8e-9d8a-1f2e3d4c5b6a", "timestamp": "2026-01-01T00:00:00Z"}
    return b"data: " + json.dumps(dict(type=kind, data=data, **stamp)).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def _stream_bytes(count: int, each: int) -> bytes:
    token = event("token", text="hello ")
    whole, rest = divmod(count, each)
    last = chunk(token * rest) if rest else b""
    return chunk(token * each) * whole + last + chunk(event("done")) + b"0\r\n\r\n"


class Server:
    """Listens on a free loopback port; a thread a connection."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port: int = self._listener.getsockname()[1]
        self._prepared: Dict[Tuple[int, int], bytes] = {}

    def serve(self) -> None:
        """Accept until the process ends."""
        while True:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            try:
                for path in _requests(connection):
                    if not self._answer(connection, path):
                        return
            except OSError:
                pass  # the client has gone

    def _answer(self, connection: socket.socket, path: str) -> bool:
        """Send what the path asks for; False when the connection is to be closed."""
        kind, *numbers = path.strip("/").split("/")[0].split("-")
        if kind == "calls":
            body = HEALTH if path.endswith("health") else STATUS if path.endswith("status") else RUN
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(body) + body)
            return True
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        if kind == "stream":
            key = int(numbers[0]), int(numbers[1])
            if key not in self._prepared:
                self._prepared[key] = _stream_bytes(*key)
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + self._prepared[key])
            return True
        if kind == "slow":
            _send_slowly(connection, head, numbers[0])
            return False
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(event("start")))
        connection.recv(1)  # silent until the client goes
        return False


def _send_slowly(connection: socket.socket, head: bytes, framing: str) -> None:
    extra = {"chunked": b"Transfer-Encoding: chunked\r\n", "gzip": b"Content-Encoding: gzip\r\n"}
    connection.sendall(head + extra.get(framing, b"") + b"Connection: close\r\n\r\n")
    squeeze = zlib.compressobj(wbits=31)

    def send(data: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> None:
        if framing == "gzip":
            data = squeeze.compress(data) + squeeze.flush(flush)
        connection.sendall(chunk(data) if framing == "chunked" else data)

    for _ in range(40):
        time.sleep(0.01)
        send(event("token", text="x", sent=time.monotonic()))
    send(event("done"), zlib.Z_FINISH)


def _requests(connection: socket.socket) -> Iterator[str]:
    """Yield the path of each request, once its body is read."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            received = connection.recv(65536)
            if not received:
                return
            data += received
        head, _, data = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(data) < length:
            data += connection.recv(65536)
        data = data[length:]
        yield head.split(b" ", 2)[1].decode()


if __name__ == "__main__":
    server = Server()
    print(server.port, flush=True)
    server.serve()
