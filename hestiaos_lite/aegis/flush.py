"""Sending what an outbox holds: one decision with the older ones of its lane before it, or all that is due.

What sends is a callable, ``send(decision, deadline)``, that returns a `Verdict` or raises a `HestiaError`. What a failure
makes of the row follows from whose fault it is (`HestiaError.at_fault`): the request's own kills the row; the service's
leaves it queued; the caller's (credentials, address, a setting) leaves it queued and goes on to whoever called, since every
other row would fail alike.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, Type

from ..deadline import Deadline
from ..errors import (
    CALLER,
    REQUEST,
    AuthenticationError,
    Conflict,
    ConnectionFailed,
    HestiaError,
    PermissionDenied,
    RequestTimeout,
)
from ..models.aegis import ActionResult
from .outbox import Outbox
from .queue import Turn
from .rows import Decision, Entry
from .truth import DUPLICATE, Verdict, result_of

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["FlushReport"]

_CONFIGURATION = 78  # exit code
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 0.05

Send = Callable[[Decision, Deadline], Verdict]


@dataclass(frozen=True)
class FlushReport:
    """What one flush did, in numbers of rows.

    Attributes:
        sent: accepted by the service.
        duplicate: the service had them already.
        queued: still to be sent after this flush, those that others hold or that are not due yet included.
        dead: refused by the service in this flush; `Outbox.list` gives them with their reasons.
        elsewhere: to be sent, but recorded for another service, or for the other of tenant and hosted mode; not touched.
    """

    sent: int = 0
    duplicate: int = 0
    queued: int = 0
    dead: int = 0
    elsewhere: int = 0


class Delivery:
    """One claimed row on its way: whatever ends the ``with`` block is written down, as the row's new state.

    Args:
        outbox: whose row.
        entry: the row.
        deadline: of the call it belongs to, which bounds the wait for the file's lock too; None for the outbox's own bound.

    Attributes:
        verdict: set within the block: what the service said.
        state: after it: ``settled``, ``queued`` or ``dead``.
        error: after it: why it is not settled.

    Raises:
        HestiaError: the caller is at fault, and the row is queued again.
        BaseException: whatever else ends the block (a bug, `KeyboardInterrupt`) goes on, with the row queued again.
    """

    def __init__(self, outbox: Outbox, entry: Entry, deadline: Optional[Deadline] = None) -> None:
        self._outbox = outbox
        self._entry = entry
        self._deadline = deadline
        self.verdict: Optional[Verdict] = None
        self.error: Optional[HestiaError] = None
        self.state = "claimed"

    def __enter__(self) -> Delivery:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> bool:
        outbox, entry, deadline = self._outbox, self._entry, self._deadline
        if isinstance(error, HestiaError):
            self.error = error
            if error.at_fault == REQUEST:
                self.state = "dead"
                outbox.queue.bury(entry, str(error), error.status, deadline=deadline)
                return True
            self.state = "queued"
            outbox.queue.release(entry, str(error), error.retry_after or 0.0, error.status, deadline=deadline)
            if error.at_fault == CALLER:
                _stays_queued(error, outbox)
                return False
            return True
        if error is not None or self.verdict is None:
            self.state = "queued"
            with contextlib.suppress(HestiaError):  # should this fail too, the lease ends the claim
                outbox.queue.release(entry, "interrupted by {}".format(kind.__name__ if kind else "nobody"))
            return False
        self.state = "settled"
        outbox.queue.settle(
            entry, self.verdict.status, self.verdict.body, confirmed=self.verdict.confirmed, deadline=deadline
        )
        return False


def _stays_queued(error: HestiaError, outbox: Outbox) -> None:
    """Tell the caller, whose fault it is, that nothing is lost; a wrong address is a matter of configuration."""
    error.with_facts(message="{}; it stays queued in the outbox {}".format(error.message, outbox.path))
    if not isinstance(error, (AuthenticationError, PermissionDenied)):
        error.with_facts(_exit_code=_CONFIGURATION)


class Outcome(NamedTuple):
    """What became of one decision: its row, the service's word if this call got it, and else the reason."""

    entry: Entry
    verdict: Optional[Verdict] = None
    error: Optional[HestiaError] = None
    reason: str = ""


def send_in_turn(outbox: Outbox, turn: Turn, send: Send, deadline: Deadline) -> Outcome:
    """Send the older decisions of a lane and then the one whose turn was asked for, as far as the deadline allows.

    While somebody else is sending an older one, it waits: in a lane that many write to, each goes out in its own call.
    """
    pause_seconds = _FIRST_PAUSE_SECONDS
    while deadline.remaining() > 0:
        own, entry, blocked_by = turn
        if entry is not None:
            with Delivery(outbox, entry, deadline) as delivery:
                delivery.verdict = send(entry, deadline)
            if entry.id == own.id:
                return Outcome(own, delivery.verdict, delivery.error, str(delivery.error or ""))
            if delivery.state == "queued":
                return Outcome(own, reason=_waits_for(entry, str(delivery.error)))
            pause_seconds = _FIRST_PAUSE_SECONDS
        elif blocked_by is None:
            return Outcome(own, reason=own.reason or "")
        elif blocked_by.state == "claimed":
            time.sleep(max(0.0, min(pause_seconds, deadline.remaining())))
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        else:
            reason = blocked_by.reason or "it is not due yet"
            return Outcome(own, reason=reason if blocked_by.id == own.id else _waits_for(blocked_by, reason))
        turn = Turn(own)
        try:
            turn = outbox.queue.take_turn(own, deadline)
        except HestiaError:  # the file is locked, say; at the deadline that is no more than waiting
            if deadline.remaining() > 0:
                raise
    if turn.claimed is not None:
        outbox.queue.release(turn.claimed, "no time was left to send it", deadline=deadline)
    older = turn.claimed or turn.blocked_by
    if older is None or older.id == turn.own.id:
        return Outcome(turn.own, reason="no time was left to send it")
    return Outcome(turn.own, reason=_waits_for(older, "no time was left"))


def _waits_for(older: Entry, reason: str) -> str:
    return "row {}, an older decision of its thread, is not sent yet: {}".format(older.id, reason)


def flush(
    outbox: Outbox,
    send: Send,
    *,
    service: str,
    hosted: bool,
    timeout_seconds: float,
    unreachable_limit: int = 3,
) -> FlushReport:
    """Send what is due for a service, oldest first, each row once; what is recorded meanwhile is left for the next flush.

    A lane whose row stays queued is not tried further. After `unreachable_limit` rows on end without any answer
    (`ConnectionFailed`, `RequestTimeout`) the flush stops: the service is down for the others too, and a cron job must
    come to an end. It never waits for rows that others hold.

    Args:
        outbox: whose rows.
        send: sends one row; `Delivery` says what is raised.
        service: only the rows recorded for it.
        hosted: only the rows without a tenant, or only those with one.
        timeout_seconds: for each row.
        unreachable_limit: rows without any answer before giving up.
    """
    heads, last_id = outbox.queue.heads(service, hosted)
    heapq.heapify(heads)  # of each lane with anything to send, its oldest row
    counted = {"sent": 0, "duplicate": 0, "dead": 0}
    unanswered = 0
    while heads and unanswered < unreachable_limit:
        first_id, lane = heapq.heappop(heads)
        entry = outbox.queue.claim(lane, first_id, last_id)
        if entry is None:
            continue  # not due; or another flusher holds it, and goes on with the lane once it is sent
        with Delivery(outbox, entry) as delivery:
            delivery.verdict = send(entry, Deadline(timeout_seconds))
        unanswered = unanswered + 1 if isinstance(delivery.error, (ConnectionFailed, RequestTimeout)) else 0
        if delivery.state == "queued":
            continue
        if delivery.verdict is None:
            counted["dead"] += 1
        else:
            counted["duplicate" if delivery.verdict.is_duplicate else "sent"] += 1
        next_id = outbox.queue.head_of(lane)
        if next_id is not None:  # beyond last_id it will not be claimed
            heapq.heappush(heads, (next_id, lane))
    queued, elsewhere = outbox.queue.waiting(service, hosted)
    return FlushReport(queued=queued, elsewhere=elsewhere, **counted)


def told(outbox: Outbox, decision: Decision, sent: Outcome) -> ActionResult:
    """Tell what became of a decision that went through an outbox."""
    entry, verdict = sent.entry, sent.verdict
    if verdict is not None:
        return result_of(entry, verdict.status, entry.attempts, verdict.body, verdict.confirmed)
    if entry.state == "dead":
        raise Conflict(
            "row {} of the outbox {} holds this decision as dead: {}; once its cause is put right, requeue it, or drop"
            " it".format(entry.id, outbox.path, entry.reason),
            request_id=entry.request_id,
            delivered=False,
        )
    if entry.state == "settled":  # sent by another, while this call waited for its turn
        is_ours = entry.request_id == decision.request_id
        return result_of(
            entry, entry.status_code if is_ours else DUPLICATE, entry.attempts, entry.answer, entry.confirmed
        )
    return ActionResult(
        entry.idempotency_key, entry.request_id, None, entry.attempts, extra={"reason": sent.reason or None}
    )
