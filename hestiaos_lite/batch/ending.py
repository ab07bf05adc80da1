"""The end of a batch before its last row: what may bring it about, and which of it is told."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple, Optional

from ..errors import HestiaError, RequestTimeout
from .rate import SharedPause


class Limits(NamedTuple):
    """What bounds a run.

    Attributes:
        window: rows in flight at most.
        retries: how often a row that was certainly not executed is sent again while the service accepts others.
        patience_seconds: how long the service may refuse everything before the run ends.
        deadline_seconds: when sending ends, or None.
    """

    window: int
    retries: int = 5
    patience_seconds: float = 900.0
    deadline_seconds: Optional[float] = None


class Ending:
    """Whether the run is at its end: nothing further is sent then, and what is in flight is finished.

    Args:
        stop: an event of the caller's that ends the run without a failure.
    """

    def __init__(self, limits: Limits, stop: Optional[threading.Event]) -> None:
        self._limits = limits
        self._stop = stop
        self._deadline_at: Optional[float] = None
        self.has_begun = False
        self.failure: Optional[BaseException] = None  # to be raised once what was in flight is in

    def start_clock(self) -> None:
        """Count the deadline from now."""
        if self._limits.deadline_seconds is not None:
            self._deadline_at = time.monotonic() + self._limits.deadline_seconds

    def begin(self, failure: Optional[BaseException] = None) -> None:
        """End the run; the first reason is the one that is told."""
        if not self.has_begun:
            self.has_begun = True
            self.failure = failure

    def look(self, *, anything_left: bool) -> None:
        """End the run if it was asked to stop, or if its time is up while there is something left to send."""
        if self._stop is not None and self._stop.is_set():
            self.begin()
        elif anything_left and self._is_past_deadline(time.monotonic()):
            self.begin(
                RequestTimeout(
                    "the batch's deadline of {:g} s passed; rows may be left unsent".format(
                        self._limits.deadline_seconds or 0.0
                    ),
                    code="BATCH_DEADLINE",
                    delivered=False,
                )
            )

    def refused(self, pause: SharedPause, error: HestiaError) -> None:
        """End the run with a refusal, if waiting for the service is no use: it was never there, or the time is up."""
        since = pause.until if pause.refused_since is None else pause.refused_since
        if (
            (pause.accepted_at is None and pause.waves > self._limits.retries)
            or pause.until - since > self._limits.patience_seconds
            or self._is_past_deadline(pause.until)
        ):
            self.begin(error)

    def wait_seconds(self, longest: float) -> float:
        """How long nothing has to be looked at."""
        if self._deadline_at is not None and not self.has_begun:
            longest = min(longest, self._deadline_at - time.monotonic())
        return max(0.0, longest)

    def _is_past_deadline(self, moment: float) -> bool:
        return self._deadline_at is not None and moment >= self._deadline_at
