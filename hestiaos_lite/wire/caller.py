"""Caller: what the methods of a client call through; it owns the client's transport, deadline and retries."""

from __future__ import annotations

from typing import Any, Callable, Optional, TypeVar

from .._check import check_whole_number
from ..deadline import Deadline
from .answers import Answer, as_answer, as_json, as_nothing
from .bytestream import ByteStream, as_stream
from .call import Call
from .retry import RetryPolicy
from .transport import Transport

_T = TypeVar("_T")


class Caller:
    """One client's way to its service: a public method calls one of these, and this the transport.

    Args:
        transport: closed with the caller.
        timeout_seconds: total deadline of a call that names none.
        once: when a POST may be repeated.
        repeatable: when a GET or DELETE may be repeated.
        prefix: before every path.
        max_body_bytes: of an answer no more is read; checked here.
    """

    def __init__(
        self,
        transport: Transport,
        timeout_seconds: float,
        *,
        once: RetryPolicy,
        repeatable: RetryPolicy,
        max_body_bytes: int,
        prefix: str = "",
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._transport = transport
        self._once = once
        self._repeatable = repeatable
        self._prefix = prefix
        self._max_body_bytes = check_whole_number(
            "max_body_bytes", max_body_bytes, least=1, code="CONFIGURATION"
        )

    def get(self, path: str, decode: Callable[[Any], _T], **options: Any) -> _T:
        """GET and decode; for the options of every method see `Call`."""
        return self._transport.request(self._call("GET", path, None, options), as_json(decode))

    def post(self, path: str, body: Any, decode: Callable[[Any], _T], **options: Any) -> _T:
        """POST and decode."""
        return self._transport.request(self._call("POST", path, body, options), as_json(decode))

    def post_for_answer(self, path: str, body: Any, **options: Any) -> Answer:
        """POST and return the status too, of a 2xx or one that ``accept`` names."""
        return self._transport.request(self._call("POST", path, body, options), as_answer)

    def stream(self, path: str, body: Any, *, silence_seconds: Optional[float], **options: Any) -> ByteStream:
        """POST and return the answer's bytes as they arrive; ``silence_seconds`` bounds the wait for each."""
        return self._transport.request(self._call("POST", path, body, options), as_stream(silence_seconds))

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> None:
        """Send a call of which only the 2xx matters; its body is not read."""
        self._transport.request(self._call(method, path, body, options), as_nothing)

    def close(self) -> None:
        """Close every connection that no call and no stream is using; a later call opens new ones."""
        self._transport.close()

    def _call(self, method: str, path: str, body: Any, options: Any) -> Call:
        """Describe a call; a POST that may have been delivered is never repeated, a GET or DELETE may be."""
        seconds = options.pop("timeout_seconds", self.timeout_seconds)
        options.setdefault("deadline", Deadline(seconds))
        options.setdefault("max_body_bytes", self._max_body_bytes)
        options["secrets"] = self._transport.secrets + options.get("secrets", ())
        retry = self._once if method == "POST" else self._repeatable
        return Call(method, self._prefix + path, body, retry=retry, **options)
