"""The queue of an outbox: a decision is recorded, claimed, and settled, queued again or dead; each in one transaction.

None is claimed while an older one of its lane is queued or claimed. Nothing here knows how a decision is sent.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple, Optional, Tuple

from ..deadline import Deadline
from ..errors import IdempotencyConflict
from .rows import (
    OPEN,
    Decision,
    Entry,
    Lane,
    canonical_json,
    check_decision,
    claim,
    find,
    get,
    head_id,
    insert,
    move,
    prune,
    scalar,
    tail_id,
)

if TYPE_CHECKING:
    import sqlite3

    from .._sqlite import SqliteFile

_MAX_DELAY_SECONDS = 86400.0  # a service that asks for a longer wait is asked again after a day
_REASON_LENGTH = 500  # characters; a reason is read in a list
_LAST_ID = (1 << 63) - 1
_MINE = "service = ? AND (tenant_id = '') = ?"  # the rows of one service and one mode


class Turn(NamedTuple):
    """Whose turn it is in a lane.

    Attributes:
        own: the row that was asked about, as it is now.
        claimed: the oldest row of its lane, now claimed for the caller to send.
        blocked_by: where there is none: the oldest row, which somebody else is sending or which is not due.
    """

    own: Entry
    claimed: Optional[Entry] = None
    blocked_by: Optional[Entry] = None


class Queue:
    """What is to be sent; see `Outbox` for the arguments. The first record or flush forgets what was settled long ago."""

    def __init__(
        self, file: SqliteFile, *, lease_seconds: float, keep_days: float, clock: Callable[[], float]
    ) -> None:
        self._file = file
        self._lease_seconds = lease_seconds
        self._keep_days = keep_days
        self._clock = clock
        self._pruned = False

    # One decision

    def submit(self, decision: Decision, deadline: Optional[Deadline] = None) -> Turn:
        """Write a decision down and claim the oldest row of its lane, in one transaction; both are on disk on return.

        The same key of the same lane, with the same action and payload, gives the row already there, in whatever state: a
        settled one holds the service's answer, and any keeps its first ``request_id``.

        Raises:
            IdempotencyConflict: the key was used for another action or payload.
            InvalidInput: the payload is no JSON object, or a text cannot be sent.
        """
        check_decision(decision)
        text, digest = canonical_json(decision.payload)
        with self._file.transaction(delivered=False, deadline=deadline) as connection:
            self._prune_once(connection)
            own = find(connection, decision.lane, decision.idempotency_key)
            if own is None:
                own = insert(connection, decision, text, digest, self._now_ms())
            elif (own.action, own.payload_digest) != (decision.action, digest):
                raise IdempotencyConflict(
                    "the idempotency key {!r} was used for another {} (row {} of the outbox {})".format(
                        own.idempotency_key,
                        "payload" if own.action == decision.action else "action: " + own.action,
                        own.id,
                        self._file.path,
                    )
                )
            return self._turn(connection, own)

    def take_turn(self, own: Entry, deadline: Optional[Deadline] = None) -> Turn:
        """Look at a row again, and claim the oldest of its lane if that is due; only then is anything written."""
        with self._file.transaction(write=False, deadline=deadline) as connection:
            own = get(connection, own.id)
            head = self._head(connection, own) if own.is_open else None
            if head is None or not head.is_due(self._now_ms()):
                return Turn(own, blocked_by=head)
        with self._file.transaction(deadline=deadline) as connection:
            return self._turn(connection, get(connection, own.id))

    def claim(self, lane: Lane, first_id: int = 0, last_id: int = _LAST_ID) -> Optional[Entry]:
        """Claim the oldest row of a lane. None when there is none within the bounds, it is not due, or somebody has it.

        Due is a row that was never tried or was released, after the service's own ``Retry-After``; and one whose lease
        has run out.
        """
        with self._file.transaction(delivered=False) as connection:
            row_id = head_id(connection, lane)
            if row_id is None or not first_id <= row_id <= last_id:
                return None
            return self._claim(connection, get(connection, row_id))

    def settle(
        self,
        entry: Entry,
        status_code: int,
        answer: Any = None,
        *,
        confirmed: bool = True,
        deadline: Optional[Deadline] = None,
    ) -> bool:
        """Mark a row as in the service's hands, with its answer. False when it was settled before: the first one stays.

        The one move that asks for no lease: the answer proves that the service has the decision. To drop it because
        the lease ran out meanwhile would only make the next owner send it once more.
        """
        now_ms = self._now_ms()
        ended = {
            "ended_ms": now_ms,
            "status_code": status_code,
            "answer": json.dumps(answer, default=str),
            "confirmed": confirmed,
            "reason": None,
        }
        with self._file.transaction(delivered=True, deadline=deadline, settles=True) as connection:
            return move(connection, "settle", entry.id, now_ms, ended)

    def release(
        self,
        entry: Entry,
        reason: str,
        delay_seconds: float = 0.0,
        status_code: Optional[int] = None,
        *,
        deadline: Optional[Deadline] = None,
    ) -> bool:
        """Queue a claimed row again, due after the delay. False when the claim was lost: it is another's row to judge."""
        delay_ms = math.ceil(min(delay_seconds, _MAX_DELAY_SECONDS) * 1000) if delay_seconds > 0 else 0
        now_ms = self._now_ms()
        told = {
            "reason": reason[:_REASON_LENGTH],
            "status_code": status_code,
            "next_attempt_ms": now_ms + delay_ms,
        }
        with self._file.transaction(deadline=deadline, settles=True) as connection:
            return move(connection, "release", entry.id, now_ms, told, guard={"owner": entry.owner})

    def bury(
        self,
        entry: Entry,
        reason: str,
        status_code: Optional[int] = None,
        *,
        deadline: Optional[Deadline] = None,
    ) -> bool:
        """Mark a claimed row as dead, and keep it with the reason. False when the claim was lost."""
        now_ms = self._now_ms()
        told = {"reason": reason[:_REASON_LENGTH], "status_code": status_code, "ended_ms": now_ms}
        with self._file.transaction(delivered=True, deadline=deadline, settles=True) as connection:
            return move(connection, "bury", entry.id, now_ms, told, guard={"owner": entry.owner})

    # What waits

    def heads(self, service: str, hosted: bool) -> Tuple[List[Tuple[int, Lane]], int]:
        """Give the oldest open row of each lane of a service and mode, and the youngest row of them all."""
        oldest = (
            "SELECT MIN(id), service, tenant_id, thread_id FROM decision WHERE {} AND {} GROUP BY 2, 3, 4"  # noqa: S608
        )
        youngest = "SELECT MAX(id) FROM decision WHERE {} AND {}"  # noqa: S608
        with self._file.transaction() as connection:
            self._prune_once(connection)
            found = connection.execute(oldest.format(OPEN, _MINE), (service, hosted)).fetchall()
            last_id = scalar(connection, youngest.format(OPEN, _MINE), (service, hosted))
        return [(row_id, (name, tenant, thread)) for row_id, name, tenant, thread in found], last_id or 0

    def head_of(self, lane: Lane) -> Optional[int]:
        """Give the number of the oldest open row of a lane."""
        with self._file.transaction(write=False) as connection:
            return head_id(connection, lane)

    def youngest_of(self, lane: Lane, deadline: Optional[Deadline] = None) -> Optional[Entry]:
        """Give the youngest open row of a lane."""
        with self._file.transaction(write=False, deadline=deadline) as connection:
            row_id = tail_id(connection, lane)
            return None if row_id is None else get(connection, row_id)

    def find(self, lane: Lane, idempotency_key: str, deadline: Optional[Deadline] = None) -> Optional[Entry]:
        """Give the row of a key."""
        with self._file.transaction(write=False, deadline=deadline) as connection:
            return find(connection, lane, idempotency_key)

    def waiting(self, service: str, hosted: bool) -> Tuple[int, int]:
        """Count the open rows of a service and mode, and those of all others."""
        statement = "SELECT COUNT(*), COALESCE(SUM({}), 0) FROM decision WHERE {}".format(_MINE, OPEN)  # noqa: S608
        with self._file.transaction(write=False) as connection:
            total, mine = connection.execute(statement, (service, hosted)).fetchone()
        return mine, total - mine

    def _turn(self, connection: sqlite3.Connection, own: Entry) -> Turn:
        head = self._head(connection, own) if own.is_open else None
        if head is None:
            return Turn(own)
        claimed = self._claim(connection, head)
        if claimed is None:
            return Turn(own, blocked_by=head)
        return Turn(claimed if claimed.id == own.id else own, claimed)

    def _head(self, connection: sqlite3.Connection, own: Entry) -> Entry:
        row_id = head_id(connection, own.lane)
        return own if row_id is None or row_id == own.id else get(connection, row_id)

    def _claim(self, connection: sqlite3.Connection, entry: Entry) -> Optional[Entry]:
        now_ms = (
            self._now_ms()
        )  # read under the write lock, so that claims are judged in the order they are made
        if not entry.is_due(now_ms):
            return None
        owner = os.urandom(16).hex()  # the claim's own: even this process must not take it for a later one
        return claim(connection, entry, owner, now_ms, math.ceil(self._lease_seconds * 1000))

    def _prune_once(self, connection: sqlite3.Connection) -> None:
        if not self._pruned:
            prune(connection, self._now_ms(), self._keep_days)
            self._pruned = True

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
