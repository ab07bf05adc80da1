"""The sending side of a batch: one loop in the caller's thread that draws rows, sends them and takes in what became of them.

Every row that is drawn gets exactly one result, whatever interrupts the loop. It draws a row only when it can be sent at
once, so that an endless source is not read ahead and whoever keeps a journal knows what was sent.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

from ..errors import NONE, HestiaError, InvalidInput
from .ending import Ending, Limits
from .rate import SharedPause, TokenBucket
from .results import BatchResult, concerns_every_row, error_facts, was_turned_away
from .rows import BatchRow
from .threads import Handed
from .window import Sending, Window
from .worker import Report, Task

_STOP_POLL_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 1.0  # Windows does not interrupt a longer wait for Ctrl-C
_UNTOLD = object()


class Settled(NamedTuple):
    """A row's result; ``unsent`` says that the run ended before the row could be sent, or sent again: nothing was done."""

    result: BatchResult
    unsent: bool


def _as_it_is(item: Any) -> Union[BatchRow, BatchResult]:
    row: BatchRow = item
    return row


class Dispatcher:
    """Sends rows through an executor.

    Args:
        task: what is done with each row.
        rows: the source of the rows.
        read: makes of what the source gives a row, or the result of one that cannot be sent.
        executor: None starts threads for this run.
        bucket: the rate, or None.
        stop: when set, nothing further is sent and what is in flight is finished.
        before_send: called with the rows that are about to be sent, as many as may be sent now, which are drawn together
            for it; nothing of them is sent when it raises. None: each row is sent as soon as it is drawn.
        on_turned_away: called with a row that was certainly not executed and waits to be sent again.
        on_settled: called with each result before anything further is sent.
        on_result: likewise, for who does not ask whether the row was sent.
    """

    def __init__(
        self,
        task: Task,
        rows: Iterable[Any],
        *,
        limits: Limits,
        read: Callable[[Any], Union[BatchRow, BatchResult]] = _as_it_is,
        executor: Optional[Executor] = None,
        bucket: Optional[TokenBucket] = None,
        stop: Optional[threading.Event] = None,
        before_send: Optional[Callable[[Sequence[BatchRow]], None]] = None,
        on_turned_away: Optional[Callable[[BatchRow], None]] = None,
        on_settled: Optional[Callable[[Settled], None]] = None,
        on_result: Optional[Callable[[BatchResult], Any]] = None,
    ) -> None:
        self._task = task
        self._rows = iter(rows)
        self._read = read
        self._limits = limits
        self._executor = executor
        self._bucket = bucket
        self._poll_seconds = _LONGEST_WAIT_SECONDS if stop is None else _STOP_POLL_SECONDS
        self._before_send = before_send
        self._on_turned_away = on_turned_away
        self._on_settled = on_settled
        self._on_result = on_result
        self._ending = Ending(limits, stop)
        self.pause = SharedPause()
        self._hand: List[Any] = []  # drawn and not yet sent; the last one may not be read yet
        self._waiting: Deque[Sending] = deque()  # turned away, to be sent again
        self._ready: Deque[Settled] = deque()
        self._exhausted = False
        self._window: Window

    def settled(self) -> Iterator[Settled]:
        """Send everything, yielding results as rows complete; raise at the end what ended the run early."""
        self._ending.start_clock()
        self._window = window = Window(self._task, self._executor, self._limits.window)
        try:
            while True:
                self._fill()
                if not self._ready:
                    if not len(window) and (self._ending.has_begun or not self._anything_left):
                        break
                    self._receive(window.completed(self._wait_seconds()))
                while self._ready:
                    yield self._ready.popleft()
        finally:
            self._wind_down()
        while self._ready:
            yield self._ready.popleft()
        if self._ending.failure is not None:
            raise self._ending.failure

    @property
    def _anything_left(self) -> bool:
        return bool(self._waiting) or not self._exhausted

    # -- sending

    def _fill(self) -> None:
        """Send rows until the window is full, none may be sent now, or results are to be taken in first."""
        while not self._ready and not self._window.has_completed:
            self._ending.look(anything_left=self._anything_left)
            self._draw()
            if not self._hand:
                return
            if self._before_send is not None:
                try:
                    self._before_send([sending.item for sending in self._hand])
                except Exception as error:  # noqa: BLE001 - the caller's journal failed: raised at the end
                    self._ending.begin(error)
            while self._hand and not self._ending.has_begun:
                self._send(self._hand[0])
                del self._hand[0]
            self._put_down_hand()

    def _draw(self) -> None:
        """Draw the rows that may be sent now: all of them for a journal, else one, since it is sent at once."""
        size = 1 if self.pause.probing else self._window.size
        most = min(size - len(self._window), size if self._before_send is not None else 1)
        while len(self._hand) < most and not self._ready and not self._ending.has_begun:
            if self.pause.wait_seconds() > 0 or (self._bucket is not None and not self._bucket.take()):
                return
            if not self._draw_one():
                if self._bucket is not None:
                    self._bucket.put_back()
                return

    def _draw_one(self) -> bool:
        """Take a new row, or one that was turned away, into the hand; False where there is none to send."""
        hand, waiting = self._hand, self._waiting
        # A probe is a new row where there is one: a row that alone is turned away must not hold up the others. So one row
        # is added to those waiting with each pause, and patience bounds the pauses.
        if not self._exhausted and (self.pause.probing or not waiting):
            drawn = len(hand)
            try:
                hand.extend(
                    itertools.islice(self._rows, 1)
                )  # one step: an interrupt finds it drawn, or not drawn
                if len(hand) > drawn:
                    hand[-1] = sending = Sending(self._read(hand[-1]))
            except Exception as error:  # noqa: BLE001 - the source's own: raised once what it gave before is finished
                self._ending.begin(error)
                del hand[drawn:]
                return False
            if len(hand) > drawn:
                if isinstance(sending.item, BatchRow):
                    return True
                self._settle(sending, sending.item)
                hand.pop()
                return False
            self._exhausted = True
        if not waiting:
            return False
        hand.append(waiting[0])
        waiting.popleft()
        return True

    def _send(self, sending: Sending) -> None:
        try:
            self._window.send(sending)
        except InvalidInput as error:  # what was to be sent cannot be pickled, so nothing has left
            self._ending.begin(error)
            self._not_sent(sending, error.message)
        except Exception as error:  # noqa: BLE001 - a pool that is broken or closed, or has no thread for what it queued
            failure = HestiaError("EXECUTOR", "the executor takes no more rows: {}".format(_named(error)))
            failure.__cause__ = error
            self._ending.begin(failure)
            self._lost(sending, "the executor failed when it was given the row: {}".format(_named(error)))
        else:
            return
        self._window.forget(sending)

    # -- receiving

    def _wait_seconds(self) -> float:
        longest = self._poll_seconds
        size = 1 if self.pause.probing else self._window.size
        if not self._ending.has_begun and self._anything_left and len(self._window) < size:
            next_token = 0.0 if self._bucket is None else self._bucket.wait_seconds()
            longest = min(longest, max(self.pause.wait_seconds(), next_token))
        return self._ending.wait_seconds(longest)

    def _receive(self, sendings: Iterable[Sending]) -> None:
        """Take in rows that have completed; a row is let go of last, so that an interrupt loses none."""
        for sending in sendings:
            future = self._window.future(sending)
            if future is not None:
                self._take_in(sending, future)
                self._window.forget(sending)

    def _take_in(self, sending: Sending, future: Union[Future[Any], Handed]) -> None:
        failure = CancelledError() if future.cancelled() else future.exception()
        if isinstance(failure, InvalidInput):  # the client refused to be pickled, so nothing has left
            self._ending.begin(failure)
            self._not_sent(sending, failure.message)
            return
        if failure is not None:
            self._lost(sending, "its worker failed: {}".format(_named(failure)))
            return
        report: Report = future.result()
        error = report.error
        sending.attempts += report.attempts
        sending.seconds += report.seconds
        if error is not None and report.response is None:
            if concerns_every_row(error):
                self._ending.begin(error)
                self._settle(sending, _result(sending, error=error), unsent=error.effect == NONE)
                return
            if was_turned_away(error):
                self._turned_away(sending, error)
                return
        if error is None or error.delivered:
            self.pause.accepted(sending.sent_at)
        self._settle(sending, _result(sending, report.response, error))

    def _turned_away(self, sending: Sending, error: HestiaError) -> None:
        """Pause everything for a row that was certainly not executed; put it back, unless it or the run is at its end."""
        pause = self.pause
        pause.refused(sending.sent_at, error.retry_after, "[{}] {}".format(error.code, error.message))
        sending.refusals += 1
        if sending.refusals == 1:
            sending.first_refused_at = time.monotonic()
        if self._was_tried_enough(sending) and self._is_no_outage(sending):
            self._settle(sending, _result(sending, error=error))
            return
        self._ending.refused(pause, error)
        if self._ending.has_begun:
            self._settle(sending, _result(sending, error=error), unsent=True)
            return
        self._waiting.append(sending)
        if self._on_turned_away is not None:
            try:
                self._on_turned_away(sending.item)
            except Exception as failure:  # noqa: BLE001 - the caller's journal failed: raised at the end
                self._ending.begin(failure)

    def _was_tried_enough(self, sending: Sending) -> bool:
        return sending.refusals > self._limits.retries

    def _is_no_outage(self, sending: Sending) -> bool:
        """True when the refusals are this row's own: others were accepted meanwhile, or there is none left to ask with."""
        accepted_at = self.pause.accepted_at
        if not self._limits.retries or (accepted_at is not None and accepted_at > sending.first_refused_at):
            return True
        is_last = (
            self._exhausted and len(self._window) == 1 and all(map(self._was_tried_enough, self._waiting))
        )
        return is_last and accepted_at is not None

    # -- results

    def _settle(self, sending: Sending, result: BatchResult, *, unsent: bool = False) -> None:
        if sending.is_settled:
            return
        settled = Settled(result, unsent)
        self._ready.append(settled)
        try:
            # Taken and told in one step: an interrupt between the two, which Pythons before 3.10 let in at every
            # instruction, would keep the result from the caller.
            tell: Optional[Callable[[Any], Any]] = self._on_settled or self._on_result
            what = settled if self._on_settled is not None else result
            if tell is None:
                next(sending.turn)
            elif next(map(tell, itertools.compress((what,), sending.turn)), _UNTOLD) is _UNTOLD:
                raise RuntimeError("what takes the results raised StopIteration")  # noqa: TRY301 - told below, as any
        except Exception as error:  # noqa: BLE001 - the caller's own: raised once what is in flight is in
            self._on_settled = self._on_result = None
            self._ending.begin(error)

    def _not_sent(self, sending: Sending, message: str) -> None:
        error = HestiaError("NOT_SENT", message, delivered=False)
        self._settle(sending, _result(sending, error=error), unsent=True)

    def _lost(self, sending: Sending, message: str) -> None:
        """Settle a row whose worker gave no answer of ours: nobody can know how far it came."""
        sending.attempts += 1
        error = HestiaError("WORKER_LOST", message + "; it may have taken effect")
        self._settle(sending, _result(sending, error=error))

    # -- the end

    def _put_down_hand(self) -> None:
        """Settle what was drawn and will not be sent."""
        if self._hand and not isinstance(self._hand[-1], Sending):
            self._hand[-1] = Sending(self._read(self._hand[-1]))
        for sending in self._hand:
            if isinstance(sending.item, BatchResult):
                self._settle(sending, sending.item)
            else:
                self._not_sent(sending, "the run ended before it was sent")
        self._hand.clear()

    def _wind_down(self) -> None:
        """Let no row that was drawn go without its result, also when the caller stops taking results or is interrupted."""
        window = self._window
        self._ending.begin()
        try:
            for sending in window.half_sent:
                self._lost(sending, "the run was interrupted as it was sent")
                window.forget(sending)
            while len(window):
                self._receive(window.completed(_STOP_POLL_SECONDS))
        finally:
            try:
                self._settle_the_rest()
            finally:
                window.close(wait=not len(window))

    def _settle_the_rest(self) -> None:
        for sending in self._window.sendings:  # none, unless the wait for them was interrupted as well
            self._lost(sending, "the run was interrupted before its answer came")
        self._put_down_hand()
        for sending in self._waiting:
            self._not_sent(sending, "the service turned it away, and the run ended before it was sent again")


def _result(
    sending: Sending, response: Optional[Dict[str, Any]] = None, error: Optional[HestiaError] = None
) -> BatchResult:
    facts = None if error is None else error_facts(error)
    request_id = None if error is None else error.request_id
    return BatchResult(
        sending.item.id, error is None, response, facts, sending.attempts, sending.seconds, request_id
    )


def _named(error: BaseException) -> str:
    return "{}: {}".format(type(error).__name__, error)
