"""The sending side of a batch: one loop in the caller's thread that fetches rows, submits them and takes in what became of them.

Every row that is drawn gets exactly one result, whatever interrupts the loop (`threads.Interrupts`). It draws a row only when it can
be sent at once, so that an endless source is not read ahead and the keeper of a journal knows what was sent.

Of an executor only ``submit`` and the future's own methods are used, and a lent one is believed only where all executors
mean the same: that a future is done. That it has cancelled a row, or has raised when it was given one, says nothing of
whether the row was sent: a pool queues a row before it starts a thread for it, and dask cancels what a worker is executing.
"""

from __future__ import annotations

import functools
import itertools
import os
import queue
import time
from collections import deque
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Sequence, Union

from .._check import named
from ..errors import NONE, HestiaError, InvalidInput, RequestTimeout
from ..wire.call import new_request_id
from .rate import Backoff, TokenBucket
from .rows import BatchResult, BatchRow, Report, Sending, concerns_every_row, error_facts, was_rejected
from .threads import Interrupts, Threads

_STOP_POLL_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 1.0  # Windows does not interrupt a longer wait for Ctrl-C


Recorder = Callable[[Deque[BatchResult], List[BatchRow], Sequence[Sending]], Any]


class InFlight:
    """A row and what was tried so far. Its future is None before it was submitted, and while it is being."""

    def __init__(self, row: Any) -> None:
        self.row = row
        self.request_id = ""  # of the submission that was made last, or is to be made
        self.future: Optional[Future[Any]] = None
        self.attempts = 0
        self.seconds = 0.0
        self.sent_at = 0.0
        self.rejections = 0
        self.rejection: Optional[HestiaError] = None  # the last
        self.first_rejected_at = 0.0

    def result(
        self, response: Optional[Dict[str, Any]] = None, error: Optional[HestiaError] = None
    ) -> BatchResult:
        """Make its result."""
        facts, request_id = (None, None) if error is None else (error_facts(error), error.request_id)
        if error is not None and response is None and request_id is None and error.effect != NONE:
            request_id = self.request_id  # a worker that was lost has sent it under this one, if it has
        return BatchResult(
            self.row.id, error is None, response, facts, self.attempts, self.seconds, request_id
        )


class Dispatcher:
    """Sends rows through an executor.

    Args:
        work: called in a worker with a row, the number of its sending and a request id; returns a `Report`.
        rows: the source of the rows.
        read: makes of what the source gives a row, or the result of one that cannot be sent; None: it gives rows.
        jobs: most rows in flight.
        retries: how often a row that was certainly not executed is sent again while the service accepts others.
        patience_seconds: how long the service may reject everything before the run ends.
        deadline_seconds: when sending ends, or None.
        executor: None starts threads for this run; a caller's executor is never shut down.
        bucket: the rate, or None.
        stop: when set, nothing further is sent and what is in flight is finished.
        record: takes results, and rows that were certainly not executed, out of its first two arguments, before anything
            further is sent; nothing is sent once it has raised. None: nobody is told.
        is_journal: `record` is also given the rows that are about to be sent, with their request ids, and they are fetched
            together for it, as many as may be sent now; results are recorded with them, or before each wait, and a row
            that the run leaves unsent has none. Otherwise a row is sent once it is drawn, and a result recorded before it
            is yielded.
    """

    def __init__(
        self,
        work: Callable[[BatchRow, int, str], Report],
        rows: Iterable[Any],
        *,
        jobs: int,
        retries: int,
        patience_seconds: float,
        deadline_seconds: Optional[float],
        read: Optional[Callable[[Any], Union[BatchRow, BatchResult]]] = None,
        executor: Optional[Executor] = None,
        bucket: Optional[TokenBucket] = None,
        stop: Any = None,
        record: Optional[Recorder] = None,
        is_journal: bool = False,
    ) -> None:
        self._work = work
        self._rows = iter(rows)
        self._read = read or (lambda item: item)
        self._size = jobs
        self._retries = retries
        self._patience_seconds = patience_seconds
        self._deadline_seconds = deadline_seconds
        self._deadline_at = float("inf")
        self._executor: Any = executor
        self._own: Optional[Threads] = None
        self._bucket = bucket or TokenBucket(float("inf"))
        self._stop_event = stop
        self._recorder = record
        self._is_journal = is_journal
        self.backoff = Backoff()
        self._drawn: List[Any] = []  # of the source, at most one, and not yet read
        self._to_submit: List[InFlight] = []
        self._in_flight: Dict[InFlight, None] = {}
        self._waiting: Deque[InFlight] = deque()  # rejected, to be sent again
        self._completed: queue.SimpleQueue[Optional[InFlight]] = queue.SimpleQueue()
        self._unrecorded: Deque[BatchResult] = deque()
        self._not_executed: List[BatchRow] = []  # likewise
        self._ready: Deque[BatchResult] = deque()
        self._exhausted = False
        self._stopped = False
        self._failure: Optional[BaseException] = None  # raised once what was in flight is in
        self._rejection: Optional[HestiaError] = None  # the last
        self._interrupts = Interrupts(functools.partial(self._completed.put, None))

    def results(self) -> Iterator[BatchResult]:
        """Send everything, yielding results as rows complete; raise at the end what ended the run early."""
        if self._deadline_seconds is not None:
            self._deadline_at = time.monotonic() + self._deadline_seconds
        pid = os.getpid()
        try:
            goes_on = True
            while goes_on:
                if os.getpid() != pid:
                    what = "this process was forked during the run, whose threads and rows its parent has"
                    raise HestiaError("EXECUTOR", what, delivered=False)
                with self._interrupts:
                    goes_on = self._step()
                while self._ready:
                    yield self._ready.popleft()
        finally:
            if os.getpid() == pid:
                with self._interrupts:
                    self._wind_down()
        if self._failure is not None:
            raise self._failure

    @property
    def _anything_left(self) -> bool:
        return bool(self._waiting) or not self._exhausted

    @property
    def _room(self) -> int:
        """How many more rows may be in flight."""
        return (1 if self.backoff.is_half_open else self._size) - len(self._in_flight)

    def _step(self) -> bool:
        """Send what may be sent, or take in what has completed; False at the end."""
        if self._executor is None:
            self._executor = self._own = Threads(self._size)
            self._size = self._own.size
        self._fill()
        goes_on = bool(self._ready or self._in_flight or (self._anything_left and not self._stopped))
        if goes_on and not self._ready:
            self._receive(self._wait_seconds())
            self._interrupts.check()
        if not self._is_journal:
            self._record()
        return goes_on

    # -- sending

    def _fill(self) -> None:
        """Send rows until the window is full, none may be sent now, or results are to be taken in first."""
        while not self._ready and self._completed.empty():
            self._interrupts.check()
            self._check_limits()
            self._fetch()
            if self._to_submit and not self._stopped and self._is_journal:
                self._record([(one.row, one.request_id) for one in self._to_submit])
            if self._stopped:
                self._cancel()
            if not self._to_submit:
                return
            while self._to_submit and not self._stopped:
                self._submit(self._to_submit.pop(0))

    def _fetch(self) -> None:
        """Fetch the rows that may be sent now: all of them for a journal, else one, since it is sent at once."""
        most = self._room if self._is_journal else min(1, self._room)
        while len(self._to_submit) < most and not self._ready and not self._stopped:
            in_flight = self._next() if self._pause_seconds() <= 0 else None
            if in_flight is None:
                return
            self._bucket.take()
            in_flight.request_id = new_request_id()
            self._to_submit.append(in_flight)

    def _next(self) -> Optional[InFlight]:
        """Give a new row, or one that was rejected; None where there is none to send."""
        # Half-open, a new row is tried where there is one: a row that alone is rejected must not hold up the others. So one
        # row is added to those waiting with each pause, and patience bounds the pauses.
        if not self._exhausted and (self.backoff.is_half_open or not self._waiting):
            in_flight = self._draw()
            if in_flight is not None or not self._exhausted:
                return in_flight
        return self._waiting.popleft() if self._waiting else None

    def _draw(self) -> Optional[InFlight]:
        try:
            with self._interrupts.none_put_off():  # the source may wait for ever
                # one step in C: an interrupt finds it drawn, or not drawn
                self._drawn.extend(itertools.islice(self._rows, 1))
            if self._drawn:
                return self._read_drawn()
            self._exhausted = True
        except Exception as error:  # noqa: BLE001 - the source's, or a mapping's, own: raised once what it gave is finished
            self._stop(error)
        return None

    def _read_drawn(self) -> Optional[InFlight]:
        row = self._read(self._drawn.pop())
        if isinstance(row, BatchRow):
            return InFlight(row)
        self._finish(row)
        return None

    def _submit(self, in_flight: InFlight) -> None:
        in_flight.sent_at = time.monotonic()
        in_flight.future = None
        self._in_flight[in_flight] = None
        try:
            future = self._executor.submit(
                self._work, in_flight.row, in_flight.rejections + 1, in_flight.request_id
            )
            in_flight.future = future
            future.add_done_callback(lambda _: self._completed.put(in_flight))
        except Exception as error:  # noqa: BLE001 - a pool that is broken or closed, or has no thread for what it queued
            self._without_report(in_flight, "the executor failed when it was given the row", error)
            failure = HestiaError("EXECUTOR", "the executor accepts no more rows: {}".format(named(error)))
            failure.__cause__ = error
            self._stop(failure)
            del self._in_flight[in_flight]

    # -- receiving

    def _wait_seconds(self) -> float:
        longest = _LONGEST_WAIT_SECONDS if self._stop_event is None else _STOP_POLL_SECONDS
        if self._stopped:
            return longest
        if self._anything_left and self._room > 0:
            longest = min(longest, self._pause_seconds())
        return max(0.0, min(longest, self._deadline_at - time.monotonic()))

    def _pause_seconds(self) -> float:
        """How long nothing may be sent."""
        return max(self.backoff.wait_seconds(), self._bucket.wait_seconds())

    def _receive(self, timeout: float) -> None:
        """Wait until a row has completed, and take in all that have."""
        if self._completed.empty():
            self._record()
        try:
            completed = [self._completed.get(timeout=timeout)]
        except queue.Empty:  # an executor may fail to call back
            completed = [one for one in self._in_flight if one.future is not None and one.future.done()]
        while not self._completed.empty():
            completed.append(self._completed.get_nowait())
        for in_flight in completed:
            if in_flight in self._in_flight and in_flight is not None and in_flight.future is not None:
                self._take_in(in_flight, in_flight.future)
                in_flight.future = None  # whose callback holds the row: a cycle would wait for the collector
                del self._in_flight[in_flight]

    def _take_in(self, in_flight: InFlight, future: Future[Any]) -> None:
        failure = CancelledError() if future.cancelled() else future.exception()
        if failure is not None:
            self._without_report(in_flight, "its worker failed", failure)
            return
        report: Report = future.result()
        error = report.error
        in_flight.attempts += report.attempts
        in_flight.seconds += report.seconds
        if error is not None and report.response is None:
            if concerns_every_row(error):
                self._stop(error)
                if error.effect == NONE:
                    self._leave_unsent(in_flight, error)
                else:
                    self._finish(in_flight.result(error=error))
                return
            if was_rejected(error):
                self._rejected(in_flight, error)
                return
        if error is None or error.delivered:
            self.backoff.accepted(in_flight.sent_at)
        self._finish(in_flight.result(report.response, error))

    def _without_report(self, in_flight: InFlight, what: str, failure: BaseException) -> None:
        if isinstance(failure, InvalidInput):  # what was to be sent cannot be pickled, so nothing has left
            self._stop(failure)
            self._leave_unsent(in_flight, HestiaError("NOT_SENT", failure.message, delivered=False))
        else:
            self._lost(in_flight, "{}: {}".format(what, named(failure)))

    def _rejected(self, in_flight: InFlight, error: HestiaError) -> None:
        """Pause everything for a row that was certainly not executed, which waits or has been tried enough."""
        self._rejection = in_flight.rejection = error
        self.backoff.rejected(
            in_flight.sent_at, error.retry_after, "[{}] {}".format(error.code, error.message)
        )
        in_flight.rejections += 1
        if in_flight.rejections == 1:
            in_flight.first_rejected_at = time.monotonic()
        if self._was_tried_enough(in_flight) and self._is_no_outage(in_flight):
            self._finish(in_flight.result(error=error))
        else:
            self._waiting.append(in_flight)
            if self._is_journal:
                self._not_executed.append(in_flight.row)

    def _was_tried_enough(self, in_flight: InFlight) -> bool:
        return in_flight.rejections > self._retries

    def _is_no_outage(self, in_flight: InFlight) -> bool:
        """True when the rejections are this row's own: others were accepted meanwhile, or there is none left to ask with."""
        accepted_at = self.backoff.accepted_at
        if not self._retries or accepted_at is None:
            return not self._retries
        return accepted_at > in_flight.first_rejected_at or (
            self._exhausted and len(self._in_flight) == 1 and all(map(self._was_tried_enough, self._waiting))
        )

    # -- results

    def _finish(self, result: BatchResult) -> None:
        self._ready.append(result)
        self._unrecorded.append(result)

    def _leave_unsent(self, in_flight: InFlight, error: HestiaError) -> None:
        """Be done with a row with which nothing was done: a journal keeps it for the next run, others get its result."""
        if self._is_journal:
            self._not_executed.append(in_flight.row)
        else:
            self._finish(in_flight.result(error=error))

    def _record(self, sending: Sequence[Sending] = ()) -> None:
        if self._recorder is None:
            self._unrecorded.clear()
        elif self._unrecorded or self._not_executed or sending:
            try:
                self._recorder(self._unrecorded, self._not_executed, sending)
            except Exception as error:  # noqa: BLE001 - the caller's own: raised once what is in flight is in
                self._stop(error)
                if self._failure is None:  # at the very end, when the run has stopped
                    self._failure = error
                if not self._is_journal:  # which can take later what it could not now
                    self._recorder = None

    def _lost(self, in_flight: InFlight, message: str) -> None:
        """Finish a row whose worker gave no answer of ours: nobody can know how far it came."""
        in_flight.attempts += 1
        error = HestiaError("WORKER_LOST", message + "; it may have taken effect")
        self._finish(in_flight.result(error=error))

    # -- the end

    def _stop(self, failure: Optional[BaseException] = None) -> None:
        """Send nothing further; the first reason is the one that is raised."""
        if not self._stopped:
            self._stopped = True
            self._failure = failure

    def _check_limits(self) -> None:
        """Stop if that was asked for, or if there is no time or no hope for what is left to send."""
        if self._stop_event is not None and self._stop_event.is_set():
            self._stop()
        elif self._anything_left and time.monotonic() >= self._deadline_at:
            what = "the batch's deadline of {:g} s passed; rows may be left unsent"
            message = what.format(self._deadline_seconds)
            self._stop(RequestTimeout(message, code="BATCH_DEADLINE", delivered=False))
        elif not self._stopped and self._is_hopeless():
            # only the source knows whether a row is left; one that it gives is not sent
            drawn = None if self._waiting or self._exhausted else self._draw()
            if drawn is not None:
                self._to_submit.append(drawn)
            if self._anything_left:
                self._stop(self._rejection)

    def _is_hopeless(self) -> bool:
        """True when the service was never there, or accepts nothing until the run's patience or time is up."""
        backoff = self.backoff
        return backoff.rejected_since is not None and (
            (backoff.accepted_at is None and 0 < self._retries < backoff.rejections)
            or backoff.until - backoff.rejected_since > self._patience_seconds
            or backoff.until >= self._deadline_at
        )

    def _cancel(self) -> None:
        """Finish what was fetched, or waits, and will not be sent."""
        drawn = self._read_drawn() if self._drawn else None
        for in_flight in [*self._to_submit, *self._waiting, *([] if drawn is None else [drawn])]:
            not_sent = HestiaError("NOT_SENT", "the run ended before it was sent", delivered=False)
            self._leave_unsent(in_flight, in_flight.rejection or not_sent)
        self._to_submit.clear()
        self._waiting.clear()

    def _wind_down(self) -> None:
        """Let no row that was drawn go without its result, also when the caller stops taking results or is interrupted."""
        self._stop()
        try:
            for in_flight in [one for one in self._in_flight if one.future is None]:
                self._lost(in_flight, "the run was interrupted as it was sent")
                del self._in_flight[in_flight]
            while self._in_flight:
                self._receive(_STOP_POLL_SECONDS)
                self._interrupts.check()
        finally:
            for in_flight in self._in_flight:  # none, unless the wait for them was interrupted as well
                self._lost(in_flight, "the run was interrupted before its answer came")
            self._cancel()
            self._record()
            if self._own is not None:
                self._own.shutdown(wait=not self._in_flight)
