"""May a request be repeated, and how long to wait before: pure decisions; clock and randomness come from outside."""

from __future__ import annotations

import random
import re
import time
from typing import Callable, FrozenSet, Optional

from ..errors import NONE, ConnectionFailed, HestiaError

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?\Z")
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
    if _SECONDS.match(value):
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
