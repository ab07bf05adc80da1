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
_LONGEST_RETRY_AFTER_SECONDS = 366 * 86400.0  # beyond a year it is not an instruction but a mistake


class RetryPolicy:
    """When and how a failed attempt is repeated (docs/reference.md, "Retries").

    What certainly had no effect (`HestiaError.effect`) may be sent again where another attempt may cure it: a connection
    that was never made, or a status of ``statuses``. With ``repeatable`` a second delivery does no harm (GET, DELETE, or a
    request that carries an idempotency key), so that a request which may have been carried out is sent again too.
    """

    def __init__(
        self,
        retries: int,
        *,
        statuses: FrozenSet[int],
        repeatable: bool,
        base_seconds: float = 0.5,
        cap_seconds: float = 8.0,
        jitter: Optional[Callable[[], float]] = random.random,
    ) -> None:
        self.retries = retries
        self.statuses = statuses
        self.repeatable = repeatable
        self.base_seconds = base_seconds
        self.cap_seconds = cap_seconds
        self.jitter = jitter

    def delay_seconds(self, failure: HestiaError, attempt: int) -> Optional[float]:
        """Seconds to wait before attempt ``attempt + 1``, or None when there must not be one.

        Exponential backoff with full jitter: a random share of base * 2 ** (attempt - 1), capped. A Retry-After is a
        lower bound to it.
        """
        if attempt > self.retries or not self._may_repeat(failure):
            return None
        delay = min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempt - 1, 60))
        if self.jitter is not None:
            delay *= self.jitter()
        return max(delay, failure.retry_after or 0.0)

    def _may_repeat(self, failure: HestiaError) -> bool:
        if failure.is_final or not (isinstance(failure, ConnectionFailed) or failure.status in self.statuses):
            return False  # another attempt would not cure it
        return self.repeatable or failure.effect == NONE


def once(retries: int) -> RetryPolicy:
    """For a POST of HestiaOS: one that may have been delivered is never repeated."""
    return RetryPolicy(retries, statuses=_PASSING, repeatable=False)


def repeatable(retries: int) -> RetryPolicy:
    """For a GET or DELETE of HestiaOS."""
    return RetryPolicy(retries, statuses=_PASSING, repeatable=True)


def with_key(retries: int) -> RetryPolicy:
    """For AEGIS, whose requests carry an idempotency key: every 5xx and no 4xx, after 0.5 s, 1 s, 2 s (docs/contract.md)."""
    return RetryPolicy(retries, statuses=_SERVER_ERRORS, repeatable=True, jitter=None)


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
            seconds = max(
                0.0, (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp() - now()
            )
        except Exception:  # noqa: BLE001
            # a malformed date: Python before 3.10 fails in many ways, with an UnboundLocalError too
            return None
    return seconds if seconds <= _LONGEST_RETRY_AFTER_SECONDS else None


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
        self.request_id = request_id or _chosen.__dict__.pop("request_id", None) or new_request_id()
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
