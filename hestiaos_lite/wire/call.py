"""One request as a method describes it, and what can be checked of it before anything is sent."""

from __future__ import annotations

import json
import uuid
from typing import Any, Dict, Mapping, Optional, Tuple
from urllib.parse import quote

from .. import errors
from .retry import RetryPolicy


class Call:
    """One request as a method of the client describes it; `Transport` adds what all share.

    Args:
        path: below the base URL, its variable segments quoted by `segment`.
        body: what is sent as JSON, or None.
        retry: when it may be repeated.
        timeout_seconds: its total deadline.
        governed: it runs something, so that a 403 is governance speaking.
        secrets: values that must not show in an error, whatever the service echoes.
        accept: the statuses beyond 2xx that are answers.
    """

    def __init__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        retry: RetryPolicy,
        timeout_seconds: float,
        headers: Optional[Mapping[str, str]] = None,
        governed: bool = False,
        secrets: Tuple[str, ...] = (),
        accept: Tuple[int, ...] = (),
        request_id: Optional[str] = None,
    ) -> None:
        self.method = method
        self.path = path
        self.body = None if body is None else _encode(body)
        self.retry = retry
        self.timeout_seconds = timeout_seconds
        self.headers = headers or {}
        self.governed = governed
        self.secrets = secrets
        self.accept = accept
        self.request_id = request_id or str(uuid.uuid4())
        self.attempts = 0

    def facts(self, **more: Any) -> Dict[str, Any]:
        """What every error of this call carries."""
        return dict(more, request_id=self.request_id, attempts=self.attempts)


def text(name: str, value: Any) -> str:
    """Return a string argument, or raise InvalidInput naming it."""
    if not isinstance(value, str):
        raise errors.InvalidInput("{} must be a string, not {}".format(name, type(value).__name__))
    return value


def segment(name: str, value: Any) -> str:
    """Quote one path segment whole, so that ``team/../admin`` stays one; refuse what cannot be one."""
    if text(name, value) in ("", ".", ".."):
        raise errors.InvalidInput("{} must not be {!r}: it cannot be a path segment".format(name, value))
    try:
        return quote(value, safe="")
    except UnicodeEncodeError as error:
        raise errors.InvalidInput("{} is not valid text".format(name)) from error


def check_headers(headers: Mapping[str, Any]) -> Dict[str, str]:
    """Return the headers, or raise InvalidInput for a name or value that cannot be sent; the value is never quoted."""
    for name, value in headers.items():
        if (
            not isinstance(name, str)
            or not name.isascii()
            or not name
            or any(ord(c) < 33 or c in ':()<>@,;"' for c in name)
        ):
            raise errors.InvalidInput("{!r} cannot be the name of a header".format(name))
        if not isinstance(value, str):
            raise errors.InvalidInput(
                "the header {} must be a string, not {}".format(name, type(value).__name__)
            )
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise errors.InvalidInput("the header {} holds a character beyond latin-1".format(name)) from None
        if (
            value != value.strip()
            or not value
            or any(ord(c) < 32 and c != "\t" or ord(c) == 127 for c in value)
        ):
            raise errors.InvalidInput(
                "the header {} is empty, begins or ends with white space, or holds a control character".format(
                    name
                )
            )
    return dict(headers)


def _encode(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        # the encoder's words name the type at fault; a value is never quoted, nor kept by a cause that holds the whole body
        fault = str(error) if isinstance(error, TypeError) else type(error).__name__
        if isinstance(error, UnicodeEncodeError):
            fault = "it holds text that is not valid Unicode (input that was not UTF-8?)"
        raise errors.InvalidInput("the request cannot be sent as JSON: {}".format(fault)) from None
