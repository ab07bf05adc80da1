"""Calling the sandbox with the standard library alone: its tests must not lean on the client they serve."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import socket
from typing import Any, Dict, List, Mapping, NamedTuple, Optional


class Answer(NamedTuple):
    status: int
    body: Any  # decoded where it is JSON, else bytes
    headers: Mapping[str, str]


class A:
    """Equal to any value of the given types: ``{"latency_ms": A(float)}``."""

    def __init__(self, *types: type) -> None:
        self.types = types

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self.types)

    def __repr__(self) -> str:
        return "A({})".format(", ".join(kind.__name__ for kind in self.types))


class Form(A):
    """Equal to any text of this form: ``{"request_id": Form("[0-9]+")}``."""

    def __init__(self, pattern: str) -> None:
        self.pattern = re.compile(pattern)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.pattern.fullmatch(other) is not None

    def __repr__(self) -> str:
        return "Form({!r})".format(self.pattern.pattern)


def name_of(value: Any) -> str:
    """A short name of a table's value for a test's id."""
    return re.sub(r"[^ -Z^-~]+", "_", str(value))[:40]


def call(
    box: Any,
    method: str,
    path: str,
    body: Any = None,
    headers: Optional[Dict[str, str]] = None,
    timeout_seconds: float = 30.0,
) -> Answer:
    """One request on a connection of its own; ``body`` is sent as JSON unless it is bytes."""
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode("utf-8")
        sent.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection(box.host, box.port, timeout=timeout_seconds)
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if content and response.headers.get_content_type() == "application/json":
        return Answer(response.status, json.loads(content.decode("utf-8")), response.headers)
    return Answer(response.status, content, response.headers)


def decision(key: str = "k-1", **changes: Optional[str]) -> Dict[str, str]:
    """The headers of a self-hosted decision; a change to None leaves one out."""
    found = {"Tenant-Id": "acme", "Thread-Id": "t-1", "Idempotency-Key": key, "X-Request-Id": "r-" + key}
    found.update((name.replace("_", "-"), value) for name, value in changes.items())  # type: ignore[misc]
    return {name: value for name, value in found.items() if value is not None}


def error(code: str, message: str, **facts: Any) -> Dict[str, Any]:
    """An error body: its facts flat and under detail."""
    facts.update(code=code, message=message)
    return dict(facts, detail=facts)


def events_of(answer: Answer) -> List[Any]:
    """The events of a streamed answer."""
    blocks = answer.body.decode("utf-8").split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    return [json.loads(block[len("data: ") :]) for block in blocks]


def connect(box: Any, data: bytes = b"") -> socket.socket:
    """A raw connection on which this was sent."""
    client = socket.create_connection((box.host, box.port), 10)
    client.sendall(data)
    return client


def read_all(client: socket.socket, end: bytes = b"") -> bytes:
    """What comes until it ends so, or the other side closes or resets the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while not (end and received.endswith(end)):
            data = client.recv(65536)
            if not data:
                break
            received += data
    return received


def steady_port() -> int:
    """A free port that stays free between a stop and a start: below those that the system lends to other sockets."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
