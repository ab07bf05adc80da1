"""Sending decisions: one alone, one of an outbox after the older ones of its partition, or all that is due.

What a failure makes of a row follows from whose fault it is (`HestiaError.at_fault`): the request's own kills the row; the
service's leaves it queued; the caller's (credentials, address, a setting) leaves it queued and goes on to the caller,
since every other row would fail alike.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Iterator, NamedTuple, Optional, Tuple

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
from .answers import DUPLICATE, result_of, send
from .outbox import Claim, Outbox
from .rows import Decision, Entry

if TYPE_CHECKING:
    from ..wire.transport import Caller

__all__ = ["FlushReport"]

_CONFIGURATION = 78  # exit code
_UNANSWERED_LIMIT = 3
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 0.05
_NO_TIME = "no time was left to send it"
_WAITS_FOR = "row {}, an older decision of its thread, has not been sent yet: {}"


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


class SendResult(NamedTuple):
    """What became of one row of the outbox.

    Attributes:
        state: ``settled``, ``queued`` or ``dead``, as it is written down.
        result: what the service said to it, or why it waits; None where another ended it, or it is dead.
        error: why the service did not take it, if it was sent.
    """

    state: str
    result: Optional[ActionResult] = None
    error: Optional[HestiaError] = None


def deliver(outbox: Outbox, caller: Caller, decision: Decision, deadline: Deadline) -> ActionResult:
    """Record a decision, send it after the older ones of its partition as far as the deadline allows, and say what became
    of it.

    Raises:
        Conflict: the outbox holds it as dead.
        HestiaError: the request or the caller is at fault.
    """
    claim = outbox.record(decision, deadline)
    if claim.own.state == "settled":
        return result_of(claim.own, DUPLICATE, 0, claim.own.answer, claim.own.confirmed)
    own, (_, result, error) = send_up_to(outbox, claim, caller, deadline)
    if error is not None and error.at_fault == REQUEST:
        raise error
    if result is not None:
        return result
    if own.state == "dead":
        raise Conflict(
            "row {} of the outbox {} holds this decision as dead: {}; once its cause is fixed, requeue it, or drop"
            " it".format(own.id, outbox.path, own.reason),
            request_id=own.request_id,
            delivered=False,
        )
    # sent by another, while this call waited
    status = own.status_code if own.request_id == decision.request_id else DUPLICATE
    return result_of(own, status, own.attempts, own.answer, own.confirmed)


def deliver_pending(
    outbox: Outbox, caller: Caller, decision: Decision, deadline: Deadline
) -> Optional[Entry]:
    """Send what is pending in the partition of a decision; give the row of its own key where that is pending even then."""
    claim = outbox.claim_up_to_last(decision.partition, deadline)
    if claim is None:
        return None
    send_up_to(outbox, claim, caller, deadline)
    entry = outbox.find(decision.partition, decision.idempotency_key, deadline)
    return entry if entry is not None and entry.is_pending else None


def send_up_to(outbox: Outbox, claim: Claim, caller: Caller, deadline: Deadline) -> Tuple[Entry, SendResult]:
    """Send the pending rows of a partition up to the one that was asked about, as far as the deadline allows.

    While somebody else is sending an older one, it waits: in a partition that many write to, each goes out in its own call.
    Gives that row as it is now, and what became of it in this call.
    """
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        own, entry, blocked_by = claim
        first = entry or blocked_by
        if first is None:
            return own, SendResult(own.state)
        reason = ""
        if deadline.remaining() <= 0:
            reason = _NO_TIME
            if entry is not None:
                outbox.release(entry, reason, deadline=deadline)
        elif entry is not None:
            sent = send_claimed(outbox, entry, caller, deadline, lock_deadline=deadline)
            if entry.id == own.id:
                return own, sent
            reason = str(sent.error) if sent.state == "queued" else ""
            pause_seconds = _FIRST_PAUSE_SECONDS
        elif first.state == "claimed":
            time.sleep(max(0.0, min(pause_seconds, deadline.remaining())))
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        else:
            reason = first.reason or "it is not due yet"
        if reason:
            reason = reason if first.id == own.id else _WAITS_FOR.format(first.id, reason)
            return own, _waits(own, reason)
        try:
            claim = outbox.claim_next(own, deadline)
        except HestiaError:  # the file is locked, say; at the deadline that is no more than waiting
            if deadline.remaining() > 0:
                raise
            return own, _waits(own, _NO_TIME)


def _waits(entry: Entry, reason: str, error: Optional[HestiaError] = None) -> SendResult:
    key, request_id, extra = entry.idempotency_key, entry.request_id, {"reason": reason}
    return SendResult("queued", ActionResult(key, request_id, None, entry.attempts, extra=extra), error)


def send_claimed(
    outbox: Outbox,
    entry: Entry,
    caller: Caller,
    deadline: Deadline,
    *,
    lock_deadline: Optional[Deadline] = None,
) -> SendResult:
    """Send a claimed row, and write down what became of it; that waits for the file's lock until `lock_deadline`, or as
    long as the outbox says.

    Raises:
        HestiaError: the caller is at fault, and the row is queued again; or nothing could be written down, and the lease
            ends the claim.
        BaseException: whatever else interrupts it (a bug, `KeyboardInterrupt`) goes on, with the row queued again.
    """
    try:
        result = send(caller, entry, deadline)
    except HestiaError as error:
        with _not_written_down(str(error)):
            if error.at_fault == REQUEST:
                was_ours = outbox.fail(entry, str(error), error.status, lock_deadline)
                # where the lease had run out and another has it, that one judges it, and a flush is done with its partition
                return SendResult("dead" if was_ours else "queued", None, error)
            outbox.release(entry, str(error), error.retry_after or 0.0, error.status, lock_deadline)
        if error.at_fault == CALLER:
            error.with_facts(
                message="{}; it stays queued in the outbox {}".format(error.message, outbox.path)
            )
            if not isinstance(error, (AuthenticationError, PermissionDenied)):
                error.with_facts(_exit_code=_CONFIGURATION)  # such as a wrong address
            raise
        return _waits(entry, str(error), error)
    except BaseException as error:
        with contextlib.suppress(HestiaError):  # should this fail too, the lease ends the claim
            outbox.release(entry, "interrupted by {}".format(type(error).__name__))
        raise
    with _not_written_down("the service has this decision"):
        outbox.complete(entry, result, lock_deadline)
    return SendResult("settled", replace(result, attempts=entry.attempts))


@contextlib.contextmanager
def _not_written_down(what: str) -> Iterator[None]:
    """Add to the error of an outbox that cannot be written what should have been recorded."""
    try:
        yield
    except HestiaError as error:
        message = "{}; this could not be recorded: {}; it is sent again, under its key"
        error.with_facts(message=message.format(error.message, what))
        raise


def flush(outbox: Outbox, caller: Caller, service: str, *, hosted: bool) -> FlushReport:
    """Send what is due for a service, oldest first in each partition; what is recorded meanwhile is left for the next flush.

    A partition whose row stays queued is not tried further. After three rows on end without any answer
    (`ConnectionFailed`, `RequestTimeout`) the flush stops: the service is down for the others too, and a cron job must
    come to an end. It never waits for rows that others hold.

    Args:
        outbox: whose rows.
        caller: of the service; its timeout is each row's.
        service: only the rows recorded for it.
        hosted: only the rows without a tenant, or only those with one.
    """
    partitions, last_id = outbox.partitions(service, hosted)
    counted = {"sent": 0, "duplicate": 0, "dead": 0}
    unanswered = 0
    for partition in partitions:
        while unanswered < _UNANSWERED_LIMIT:
            entry = outbox.claim_first(partition, last_id)
            if entry is None:
                break  # no more, or not due; or another flusher holds it, and goes on with the partition once it is sent
            state, result, error = send_claimed(outbox, entry, caller, Deadline(caller.timeout_seconds))
            unanswered = unanswered + 1 if isinstance(error, (ConnectionFailed, RequestTimeout)) else 0
            if state == "queued":
                break
            counted["dead" if result is None else "duplicate" if result.duplicate else "sent"] += 1
    queued, elsewhere = outbox.count_pending(service, hosted)
    return FlushReport(queued=queued, elsewhere=elsewhere, **counted)
