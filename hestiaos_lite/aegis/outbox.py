"""Outbox: decisions durable before they are sent, in one SQLite file that many threads and processes share.

A row is one decision. It is *queued* when recorded, *claimed* while somebody sends it, and ends *settled* (the service has
it) or *dead* (the service refused it). A claim is a lease: while it runs nobody else sends that row, and a killed sender's
row is free again when it has run out. The rows of one thread id (of one tenant) go out in the order they were recorded:
none is claimed while an older one is queued or claimed. A dead row does not hold back its thread.

The outbox knows nothing of HTTP. What sends is a callable, ``send(row)``, that returns an `Answer` or raises a
`HestiaError`; `deliver` calls it for one claimed row and records the outcome, `flush` does so for all that is due.

The payload stands in the file in plain text. No API key is ever written to it.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import os
import sqlite3
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Union

from ..errors import (
    Conflict,
    ConnectionFailed,
    HestiaError,
    IdempotencyConflict,
    InvalidInput,
    InvalidResponse,
    NotFound,
    RateLimited,
    RequestTimeout,
    ServerError,
)
from .file import OutboxFile
from .rows import OPEN, STATES, Row, canonical_json, check_text, head_id, insert, move, scalar, select

__all__ = ["FlushReport", "Outbox"]

_MAX_DELAY_SECONDS = 86400.0  # a service that asks for a longer wait is asked again after a day
_REASON_LENGTH = 500  # characters; a reason is read in a list


class Answer(NamedTuple):
    """What the service said to a decision: 202 (accepted) or 409 (a duplicate), and the decoded body."""

    status_code: int
    data: Any = None


class Delivery(NamedTuple):
    """How one delivery ended: ``state`` is ``settled`` (with `answer`), or ``queued`` or ``dead`` (with `error`)."""

    state: str
    answer: Optional[Answer] = None
    error: Optional[HestiaError] = None


@dataclass(frozen=True)
class FlushReport:
    """What one flush did, in numbers of rows.

    Attributes:
        sent: accepted by the service.
        duplicate: the service had them already.
        queued: still to be sent after this flush, those that others hold or that are not due yet included.
        dead: refused by the service in this flush; `Outbox.list` gives them with their reasons.
    """

    sent: int = 0
    duplicate: int = 0
    queued: int = 0
    dead: int = 0


Send = Callable[[Row], Answer]


class Outbox:
    """A durable queue of decisions in one SQLite file; threads, processes and forked children may share it.

    Args:
        path: the file, made with mode 0600 when missing; its folder must exist. On a local disk: SQLite's locks
            cannot be trusted over a network.
        lease_seconds: how long a claim holds. Longer than the longest ``send``: a lease that runs out lets another
            process send the same decision again (with the same key, so that the service answers 409).
        keep_days: settled rows are forgotten after this time, and with them the check for conflicts on their keys.
        busy_seconds: how long to wait for another program that is writing.
        clock: seconds since the epoch.

    Raises:
        HestiaError: with the code ``OUTBOX``, here and from every method: the file cannot be made, opened, read or
            written, is not ours, or is from a newer version. The message names the path and the cure.
        InvalidInput: a duration that is not a positive number.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        *,
        lease_seconds: float = 60.0,
        keep_days: float = 30.0,
        busy_seconds: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        durations = {"lease_seconds": lease_seconds, "keep_days": keep_days, "busy_seconds": busy_seconds}
        for name, value in durations.items():
            if not 0 < value < math.inf:
                raise InvalidInput("{} must be a positive number, not {!r}".format(name, value))
        self.lease_seconds = lease_seconds
        self.keep_days = keep_days
        self._clock = clock
        self._pruned = False
        self._file = OutboxFile(path, busy_seconds)
        with self._file.transaction(write=False, delivered=False):
            pass  # a file that cannot be used is refused now, before there is anything to lose

    @property
    def path(self) -> str:
        """The file's real path."""
        return self._file.path

    def __repr__(self) -> str:
        return "Outbox({!r})".format(self.path)

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Rows stay; leases run on. Twice does no harm."""
        self._file.close()

    # One decision

    def record(
        self,
        action: str,
        idempotency_key: str,
        *,
        tenant_id: Optional[str],
        thread_id: str,
        request_id: str,
        payload: Optional[Mapping[str, Any]] = None,
        base_url: str = "",
    ) -> Row:
        """Write a decision down; it is on disk when this returns.

        The same key of the same tenant and thread, with the same action and payload, gives the row already there, in
        whatever state: a settled one holds the service's answer, and any keeps its first ``request_id``. ``base_url`` is
        for the readers of `list` only, since a service may come back at another address.

        Raises:
            IdempotencyConflict: the key stands for another action or payload.
            InvalidInput: the payload is no JSON object, or a text is empty or cannot be encoded.
        """
        named = {
            "action": action,
            "idempotency_key": idempotency_key,
            "thread_id": thread_id,
            "request_id": request_id,
        }
        optional = {"tenant_id": tenant_id, "base_url": base_url}
        for name, value in dict(named, **{name: value for name, value in optional.items() if value}).items():
            check_text(name, value)
        text, digest = canonical_json(payload)
        with self._file.transaction(delivered=False) as connection:
            self._prune_once(connection)
            found = select(
                connection,
                "tenant_id = ? AND thread_id = ? AND idempotency_key = ?",
                (tenant_id or "", thread_id, idempotency_key),
            )
            if found:
                row = found[0]
            else:
                now_ms = self._now_ms()
                row = insert(
                    connection,
                    state="queued",
                    tenant_id=tenant_id or "",
                    base_url=base_url,
                    payload=text,
                    payload_digest=digest,
                    recorded_ms=now_ms,
                    next_attempt_ms=now_ms,
                    **named,
                )
        if (row.action, row.payload_digest) != (action, digest):
            raise IdempotencyConflict(
                "the idempotency key {!r} stands for another {} (row {} of the outbox {})".format(
                    idempotency_key,
                    "payload" if row.action == action else "action: " + row.action,
                    row.id,
                    self.path,
                )
            )
        return row

    def claim(self, row_id: int) -> Optional[Row]:
        """Take a row to send it. None when it has ended, is not due, is held, or an older one of its thread waits.

        Due is a row that was never tried or was released, after the service's own ``Retry-After``; and one whose lease
        has run out. After None `get` tells what the matter is, and ``flush(send, until=row)`` sends the older ones first.
        """
        with self._file.transaction(delivered=False) as connection:
            row = self._find(connection, row_id)
            return self._claim_head(connection, row.tenant_id or "", row.thread_id, row.id, row.id)

    def deliver(self, row: Row, send: Send) -> Delivery:
        """Send a claimed row and record the outcome.

        Settled by an answer. Queued again after a failure that another try may cure: no connection, no answer, 5xx,
        429, an answer that breaks the contract. Dead after any other 4xx, or when it can never be sent.

        Raises:
            BaseException: whatever else `send` raises (a setting at fault, a bug, `KeyboardInterrupt`) goes on to the
                caller, with the row queued again.
        """
        try:
            answer = send(row)
            _check_answer(answer)
        except HestiaError as error:
            # some transports raise what to AEGIS is an answer; the other action under this key is none
            if error.status == 409 and not isinstance(error, IdempotencyConflict):
                answer = Answer(409, error.details)
            else:
                return self._record_failure(row, error)
        except BaseException as error:
            with contextlib.suppress(HestiaError):  # should this fail too, the lease ends the claim
                self.release(row, "interrupted by {}".format(type(error).__name__))
            raise
        self.settle(row, answer.status_code, answer.data)
        return Delivery("settled", answer)

    def _record_failure(self, row: Row, error: HestiaError) -> Delivery:
        state = _state_after(error)
        if state == "dead":
            self.bury(row, str(error), error.status)
        else:
            self.release(row, str(error), error.retry_after or 0.0, error.status)
        if state is None:
            raise error
        return Delivery(state, error=error)

    def settle(self, row: Row, status_code: int, answer: Any = None) -> bool:
        """Mark a row as in the service's hands, with its answer. False when it was settled before: the first one stays.

        The one move that asks for no lease: the answer proves that the service has the decision. To drop it because
        the lease ran out meanwhile would only make the next owner send it once more.
        """
        text = json.dumps(answer, default=str)
        with self._file.transaction(delivered=True) as connection:
            ended = {"ended_ms": self._now_ms(), "status_code": status_code, "answer": text, "reason": None}
            return move(connection, "settle", row.id, ended)

    def release(
        self, row: Row, reason: str, delay_seconds: float = 0.0, status_code: Optional[int] = None
    ) -> bool:
        """Queue a claimed row again, due after the delay. False when the claim was lost: it is another's row to judge."""
        delay_ms = math.ceil(min(delay_seconds, _MAX_DELAY_SECONDS) * 1000) if delay_seconds > 0 else 0
        with self._file.transaction() as connection:
            due_ms = self._now_ms() + delay_ms
            told = {"reason": reason[:_REASON_LENGTH], "status_code": status_code, "next_attempt_ms": due_ms}
            return move(connection, "release", row.id, told, held_by=row.owner)

    def bury(self, row: Row, reason: str, status_code: Optional[int] = None) -> bool:
        """Mark a claimed row as dead, and keep it with the reason. False when the claim was lost."""
        with self._file.transaction(delivered=True) as connection:
            told = {"reason": reason[:_REASON_LENGTH], "status_code": status_code, "ended_ms": self._now_ms()}
            return move(connection, "bury", row.id, told, held_by=row.owner)

    # All that is due

    def flush(self, send: Send, *, until: Optional[Row] = None, unreachable_limit: int = 3) -> FlushReport:
        """Send what is due, oldest first, each row once; what is recorded meanwhile is left for the next flush.

        A thread whose row stays queued is not tried further. After `unreachable_limit` rows on end without any answer
        (`ConnectionFailed`, `RequestTimeout`) the flush stops: the service is down for the others too, and a cron job
        must come to an end. It never waits for rows that others hold.

        Args:
            send: sends one row; see `deliver`, which also says what is raised.
            until: only the thread of this row, up to the row itself.
            unreachable_limit: rows without any answer before giving up.
        """
        scope = OPEN
        values: List[Any] = []
        if until is not None:
            scope += " AND tenant_id = ? AND thread_id = ? AND id <= ?"
            values = [until.tenant_id or "", until.thread_id, until.id]
        with self._file.transaction() as connection:
            self._prune_once(connection)
            oldest = "SELECT MIN(id), tenant_id, thread_id FROM decision WHERE {} GROUP BY 2, 3"  # noqa: S608
            heads = connection.execute(oldest.format(scope), values).fetchall()
            last_id = scalar(connection, "SELECT MAX(id) FROM decision WHERE " + scope, values)  # noqa: S608
        heapq.heapify(heads)  # of each thread with anything to send, its oldest row
        counted = {"sent": 0, "duplicate": 0, "dead": 0}
        unanswered = 0
        while heads and unanswered < unreachable_limit:
            first_id, tenant_id, thread_id = heapq.heappop(heads)
            with self._file.transaction() as connection:
                row = self._claim_head(connection, tenant_id, thread_id, first_id, last_id)
            if row is None:
                continue  # not due; or another flusher holds it, and goes on with the thread once it is sent
            state, answer, error = self.deliver(row, send)
            unanswered = unanswered + 1 if isinstance(error, (ConnectionFailed, RequestTimeout)) else 0
            if state == "queued":
                continue
            if answer is None:
                counted["dead"] += 1
            else:
                counted["duplicate" if answer.status_code == 409 else "sent"] += 1
            with self._file.transaction(write=False) as connection:
                next_id = head_id(connection, tenant_id, thread_id)
            if next_id is not None:  # beyond last_id it will not be claimed
                heapq.heappush(heads, (next_id, tenant_id, thread_id))
        with self._file.transaction(write=False) as connection:
            queued = scalar(connection, "SELECT COUNT(*) FROM decision WHERE " + scope, values)  # noqa: S608
        return FlushReport(queued=queued, **counted)

    # Looking after the file

    def list(self, states: Optional[Iterable[str]] = None) -> List[Row]:
        """Give the rows in the order they were recorded; only those in the given states, if any are given."""
        wanted = STATES if states is None else tuple(states)
        for state in wanted:
            if state not in STATES:
                raise InvalidInput("no state {!r}: there are {}".format(state, ", ".join(STATES)))
        with self._file.transaction(write=False) as connection:
            return select(
                connection, "state IN ({}) ORDER BY id".format(", ".join("?" * len(wanted))), wanted
            )

    def get(self, row_id: int) -> Row:
        """Give one row. `NotFound` when there is none with this id."""
        with self._file.transaction(write=False) as connection:
            return self._find(connection, row_id)

    def counts(self) -> Dict[str, int]:
        """Give the number of rows in each of the four states."""
        with self._file.transaction(write=False) as connection:
            found = dict(connection.execute("SELECT state, COUNT(*) FROM decision GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def drop(self, row_id: int) -> Row:
        """Forget a row for good, and return it as it was: the only way out for a dead one.

        Raises:
            NotFound: there is no such row.
            Conflict: somebody is sending it at this moment.
        """
        with self._file.transaction() as connection:
            row = self._find(connection, row_id)
            if row.lease_until_ms is not None and row.lease_until_ms > self._now_ms():
                raise Conflict(
                    "row {} of the outbox {} is being sent; try again later".format(row_id, self.path)
                )
            connection.execute("DELETE FROM decision WHERE id = ?", (row_id,))
        return row

    def requeue(self, row_id: int) -> bool:
        """Give a dead row another chance, when an expired API key was replaced, say. False when it is not dead."""
        with self._file.transaction() as connection:
            row = self._find(connection, row_id)
            return move(connection, "requeue", row.id, {"next_attempt_ms": self._now_ms(), "ended_ms": None})

    def prune(self) -> int:
        """Forget the rows settled more than ``keep_days`` ago; how many. The first record or flush does it unasked."""
        with self._file.transaction() as connection:
            return self._prune(connection)

    def _prune(self, connection: sqlite3.Connection) -> int:
        before_ms = self._now_ms() - math.floor(self.keep_days * 86400 * 1000)
        statement = "DELETE FROM decision WHERE state = 'settled' AND ended_ms < ?"
        return connection.execute(statement, (before_ms,)).rowcount

    def _prune_once(self, connection: sqlite3.Connection) -> None:
        if not self._pruned:
            self._prune(connection)
            self._pruned = True

    def _find(self, connection: sqlite3.Connection, row_id: int) -> Row:
        # A number beyond 64 bits cannot even be asked for.
        found = select(connection, "id = ?", (row_id,)) if 0 < row_id < 1 << 63 else []
        if not found:
            raise NotFound("there is no row {} in the outbox {}".format(row_id, self.path))
        return found[0]

    def _claim_head(
        self, connection: sqlite3.Connection, tenant_id: str, thread_id: str, first_id: int, last_id: int
    ) -> Optional[Row]:
        """Claim the oldest open row of a thread, if it is due and its id lies within the bounds."""
        oldest_id = head_id(connection, tenant_id, thread_id)
        if oldest_id is None or not first_id <= oldest_id <= last_id:
            return None
        now_ms = (
            self._now_ms()
        )  # read under the write lock, so that claims are judged in the order they are made
        lease = {
            "owner": os.urandom(
                16
            ).hex(),  # the claim's own: even this process must not take it for a later one
            "lease_until_ms": now_ms + math.ceil(self.lease_seconds * 1000),
            "attempts": self._find(connection, oldest_id).attempts + 1,
        }
        due = "(state = 'queued' AND next_attempt_ms <= ?) OR (state = 'claimed' AND lease_until_ms <= ?)"
        claimed = move(connection, "claim", oldest_id, lease, guard=due, guard_values=(now_ms, now_ms))
        return self._find(connection, oldest_id) if claimed else None

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _check_answer(answer: Answer) -> None:
    if answer.status_code // 100 != 2 and answer.status_code != 409:
        raise ValueError("send returned HTTP {}: it must raise the error".format(answer.status_code))


def _state_after(error: HestiaError) -> Optional[str]:
    """Say what a failed delivery makes of its row: ``queued``, ``dead``, or None when the row is not to blame."""
    if isinstance(error, (ConnectionFailed, RequestTimeout, ServerError, RateLimited, InvalidResponse)):
        return "queued"
    if error.status is not None and 400 <= error.status < 500:
        return "dead"
    if isinstance(error, InvalidInput) and error.code != "CONFIGURATION":
        return "dead"  # nothing went out, and nothing ever will: the row itself cannot be put into a request
    return None
