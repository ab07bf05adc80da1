"""When a batch may send: a token bucket for the rate, and the pause that all its workers share. No I/O, no sleeping."""

from __future__ import annotations

import random
import re
import time
from typing import Any, Callable, Optional

from .._check import quoted
from ..errors import InvalidInput

_RATE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:/\s*(s|min|m|h))?\s*\Z")
_UNIT_SECONDS = {None: 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_BURST_SECONDS = 0.1  # so that no second sees much more than the rate


def parse_rate(rate: Any) -> float:
    """Read a rate as rows per second: a number, or text such as ``20/s``, ``90/min``, ``500/h``.

    Raises:
        InvalidInput: it is none of these, or not above 0.
    """
    value = 0.0
    if isinstance(rate, (int, float)) and not isinstance(rate, bool):
        value = rate  # below: a whole number may be too large for a float
    elif isinstance(rate, str):
        match = _RATE.match(rate)
        if match is not None:
            value = float(match.group(1)) / _UNIT_SECONDS[match.group(2)]
    if not 0 < value < 1e9:
        raise InvalidInput(
            "the rate must be above 0, such as 20/s, 90/min or 500/h, not {}".format(quoted(rate))
        )
    return float(value)


class TokenBucket:
    """A row is due at each interval of the rate, and as many as fill 0.1 s, or one, may come before they are due.

    Args:
        per_second: rows that are due in each second.
        clock: seconds, monotonic.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_seconds = 1.0 / per_second
        self._early_seconds = max(0.0, _BURST_SECONDS - self._interval_seconds)
        self._clock = clock
        self._due_at = clock() + self._early_seconds

    def take(self) -> None:
        """Count a row that is sent now."""
        self._due_at = max(self._due_at, self._clock()) + self._interval_seconds

    def wait_seconds(self) -> float:
        """Seconds until the next row may be sent; 0 or less when it may be now."""
        return self._due_at - self._early_seconds - self._clock()


class Backoff:
    """The pause that every worker keeps when the service refuses: 429, 503, or no connection at all.

    Each refusal of a row that was sent after the last pause began lengthens the next pause: 0.5 s, doubled each time, at
    most 60 s, of which a random half is taken away; a Retry-After is a lower bound. After a pause one row goes out as a
    probe, and the others follow once the service has accepted anything.

    Args:
        clock: seconds, monotonic.
        jitter: gives a random number from 0 to 1.
    """

    base_seconds = 0.5
    cap_seconds = 60.0

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self.rejections = 0  # refusals in a row, those of rows that were in flight together counted once
        self._began_at = -1.0
        self.until = 0.0  # nothing is sent before
        self.reason = ""  # of the last refusal
        # since when the service has accepted nothing; None when it does
        self.rejected_since: Optional[float] = None
        self.accepted_at: Optional[float] = None  # when it last did

    @property
    def is_half_open(self) -> bool:
        """True while only one row may be in flight: a pause has begun and nothing was accepted since."""
        return self.rejected_since is not None

    def rejected(self, sent_at: float, retry_after: Optional[float], reason: str = "") -> None:
        """Note that a row sent at ``sent_at`` was refused."""
        now = self._clock()
        self.reason = reason
        if self.rejected_since is None:
            self.rejected_since = now
        delay = 0.0
        if sent_at >= self._began_at:  # else it is of those that were in flight when the pause began
            self.rejections += 1
            self._began_at = now
            delay = min(self.cap_seconds, self.base_seconds * 2.0 ** (min(self.rejections, 20) - 1))
            delay *= 1.0 - 0.5 * self._jitter()
        self.until = max(self.until, now + max(delay, retry_after or 0.0))

    def accepted(self, sent_at: float) -> None:
        """Note that a row sent at ``sent_at`` was answered other than by a refusal."""
        self.accepted_at = self._clock()
        if sent_at >= self._began_at:
            self.rejections = 0
            self.rejected_since = None

    def wait_seconds(self) -> float:
        """Seconds until the pause ends; 0 or less when there is none."""
        return self.until - self._clock()
