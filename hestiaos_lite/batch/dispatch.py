"""The sending side of a batch: one loop in the caller's thread that keeps a bounded window of rows in flight.

Every row that is drawn gets exactly one result. The loop draws a row only when it can be sent at once, so that an endless
source is not read ahead and whoever keeps a journal knows what was sent. Of the executor only ``submit`` and the future's
own methods are used.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Union,
)

from .. import errors
from .rate import SharedPause, TokenBucket
from .rows import BatchResult, Row
from .worker import error_facts, work

_STOP_POLL_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 1.0  # Windows does not interrupt a longer wait for Ctrl-C


class Settled(NamedTuple):
    """A row's result; ``unsent`` says that the run ended before the row could be sent, or sent again: nothing was done."""

    result: BatchResult
    unsent: bool


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


class _Sending:
    """A row on its way: what was tried so far."""

    __slots__ = ("attempts", "first_refused_at", "refusals", "row", "seconds", "sendings", "sent_at")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.sendings = 0
        self.attempts = 0
        self.seconds = 0.0
        self.refusals = 0
        self.sent_at = 0.0
        self.first_refused_at = 0.0

    def result(
        self, response: Optional[Dict[str, Any]] = None, error: Optional[Dict[str, Any]] = None
    ) -> BatchResult:
        return BatchResult(self.row.id, error is None, response, error, self.attempts, self.seconds)


class Dispatcher:
    """Sends rows through an executor.

    Args:
        factory: gives a worker its client; ``key`` names it in the worker's cache (see `work`).
        call: the call each row is an argument list of.
        rows: what to send, or a finished result for a row that cannot be sent.
        executor: None makes a pool of threads, which is shut down at the end; a lent one never is.
        bucket: the rate, or None.
        stop: when set, nothing further is sent and what is in flight is finished.
        before_send: called with the rows that are about to be submitted; nothing of them is sent when it raises.
        on_turned_away: called with a row that was certainly not executed and waits to be sent again.
        on_settled: called with each result before anything further is sent.
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        key: bytes,
        call: str,
        rows: Iterator[Union[Row, BatchResult]],
        *,
        limits: Limits,
        executor: Optional[Executor] = None,
        bucket: Optional[TokenBucket] = None,
        pause: Optional[SharedPause] = None,
        stop: Optional[threading.Event] = None,
        before_send: Optional[Callable[[Sequence[Row]], None]] = None,
        on_turned_away: Optional[Callable[[Row], None]] = None,
        on_settled: Optional[Callable[[Settled], None]] = None,
    ) -> None:
        self._factory = factory
        self._key = key
        self._call = call
        self._rows = rows
        self._limits = limits
        self._executor = executor
        self._bucket = bucket
        self._stop = stop
        self._before_send = before_send
        self._on_turned_away = on_turned_away
        self._on_settled = on_settled
        self.pause = pause or SharedPause()
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._in_flight: Dict[Future[Any], _Sending] = {}
        self._waiting: Deque[_Sending] = deque()  # refused, to be sent again
        self._ready: Deque[Settled] = deque()
        self._exhausted = False
        self._ending = False
        self._failure: Optional[BaseException] = None
        self._ends_at: Optional[float] = None

    def settled(self) -> Iterator[Settled]:
        """Send everything, yielding results as rows complete; raise at the end what ended the run early."""
        if self._limits.deadline_seconds is not None:
            self._ends_at = time.monotonic() + self._limits.deadline_seconds
        lent = self._executor
        executor = lent or ThreadPoolExecutor(self._limits.window, thread_name_prefix="hestiaos-lite-batch")
        try:
            while True:
                self._fill(executor)
                if self._ready:
                    while self._ready:
                        yield self._ready.popleft()
                    continue
                if not self._in_flight and (self._ending or (self._exhausted and not self._waiting)):
                    break
                self._await_completions()
            if self._waiting:
                self._give_up_waiting()
                while self._ready:
                    yield self._ready.popleft()
        finally:
            self._wind_down()
            if lent is None:
                executor.shutdown(wait=True)
        if self._failure is not None:
            raise self._failure

    # -- sending

    def _fill(self, executor: Executor) -> None:
        """Submit rows until the window is full, or none may be sent now."""
        while True:
            self._look_at_clock()
            taken = self._take()
            if not taken:
                return
            if self._before_send is not None:
                try:
                    self._before_send([sending.row for sending in taken])
                except Exception as error:  # noqa: BLE001 - the caller's journal failed: raised at the end
                    self._end(error)
                    self._not_sent(taken, "NOT_SENT", "the run ended before it was sent")
                    return
            while taken:
                sending = taken.pop(0)
                sending.sendings += 1
                sending.sent_at = time.monotonic()
                try:
                    future = executor.submit(
                        work, self._factory, self._key, self._call, sending.row.arguments, sending.sendings
                    )
                except Exception as error:  # noqa: BLE001 - a broken or closed pool, or what its pickling raises
                    self._end(_executor_failure(error))
                    self._not_sent([sending] + taken, "NOT_SENT", "the executor did not take it")
                    return
                self._in_flight[future] = sending
                future.add_done_callback(self._done.put)

    def _take(self) -> List[_Sending]:
        """Draw the rows that may be sent now."""
        taken: List[_Sending] = []
        if self._ending or self.pause.wait_seconds() > 0:
            return taken
        window = 1 if self.pause.probing else self._limits.window
        while len(self._in_flight) + len(taken) < window and not self._ready:
            if self._bucket is not None and not self._bucket.take():
                break
            sending = self._next()
            if sending is None:
                if self._bucket is not None:
                    self._bucket.put_back()
                break
            taken.append(sending)
        return taken

    def _next(self) -> Optional[_Sending]:
        """The next row to send: one that was turned away, or a new one."""
        if self._ending:
            return None
        # A probe is a new row where there is one: a row that alone is turned away must not hold up the others. So one row
        # is added to those waiting with each pause, and patience bounds the pauses.
        if self._exhausted or (self._waiting and not self.pause.probing):
            return self._waiting.popleft() if self._waiting else None
        try:
            row = next(self._rows)
        except StopIteration:
            self._exhausted = True
            return self._waiting.popleft() if self._waiting else None
        except Exception as error:  # noqa: BLE001 - the source's own: raised once what it gave before is finished
            self._end(error)
            return None
        if isinstance(row, BatchResult):
            self._settle(row)
            return None
        return _Sending(row)

    def _look_at_clock(self) -> None:
        if self._ending:
            return
        if self._stop is not None and self._stop.is_set():
            self._end(None)
        elif (
            self._ends_at is not None
            and time.monotonic() >= self._ends_at
            and not (self._exhausted and not self._waiting)
        ):
            self._end(_deadline_passed(self._limits.deadline_seconds))

    # -- receiving

    def _await_completions(self) -> None:
        """Wait until a row completes, or something else may be done; then take in everything that has completed."""
        try:
            self._receive(self._done.get(timeout=self._wait_seconds()))
            while True:
                self._receive(self._done.get_nowait())
        except queue.Empty:
            pass

    def _wait_seconds(self) -> float:
        waits = [_LONGEST_WAIT_SECONDS if self._stop is None else _STOP_POLL_SECONDS]
        may_send = not self._ending and (self._waiting or not self._exhausted)
        if may_send and len(self._in_flight) < (1 if self.pause.probing else self._limits.window):
            next_token = 0.0 if self._bucket is None else self._bucket.wait_seconds()
            waits.append(max(self.pause.wait_seconds(), next_token))
        if self._ends_at is not None and not self._ending:
            waits.append(self._ends_at - time.monotonic())
        return max(0.0, min(waits))

    def _receive(self, future: Future[Any]) -> None:
        """Take in one completed row."""
        sending = self._in_flight.pop(future)
        failure = None if future.cancelled() else future.exception()
        if future.cancelled() or failure is not None:
            if isinstance(
                failure, errors.InvalidInput
            ):  # the client refused to be pickled, so nothing has left
                self._end(failure)
                self._not_sent([sending], "NOT_SENT", failure.message)
            else:
                sending.attempts += 1
                self._settle(sending.result(error=_lost(failure)))
            return
        answer = future.result()
        sending.attempts += answer["attempts"]
        sending.seconds += answer["seconds"]
        error = answer["error"]
        response = answer["response"]
        if response is not None:
            self.pause.accepted(sending.sent_at)
            self._settle(sending.result(response, error))
        elif _ends_every_row(error):
            self._end(_as_exception(error))
            self._settle(sending.result(error=error), unsent=True)
        elif _was_turned_away(error):
            self._turned_away(sending, error, answer["retry_after"])
        else:
            if error["status"] is not None:
                self.pause.accepted(sending.sent_at)
            self._settle(sending.result(error=error))

    def _turned_away(self, sending: _Sending, error: Dict[str, Any], retry_after: Optional[float]) -> None:
        """Pause everything for a row that was certainly not executed; put it back, unless it or the run is at its end."""
        pause = self.pause
        pause.refused(sending.sent_at, retry_after, "[{code}] {message}".format(**error))
        sending.refusals += 1
        if sending.refusals == 1:
            sending.first_refused_at = time.monotonic()
        if self._was_tried_enough(sending) and self._is_no_outage(sending):
            self._settle(sending.result(error=error))
            return
        since = pause.refused_since if pause.refused_since is not None else pause.until
        if (
            (pause.accepted_at is None and pause.waves > self._limits.retries)
            or pause.until - since > self._limits.patience_seconds
            or (self._ends_at is not None and pause.until >= self._ends_at)
        ):
            self._end(_as_exception(error))
        if self._ending:
            self._settle(sending.result(error=error), unsent=True)
            return
        self._waiting.append(sending)
        if self._on_turned_away is not None:
            try:
                self._on_turned_away(sending.row)
            except Exception as failure:  # noqa: BLE001 - the caller's journal failed: raised at the end
                self._end(failure)

    def _was_tried_enough(self, sending: _Sending) -> bool:
        return sending.refusals > self._limits.retries

    def _is_no_outage(self, sending: _Sending) -> bool:
        """True when the refusals are this row's own: others were accepted meanwhile, or there is none left to ask with."""
        accepted_at = self.pause.accepted_at
        if not self._limits.retries or (accepted_at is not None and accepted_at > sending.first_refused_at):
            return True
        is_last = self._exhausted and not self._in_flight and all(map(self._was_tried_enough, self._waiting))
        return is_last and accepted_at is not None

    # -- the end

    def _settle(self, result: BatchResult, *, unsent: bool = False) -> None:
        settled = Settled(result, unsent)
        self._ready.append(settled)
        if self._on_settled is not None:
            try:
                self._on_settled(settled)
            except Exception as error:  # noqa: BLE001 - the caller's own: raised once what is in flight is in
                self._on_settled = None
                self._end(error)

    def _end(self, failure: Optional[BaseException]) -> None:
        """Send nothing further; what is in flight is finished. The first reason is the one that is raised."""
        if not self._ending:
            self._ending = True
            self._failure = failure

    def _not_sent(self, sendings: List[_Sending], code: str, message: str) -> None:
        for sending in sendings:
            error = errors.HestiaError(code, message, delivered=False)
            self._settle(sending.result(error=error_facts(error)), unsent=True)

    def _give_up_waiting(self) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        self._not_sent(
            waiting, "NOT_SENT", "the service turned it away, and the run ended before it was sent again"
        )

    def _wind_down(self) -> None:
        """Let nothing in flight go unrecorded, also when the caller stops taking results or is interrupted."""
        self._end(None)
        cancelled: Set[Future[Any]] = {future for future in list(self._in_flight) if future.cancel()}
        while self._in_flight:
            try:
                future = self._done.get(timeout=_LONGEST_WAIT_SECONDS)
            except queue.Empty:
                continue
            if future in cancelled:
                self._not_sent([self._in_flight.pop(future)], "NOT_SENT", "the run ended before it was sent")
            else:
                self._receive(future)
        self._give_up_waiting()


def _was_turned_away(error: Mapping[str, Any]) -> bool:
    """True for what was certainly not executed, for a reason that concerns every row: 429, 503, no connection."""
    return error["status"] in (429, 503) or (error["delivered"] is False and error["class"] != "InvalidInput")


def _ends_every_row(error: Mapping[str, Any]) -> bool:
    """True for what no other row would fare better with: credentials, permission, a setting."""
    if error["class"] in ("AuthenticationError", "PermissionDenied"):
        return True
    return bool(
        error["class"] == "InvalidInput" and error["code"] == "CONFIGURATION" and error["status"] is None
    )


def _as_exception(error: Mapping[str, Any]) -> errors.HestiaError:
    """Make the exception again that a worker has reported as plain facts."""
    facts = {"code": error["code"], "status": error["status"], "delivered": error["delivered"], "attempts": 1}
    cls = getattr(errors, error["class"], None)
    if error["class"] == "HestiaError" or cls is None:
        return errors.HestiaError(facts.pop("code"), error["message"], error["trace_id"], **facts)
    failure: errors.HestiaError = cls(message=error["message"], trace_id=error["trace_id"], **facts)
    return failure


def _lost(failure: Optional[BaseException]) -> Dict[str, Any]:
    """The facts of a row whose worker gave no answer of ours: nobody can know how far it came."""
    name = "CancelledError" if failure is None else type(failure).__name__
    reason = (
        "its future was cancelled" if failure is None else "its worker failed: {}: {}".format(name, failure)
    )
    message = reason + "; it may have taken effect"
    return {
        "class": name,
        "code": "WORKER_LOST",
        "message": message,
        "status": None,
        "trace_id": None,
        "delivered": None,
    }


def _executor_failure(error: Exception) -> errors.HestiaError:
    if isinstance(error, errors.HestiaError):
        return error
    failure = errors.HestiaError(
        "EXECUTOR",
        "the executor takes no more rows: {}: {}".format(type(error).__name__, error),
        delivered=False,
    )
    failure.__cause__ = error
    return failure


def _deadline_passed(seconds: Optional[float]) -> errors.RequestTimeout:
    return errors.RequestTimeout(
        "the batch's deadline of {:g} s passed; rows may be left unsent".format(seconds or 0.0),
        code="BATCH_DEADLINE",
        delivered=False,
    )
