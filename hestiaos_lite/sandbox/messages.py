"""What passes between the wire and the services: a request in, a reply out, or one of two exceptions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Dict, Iterator, Mapping, Optional


@dataclass
class Request:
    """One received request.

    Attributes:
        method: as sent, for example ``"POST"``.
        path: the raw path, still percent-encoded, without the query: ``"/api/secrets/team%2Fadmin"``.
        query: the raw query after ``?``, or ``""``.
        headers: looked up as in a dict, in any case; an absent one is None.
        body: the bytes of the body.
    """

    method: str
    path: str
    query: str = ""
    headers: Message = field(default_factory=Message)
    body: bytes = b""

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


def canned(status: int, body: Any) -> Reply:
    """A reply whose body somebody chose: bytes and text as they are (text is HTML where it begins with ``<``), else JSON."""
    if isinstance(body, str):
        kind = "html" if body.lstrip().startswith("<") else "plain"
        return Reply(status, body=body.encode("utf-8"), content_type="text/{}; charset=utf-8".format(kind))
    if isinstance(body, (bytes, bytearray)):
        return Reply(status, body=bytes(body))
    return Reply(status, body)


def decode_json(data: bytes) -> Any:
    """Decode a JSON text (RFC 8259). Raises ValueError for anything else: not UTF-8, NaN, nested too deep."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def encode_json(value: Any) -> bytes:
    """Encode as the services do: compact, UTF-8, nothing escaped that need not be."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _no_constant(name: str) -> Any:
    raise ValueError("{} is not JSON".format(name))
