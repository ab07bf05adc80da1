"""What passes between the wire and the services: a request in, a reply out, or one of two exceptions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Tuple

MAX_INTEGER_DIGITS = 4300  # CPython's own bound since 3.11; before it, a megabyte of digits costs seconds


class Headers(Mapping[str, str]):
    """Header fields, looked up without regard to case (RFC 9110, section 5.1).

    Iteration gives lower-case names. Fields of one name are joined with ``", "``.
    """

    def __init__(self, pairs: Iterable[Tuple[str, str]] = ()) -> None:
        self._values: Dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            self._values[key] = self._values[key] + ", " + value if key in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "Headers({!r})".format(self._values)


@dataclass
class Request:
    """One received request.

    Attributes:
        method: as sent, e.g. ``"POST"``.
        path: the raw path, still percent-encoded, without the query: ``"/api/secrets/team%2Fadmin"``.
        query: the raw query after ``?``, or ``""``.
        headers: dict-like, any case.
        body: the bytes of the body, after any chunking.
        keep_alive: the client wants the connection kept.
        http_1_0: the client speaks HTTP/1.0 (no chunked answers).
    """

    method: str
    path: str
    query: str = ""
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    keep_alive: bool = True
    http_1_0: bool = False

    @property
    def json(self) -> Any:
        """The body decoded as JSON. Raises ValueError when it is not (NaN and Infinity are not JSON)."""
        return decode_json(self.body)


@dataclass
class Reply:
    """One answer: JSON (``payload``), raw bytes (``body``) or a stream of events (``events``).

    Attributes:
        status: HTTP status.
        payload: any JSON value; written unless ``body`` or ``events`` is given.
        headers: further header fields.
        body: the body's bytes as they are, of ``content_type``.
        content_type: of ``body``.
        events: objects to send as Server-Sent Events, each as soon as it is yielded.
    """

    status: int = 200
    payload: Any = None
    headers: Dict[str, str] = field(default_factory=dict)
    body: Optional[bytes] = None
    content_type: str = "application/json"
    events: Optional[Iterator[Mapping[str, Any]]] = None

    def body_bytes(self) -> bytes:
        """The body of a reply that is not a stream."""
        return encode_json(self.payload) if self.body is None else self.body


class Refusal(Exception):
    """A handler answers with an error: ``raise Refusal(Reply(404, ...))``."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Drop(Exception):
    """Close the connection and send nothing more: a scripted fault, or the sandbox is stopping."""


def refusal(http_status: int, code: str, message: str, **facts: Any) -> Refusal:
    """An error of the service's own, its facts both flat and under ``detail``: clients read either."""
    body = dict(facts, code=code, message=message)
    return Refusal(Reply(http_status, dict(body, detail=body)))


def decode_json(data: bytes) -> Any:
    """Decode a JSON text (RFC 8259).

    Raises ValueError for anything else: not UTF-8, NaN, an integer of thousands of digits, nested too deep.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_int=_bounded_int)
    except RecursionError:
        raise ValueError("nested too deep") from None


def encode_json(value: Any) -> bytes:
    """Encode as the services do: compact, UTF-8, nothing escaped that need not be."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _no_constant(name: str) -> Any:
    raise ValueError("{} is not JSON".format(name))


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise ValueError("an integer of {} digits".format(len(digits)))
    return int(digits)
