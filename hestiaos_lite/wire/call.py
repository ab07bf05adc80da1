"""Call: one request as a method of a client describes it, before anything is sent."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Mapping, Optional, Tuple

from .. import errors
from .._redact import Secrets
from ..deadline import Deadline
from .retry import RetryPolicy


class Call:
    """One request as a method of the client describes it; `Transport` adds what all share.

    Args:
        path: below the base URL, its variable segments quoted by `check_segment`.
        body: what is sent as JSON, or None.
        retry: when it may be repeated.
        deadline: by when it is done or failed; made by the caller before the body is encoded.
        governed: it runs something, so that a 403 is governance speaking.
        secrets: values that must not show in an error, whatever the service echoes.
        accept: the statuses beyond 2xx that are answers.
        changes: it changes something; None goes by the method.
        max_body_bytes: of an answer no more is read.
    """

    def __init__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        retry: RetryPolicy,
        deadline: Deadline,
        max_body_bytes: int,
        headers: Optional[Mapping[str, str]] = None,
        governed: bool = False,
        secrets: Tuple[str, ...] = (),
        accept: Tuple[int, ...] = (),
        request_id: Optional[str] = None,
        changes: Optional[bool] = None,
    ) -> None:
        self.method = method
        self.path = path
        self.body = None if body is None else _encode(body)
        self.retry = retry
        self.deadline = deadline
        self.headers = headers or {}
        self.governed = governed
        self.secrets = Secrets(secrets)
        self.accept = accept
        self.request_id = request_id or new_request_id()
        self.changes = method != "GET" if changes is None else changes
        self.max_body_bytes = max_body_bytes
        self.base_url = ""  # the transport's
        self.attempts = 0
        # of the attempts before the last, which may have taken effect though the last never left
        self.earlier_effect: str = errors.NONE

    @property
    def has_idempotency_key(self) -> bool:
        """It may be sent again without taking effect twice."""
        return "Idempotency-Key" in self.headers

    def facts(self, **more: Any) -> Dict[str, Any]:
        """What every error of this call carries."""
        return dict(more, request_id=self.request_id, attempts=self.attempts)


def new_request_id() -> str:
    """Return a random UUID (RFC 9562, 5.4); the module uuid is a hundredth of a one-shot call to import."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40  # version 4
    digits[8] = digits[8] & 0x3F | 0x80  # the variant
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _encode(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        fault = "it holds text that is not valid Unicode (input that was not UTF-8?)"
    except TypeError as error:
        fault = str(error)  # the encoder's words name the type at fault
    except (ValueError, RecursionError):
        fault = "it holds a NaN or an infinity, is nested too deeply, or contains itself"
    # out here, where no exception is at hand: it would quote a value, or hold the whole body
    raise errors.InvalidInput("the request cannot be sent as JSON: {}".format(fault))
