"""Outbox: decisions durable before they are sent, in one SQLite file that many threads and processes share.

A row is one decision. It is *queued* when recorded, *claimed* while somebody sends it, and ends *settled* (the service has
it) or *dead* (the service refused it). A claim is a lease: while it runs nobody else sends that row, and a killed sender's
row is free again when it has run out. A row belongs to one service and one tenant (or, in hosted mode, to none), and the
rows of one thread id there, its *lane*, go out in the order they were recorded: none is claimed while an older one is queued
or claimed. A dead row does not hold back its lane.

The queue knows nothing of HTTP: flush.py sends what it holds. The payload is in the file in plain text. No API key is ever
written to it.
"""

from __future__ import annotations

import json
import math
import os
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

from .._check import check_seconds
from ..deadline import Deadline
from ..errors import Conflict, HestiaError, IdempotencyConflict, InvalidInput, NotFound
from .rows import (
    OPEN,
    STATES,
    Decision,
    Entry,
    Lane,
    MalformedRow,
    canonical_json,
    check_decision,
    claim,
    find,
    head_id,
    insert,
    move,
    scalar,
    select,
    service_of,
    tail_id,
)

if TYPE_CHECKING:
    import sqlite3

    from .file import OutboxFile

__all__ = ["Outbox"]

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


class Outbox:
    """A durable queue of decisions in one SQLite file; threads, processes and forked children may share it.

    Args:
        path: the file, made with mode 0600 when missing; its folder must exist, and others may write neither. On a local
            disk: SQLite's locks cannot be trusted over a network.
        lease_seconds: how long a claim holds. Longer than the longest call: a lease that runs out lets another
            process send the same decision again (with the same key, so that the service answers 409).
        keep_days: settled rows are forgotten after this time, and with them the check for conflicts on their keys.
        busy_seconds: how long to wait for another program that is writing; a call's own deadline may end it sooner.
        clock: seconds since the epoch.

    Raises:
        HestiaError: with the code ``OUTBOX``, here and from every method: the file cannot be made, opened, read or
            written, is not ours, may be written by others, holds what no outbox writes, or is from a newer version. The
            message names the path and the cure.
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
        self.lease_seconds = check_seconds("lease_seconds", lease_seconds)
        self.keep_days = check_seconds("keep_days", keep_days)
        self._clock = clock
        self._pruned = False
        self._file = _open_file(path, check_seconds("busy_seconds", busy_seconds))
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
                        self.path,
                    )
                )
            return self._turn(connection, own)

    def take_turn(self, own: Entry, deadline: Optional[Deadline] = None) -> Turn:
        """Look at a row again, and claim the oldest of its lane if that is due; only then is anything written."""
        with self._file.transaction(write=False, deadline=deadline) as connection:
            own = self._find(connection, own.id)
            head = self._head(connection, own) if own.is_open else None
            if head is None or not head.is_due(self._now_ms()):
                return Turn(own, blocked_by=head)
        with self._file.transaction(deadline=deadline) as connection:
            return self._turn(connection, self._find(connection, own.id))

    def claim(self, lane: Lane, first_id: int = 0, last_id: int = _LAST_ID) -> Optional[Entry]:
        """Claim the oldest row of a lane. None when there is none within the bounds, it is not due, or somebody has it.

        Due is a row that was never tried or was released, after the service's own ``Retry-After``; and one whose lease
        has run out.
        """
        with self._file.transaction(delivered=False) as connection:
            row_id = head_id(connection, lane)
            if row_id is None or not first_id <= row_id <= last_id:
                return None
            return self._claim(connection, self._find(connection, row_id))

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

    # Lanes

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
            return None if row_id is None else self._find(connection, row_id)

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

    # Looking after the file

    def list(self, states: Optional[Iterable[str]] = None) -> List[Entry]:
        """Give the rows in the order they were recorded; only those in the given states, if any are given."""
        wanted = STATES if states is None else tuple(states)
        for state in wanted:
            if state not in STATES:
                raise InvalidInput("no state {!r}: there are {}".format(state, ", ".join(STATES)))
        with self._file.transaction(write=False) as connection:
            return select(
                connection, "state IN ({}) ORDER BY id".format(", ".join("?" * len(wanted))), wanted
            )

    def get(self, row_id: int) -> Entry:
        """Give one row. `NotFound` when there is none with this id."""
        with self._file.transaction(write=False) as connection:
            return self._find(connection, row_id)

    def counts(self) -> Dict[str, int]:
        """Give the number of rows in each of the four states."""
        with self._file.transaction(write=False) as connection:
            found = dict(connection.execute("SELECT state, COUNT(*) FROM decision GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def drop(self, row_id: int) -> Optional[Entry]:
        """Forget a row for good, and return it as it was, or None for a malformed one.

        Raises:
            NotFound: there is no such row.
            Conflict: somebody is sending it at this moment.
        """
        with self._file.transaction() as connection:
            try:
                entry: Optional[Entry] = self._find(connection, row_id)
            except MalformedRow:
                entry = None
            self._refuse_if_held(entry)
            connection.execute("DELETE FROM decision WHERE id = ?", (row_id,))
        return entry

    def requeue(self, row_id: int) -> bool:
        """Give a dead row another chance, once its cause was put right. False when it is not dead."""
        with self._file.transaction() as connection:
            return self._requeue(connection, self._find(connection, row_id).id)

    def requeue_all(self) -> int:
        """Give every dead row another chance; how many there were."""
        with self._file.transaction() as connection:
            dead = connection.execute("SELECT id FROM decision WHERE state = 'dead'").fetchall()
            return sum(self._requeue(connection, row_id) for (row_id,) in dead)

    def move(self, old_url: str, new_url: str) -> int:
        """Let the rows of a service belong to another: it has moved there. All or, where one is refused, none.

        Args:
            old_url, new_url: two base URLs, or both with the path prefix.

        Returns:
            How many rows were moved.

        Raises:
            Conflict: somebody is sending one of them, or the new service has a row of the same key already.
        """
        old, new = service_of(old_url), service_of(new_url)
        moved = 0
        with self._file.transaction() as connection:
            for entry in select(
                connection, "service = ? OR substr(service, 1, ?) = ?", (old, len(old) + 1, old + "/")
            ):
                self._refuse_if_held(entry)
                service = new + entry.service[len(old) :]
                there = find(connection, (service,) + entry.lane[1:], entry.idempotency_key)
                if there is not None and there.id != entry.id:
                    raise Conflict(
                        "row {} of the outbox {} cannot be moved: row {} has its key there already; drop one of them".format(
                            entry.id, self.path, there.id
                        )
                    )
                connection.execute("UPDATE decision SET service = ? WHERE id = ?", (service, entry.id))
                moved += 1
        return moved

    def prune(self) -> int:
        """Forget the rows settled more than ``keep_days`` ago; how many. The first record or flush does it unasked."""
        with self._file.transaction() as connection:
            return self._prune(connection)

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
        return own if row_id is None or row_id == own.id else self._find(connection, row_id)

    def _claim(self, connection: sqlite3.Connection, entry: Entry) -> Optional[Entry]:
        now_ms = (
            self._now_ms()
        )  # read under the write lock, so that claims are judged in the order they are made
        if not entry.is_due(now_ms):
            return None
        owner = os.urandom(16).hex()  # the claim's own: even this process must not take it for a later one
        return claim(connection, entry, owner, now_ms, math.ceil(self.lease_seconds * 1000))

    def _requeue(self, connection: sqlite3.Connection, row_id: int) -> bool:
        now_ms = self._now_ms()
        return move(connection, "requeue", row_id, now_ms, {"next_attempt_ms": now_ms, "ended_ms": None})

    def _refuse_if_held(self, entry: Optional[Entry]) -> None:
        if entry is not None and entry.is_held(self._now_ms()):
            raise Conflict(
                "row {} of the outbox {} is being sent; try again later".format(entry.id, self.path)
            )

    def _prune(self, connection: sqlite3.Connection) -> int:
        before_ms = self._now_ms() - math.floor(self.keep_days * 86400 * 1000)
        statement = "DELETE FROM decision WHERE state = 'settled' AND ended_ms < ?"
        return connection.execute(statement, (before_ms,)).rowcount

    def _prune_once(self, connection: sqlite3.Connection) -> None:
        if not self._pruned:
            self._prune(connection)
            self._pruned = True

    def _find(self, connection: sqlite3.Connection, row_id: int) -> Entry:
        # A number beyond 64 bits cannot even be asked for.
        found = select(connection, "id = ?", (row_id,)) if 0 < row_id <= _LAST_ID else []
        if not found:
            raise NotFound("there is no row {} in the outbox {}".format(row_id, self.path))
        return found[0]

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _open_file(path: Any, busy_seconds: float) -> OutboxFile:
    try:
        from .file import OutboxFile
    except ImportError as error:  # a Python built without SQLite: everything but an outbox works there
        raise HestiaError(
            "OUTBOX",
            "an outbox needs SQLite, and this Python was built without it ({}); install it, or do without --outbox".format(
                error
            ),
            delivered=False,
        ) from error
    return OutboxFile(path, busy_seconds)
