"""Call: one request as a method of a client describes it, before anything is sent, and when it may be sent again.

The decisions are pure: clock and randomness come from outside.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from typing import Any, Callable, Dict, FrozenSet, Mapping, Optional, Tuple

from .. import errors
from .._redact import Secrets
from ..deadline import Deadline
from ..errors import NONE, ConnectionFailed, HestiaError

# what HestiaOS, or a gateway before it, says when it may be well again soon
_PASSING = frozenset({408, 425, 429, 502, 503, 504})
_SERVER_ERRORS = frozenset(range(500, 600))
_BASE_SECONDS, _CAP_SECONDS = 0.5, 8.0
_LONGEST_RETRY_AFTER_SECONDS = 366 * 86400.0  # beyond a year it is not an instruction but a mistake


class RetryPolicy:
    """When and how a service's failed attempts are repeated (docs/reference.md, "Retries").

    What certainly had no effect (`HestiaError.effect`) may be sent again where another attempt may cure it: a connection
    that was never made, or a status of ``statuses``.
    """

    def __init__(
        self,
        retries: int,
        statuses: FrozenSet[int] = _PASSING,
        jitter: Optional[Callable[[], float]] = random.random,
    ) -> None:
        self.retries = retries
        self.statuses = statuses
        self.jitter = jitter

    def delay_seconds(self, failure: HestiaError, attempt: int, *, repeatable: bool) -> Optional[float]:
        """Seconds to wait before attempt ``attempt + 1``, or None when there must not be one.

        Exponential backoff with full jitter: a random share of base * 2 ** (attempt - 1), capped. A Retry-After is a
        lower bound to it.

        Args:
            repeatable: a second delivery does no harm, so that what may have been carried out is sent again too.
        """
        if attempt > self.retries or not (repeatable or failure.effect == NONE):
            return None
        if failure.is_final or not (isinstance(failure, ConnectionFailed) or failure.status in self.statuses):
            return None  # another attempt would not cure it
        delay = min(_CAP_SECONDS, _BASE_SECONDS * 2.0 ** min(attempt - 1, 60))
        if self.jitter is not None:
            delay *= self.jitter()
        return max(delay, failure.retry_after or 0.0)


def aegis_policy(retries: int) -> RetryPolicy:
    """For AEGIS, whose requests carry an idempotency key: every 5xx and no 4xx, after 0.5 s, 1 s, 2 s (docs/contract.md)."""
    return RetryPolicy(retries, _SERVER_ERRORS, jitter=None)


def parse_retry_after(value: Optional[str], now: Callable[[], float] = time.time) -> Optional[float]:
    """Read a Retry-After header: seconds or an HTTP date (RFC 9110, 10.2.3), as seconds from now; nonsense is None."""
    if not value:
        return None
    value = value.strip()
    if re.match(r"[0-9]+(\.[0-9]+)?\Z", value):
        seconds = float(value)
    else:
        from datetime import timezone  # here: only a date needs them
        from email.utils import parsedate_to_datetime

        try:
            date = parsedate_to_datetime(value)
            date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
            seconds = max(0.0, date.timestamp() - now())
        except Exception:  # noqa: BLE001
            # a malformed date: Python before 3.10 fails in many ways, with an UnboundLocalError too
            return None
    return seconds if seconds <= _LONGEST_RETRY_AFTER_SECONDS else None


class Call:
    """One request as a method of the client describes it; `Caller` adds what all share.

    Args:
        path: below the base URL, its variable segments quoted by `check_segment`.
        body: what is sent as JSON, or None.
        deadline: by when it is done or failed; made by the caller before the body is encoded.
        secrets: values that must not show in an error, whatever the service echoes.
        max_body_bytes: of an answer no more is read.
        governed: it runs something, so that a 403 is governance speaking.
        accept: the statuses beyond 2xx that are answers.
        changes: it changes something; None goes by the method.
    """

    def __init__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        base_url: str,
        deadline: Deadline,
        secrets: Secrets,
        max_body_bytes: int,
        headers: Optional[Mapping[str, str]] = None,
        governed: bool = False,
        accept: Tuple[int, ...] = (),
        request_id: Optional[str] = None,
        changes: Optional[bool] = None,
    ) -> None:
        self.method = method
        self.path = path
        self.body = None if body is None else _encode(body)
        self.base_url = base_url
        self.deadline = deadline
        self.secrets = secrets
        self.max_body_bytes = max_body_bytes
        self.headers = headers or {}
        self.governed = governed
        self.accept = accept
        self.request_id = request_id or _chosen.__dict__.pop("request_id", None) or new_request_id()
        self.changes = method != "GET" if changes is None else changes
        # it may be sent again without taking effect twice
        self.has_idempotency_key = "Idempotency-Key" in self.headers
        self.attempts = 0
        # of the attempts before the last, which may have taken effect though the last never left
        self.earlier_effect: str = NONE

    def facts(self, **more: Any) -> Dict[str, Any]:
        """What every error of this call carries."""
        return dict(more, request_id=self.request_id, attempts=self.attempts)


_chosen = threading.local()


def choose_request_id(request_id: Optional[str]) -> None:
    """Give this thread's next call a request id that was noted before it is sent; None takes it back."""
    _chosen.request_id = request_id


def new_request_id() -> str:
    """Return a random UUID (RFC 9562, 5.4); the module uuid is a hundredth of a one-shot call to import."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40  # version 4
    digits[8] = digits[8] & 0x3F | 0x80  # the variant
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


_as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _encode(body: Any) -> bytes:
    try:
        return _as_json(body).encode("utf-8")
    except UnicodeEncodeError:
        fault = "it holds text that is not valid Unicode (input that was not UTF-8?)"
    except TypeError as error:
        fault = str(error)  # the encoder's words name the type at fault
    except (ValueError, RecursionError):
        fault = "it holds a NaN or an infinity, is nested too deeply, or contains itself"
    # out here, where no exception is at hand: it would quote a value, or hold the whole body
    raise errors.InvalidInput("the request cannot be sent as JSON: {}".format(fault))
