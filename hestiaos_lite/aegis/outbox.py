"""Outbox: decisions durable before they are sent, in one SQLite file that many threads and processes share.

A row is one decision. It is *queued* when recorded, *claimed* while somebody sends it, and ends *settled* (the service has
it) or *dead* (the service refused it). A claim is a lease: while it runs nobody else sends that row, and a killed sender's
row is free again when it has run out. A row belongs to one service and one tenant (or, in hosted mode, to none), and the
rows of one thread id there, its *partition*, go out in the order they were recorded: none is claimed while an older one is
queued or claimed. A dead row does not hold back its partition.

The outbox does no HTTP: delivery.py sends what it holds. The payload is in the file in plain text. No API key is
ever written to it. The SQL keeps to what old SQLite knows: partial indexes (3.8, 2013), but no RETURNING and no UPSERT.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

from .._check import check_seconds, check_text, quoted
from ..deadline import Deadline
from ..errors import Conflict, HestiaError, IdempotencyConflict, InvalidInput, NotFound
from .rows import (
    APPLICATION_ID,
    COLUMNS,
    MOVES,
    SCHEMA,
    SCHEMA_VERSION,
    STATES,
    Decision,
    Entry,
    MalformedRow,
    Partition,
    canonical_json,
    entry_of,
    service_of,
)

if TYPE_CHECKING:
    import sqlite3

    from .._sqlite import SqliteFile
    from ..models.aegis import ActionResult

__all__ = ["Outbox"]

_MAX_DELAY_SECONDS = 86400.0  # a service that asks for a longer wait is asked again after a day
_REASON_LENGTH = 500  # characters; a reason is read in a list

_SELECT = "SELECT " + ", ".join(COLUMNS) + " FROM decision WHERE "  # noqa: S608 - our own names
_IN_PARTITION = "service = ? AND tenant_id = ? AND thread_id = ?"
_OF_KEY = _IN_PARTITION + " AND idempotency_key = ?"
_OF_SERVICE = "service = ? AND (tenant_id = '') = ?"  # the rows of one service, hosted or not
_PENDING = "state NOT IN ('settled', 'dead')"  # word for word the condition of decision_open, or SQLite would not use it
_FIRST_PENDING = _IN_PARTITION + " AND " + _PENDING + " AND id <= ? ORDER BY id LIMIT 1"
_LAST_PENDING = _IN_PARTITION + " AND " + _PENDING + " ORDER BY id DESC LIMIT 1"
_PARTITIONS = """
    SELECT service, tenant_id, thread_id FROM decision WHERE {} AND {} GROUP BY 1, 2, 3 ORDER BY MIN(id)
""".format(_OF_SERVICE, _PENDING)  # noqa: S608
_COUNTS = "SELECT COALESCE(SUM({}), 0), COUNT(*) FROM decision WHERE {}".format(_OF_SERVICE, _PENDING)  # noqa: S608
_INSERT = """
    INSERT INTO decision (service, tenant_id, thread_id, idempotency_key, action, payload, payload_digest, request_id,
        state, recorded_ms, changed_ms, next_attempt_ms)
    VALUES (:service, :tenant_id, :thread_id, :idempotency_key, :action, :payload, :payload_digest, :request_id,
        'queued', :now_ms, :now_ms, :now_ms)
"""


class Claim(NamedTuple):
    """What may be sent now of a partition.

    Attributes:
        own: the row that was asked about, as it is now.
        entry: the first pending row of its partition, now claimed for the caller to send.
        blocked_by: where there is none: the first pending row, which somebody else is sending or which is not due.
    """

    own: Entry
    entry: Optional[Entry] = None
    blocked_by: Optional[Entry] = None


class Outbox:
    """A durable queue of decisions in one SQLite file; threads, processes and forked children may share it.

    Args:
        path: the file, made with mode 0600 when missing; its folder must exist, and others may write to neither. On a local
            disk: SQLite's locks cannot be trusted over a network. One that cannot be written can be listed.
        lease_seconds: how long a claim holds. Longer than the longest call: a lease that runs out lets another
            process send the same decision again (with the same key, so that the service answers 409).
        keep_days: settled rows are forgotten after this time, and with them the check for conflicts on their keys.
        busy_seconds: how long to wait for another program that is writing; a call's own deadline may end it sooner.
        clock: seconds since the epoch.

    Raises:
        HestiaError: here and from every method, with the path and the cure: code ``OUTBOX`` where the file cannot be
            made, opened, read or written, is not ours, may be written by others, holds what no outbox writes, or is of
            another version; ``OUTBOX_BUSY`` where another program keeps it locked too long; ``OUTBOX_DISK`` where the disk is
            full or fails.
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
        self.keep_days = check_seconds("keep_days", keep_days, unit="days")
        self._clock = clock
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
        """Close the file. Rows stay; leases run on. Closing twice is harmless."""
        self._file.close()

    # Looking after the file

    def list(self, states: Optional[Iterable[str]] = None) -> List[Entry]:
        """Give the rows in the order they were recorded; only those in the given states, if any are given."""
        wanted = STATES if states is None else tuple(states)
        for state in wanted:
            if state not in STATES:
                raise InvalidInput("no state {}: there are {}".format(quoted(state), ", ".join(STATES)))
        # without the others rather than with these: a malformed row that has a state of its own is named, not left out
        others = [state for state in STATES if state not in wanted]
        where = "state NOT IN ({}) ORDER BY id".format(", ".join("?" * len(others)))
        with self._file.transaction(write=False) as connection:
            return _select(connection, where, others)

    def get(self, row_id: int) -> Entry:
        """Give one row. `NotFound` when no row has this id."""
        with self._file.transaction(write=False) as connection:
            return _get(connection, row_id)

    def counts(self) -> Dict[str, int]:
        """Give the number of rows in each of the four states, and in any that a damaged file has beside them."""
        with self._file.transaction(write=False) as connection:
            found = connection.execute("SELECT state, COUNT(*) FROM decision GROUP BY state").fetchall()
        return dict(dict.fromkeys(STATES, 0), **{str(state): count for state, count in found})

    def drop(self, row_id: int) -> Optional[Entry]:
        """Forget a row for good, and return it as it was, or None for a malformed one.

        Raises:
            NotFound: there is no such row.
            Conflict: somebody is sending it at this moment.
        """
        with self._file.transaction() as connection:
            try:
                entry: Optional[Entry] = _get(connection, row_id)
            except MalformedRow:
                entry = None
            self._refuse_if_held(entry)
            connection.execute("DELETE FROM decision WHERE id = ?", (row_id,))
        return entry

    def requeue(self, row_id: int) -> bool:
        """Give a dead row another chance, once its cause is fixed. False when it is not dead."""
        with self._file.transaction() as connection:
            return self._move(connection, "requeue", _get(connection, row_id).id)

    def requeue_all(self) -> int:
        """Give every dead row another chance; return how many there were."""
        with self._file.transaction() as connection:
            dead = connection.execute("SELECT id FROM decision WHERE state = 'dead'").fetchall()
            return sum(self._move(connection, "requeue", row_id) for (row_id,) in dead)

    def move(self, old_url: str, new_url: str) -> int:
        """Reassign the rows of a service to the address it moved to. All or, if one is refused, none.

        Args:
            old_url, new_url: two base URLs, or both with the path prefix.

        Returns:
            How many rows were moved.

        Raises:
            Conflict: somebody is sending one of them, or the new service has a row of the same key already.
        """
        old, new = service_of(check_text("old_url", old_url)), service_of(check_text("new_url", new_url))
        moved = 0
        with self._file.transaction() as connection:
            below = "service = ? OR substr(service, 1, ?) = ?"
            for entry in _select(connection, below, (old, len(old) + 1, old + "/")):
                self._refuse_if_held(entry)
                service = new + entry.service[len(old) :]
                key = (service, *entry.partition[1:], entry.idempotency_key)
                there = _find(connection, _OF_KEY, key)
                if there is not None and there.id != entry.id:
                    raise Conflict(
                        "row {} of the outbox {} cannot be moved: row {} already has its key there; drop one of"
                        " them".format(entry.id, self.path, there.id)
                    )
                connection.execute("UPDATE decision SET service = ? WHERE id = ?", (service, entry.id))
                moved += 1
        return moved

    def prune(self) -> int:
        """Forget the rows settled more than ``keep_days`` ago; return how many. Each record and flush does it by itself."""
        with self._file.transaction() as connection:
            return self._prune(connection)

    # One decision on its way: private, for delivery.py

    def record(self, decision: Decision, deadline: Deadline) -> Claim:
        """Write a decision down and claim the first pending row of its partition; both are on disk on return.

        The same key of the same partition, with the same action and payload, gives the row already there, in whatever
        state: a settled one holds the service's answer, and any keeps its first ``request_id``.

        Args:
            decision: checked (`Decision.check`).
            deadline: of the call it belongs to, which bounds the wait for the file's lock too.

        Raises:
            IdempotencyConflict: the key was used for another action or payload.
            InvalidInput: the payload is not a JSON object.
        """
        text, digest = canonical_json(decision.payload)
        with self._file.transaction(delivered=False, deadline=deadline) as connection:
            self._prune(connection)
            own = _find(connection, _OF_KEY, (*decision.partition, decision.idempotency_key))
            if own is None:
                values = dict(
                    vars(decision), tenant_id=decision.tenant_id or "", payload=text, payload_digest=digest
                )
                row_id = connection.execute(_INSERT, dict(values, now_ms=self._now_ms())).lastrowid
                own = _get(connection, row_id or 0)
            elif (own.action, own.payload_digest) != (decision.action, digest):
                raise IdempotencyConflict(
                    "the idempotency key {} was used for another {} (row {} of the outbox {})".format(
                        quoted(own.idempotency_key),
                        "payload" if own.action == decision.action else "action: " + own.action,
                        own.id,
                        self.path,
                    )
                )
            return self._claim_for(connection, own)

    def claim_next(self, own: Entry, deadline: Deadline) -> Claim:
        """Look at a row again, and claim the first pending one of its partition if it is due."""
        with self._file.transaction(delivered=False, deadline=deadline) as connection:
            return self._claim_for(connection, _get(connection, own.id))

    def claim_up_to_last(self, partition: Partition, deadline: Deadline) -> Optional[Claim]:
        """Look at the last pending row of a partition likewise; None where there is none."""
        with self._file.transaction(delivered=False, deadline=deadline) as connection:
            last = _find(connection, _LAST_PENDING, partition)
            return None if last is None else self._claim_for(connection, last)

    def claim_first(self, partition: Partition, last_id: int) -> Optional[Entry]:
        """Claim the first pending row of a partition; None when there is none up to this id, or it is not due.

        Due is a row that was never tried or was released, after the service's own ``Retry-After``; and one whose lease
        has run out.
        """
        with self._file.transaction(delivered=False) as connection:
            first = _find(connection, _FIRST_PENDING, (*partition, last_id))
            return None if first is None else self._claim(connection, first)

    def complete(self, entry: Entry, result: ActionResult, deadline: Optional[Deadline] = None) -> bool:
        """Mark a row as in the service's hands, with what it said. False when it was settled before: the first one stays.

        The one move that asks for no lease: the answer proves that the service has the decision. To drop it because
        the lease ran out meanwhile would only make the next owner send it once more.
        """
        text = json.dumps(result.data or None, default=str)
        with self._file.transaction(delivered=True, deadline=deadline) as connection:
            facts = {"status_code": result.status_code, "answer": text, "confirmed": result.confirmed}
            return self._move(connection, "complete", entry.id, **facts)

    def release(
        self,
        entry: Entry,
        reason: str,
        delay_seconds: float = 0.0,
        status_code: Optional[int] = None,
        deadline: Optional[Deadline] = None,
    ) -> bool:
        """Queue a claimed row again, due after the delay. False when the claim was lost: the row is another process's to judge."""
        delay_ms = math.ceil(min(delay_seconds, _MAX_DELAY_SECONDS) * 1000)
        with self._file.transaction(deadline=deadline) as connection:
            facts = {"owner": entry.owner, "reason": reason[:_REASON_LENGTH], "status_code": status_code}
            facts["next_attempt_ms"] = self._now_ms() + delay_ms
            return self._move(connection, "release", entry.id, **facts)

    def fail(
        self, entry: Entry, reason: str, status_code: Optional[int], deadline: Optional[Deadline] = None
    ) -> bool:
        """Mark a claimed row as dead, and keep it with the reason. False when the claim was lost."""
        with self._file.transaction(delivered=True, deadline=deadline) as connection:
            facts = {"owner": entry.owner, "reason": reason[:_REASON_LENGTH], "status_code": status_code}
            return self._move(connection, "fail", entry.id, **facts)

    # What waits: likewise

    def partitions(self, service: str, hosted: bool) -> Tuple[List[Partition], int]:
        """Give the partitions of a service and mode that have anything pending, and the number of the file's last row."""
        with self._file.transaction() as connection:
            self._prune(connection)
            found = connection.execute(_PARTITIONS, (service, hosted)).fetchall()
            (last_id,) = connection.execute("SELECT MAX(id) FROM decision").fetchone()
        return found, last_id or 0

    def find(self, partition: Partition, idempotency_key: str, deadline: Deadline) -> Optional[Entry]:
        """Give the row of a key, or None."""
        with self._file.transaction(write=False, delivered=False, deadline=deadline) as connection:
            return _find(connection, _OF_KEY, (*partition, idempotency_key))

    def count_pending(self, service: str, hosted: bool) -> Tuple[int, int]:
        """Count the pending rows of a service and mode, and those of all others."""
        with self._file.transaction(write=False) as connection:
            mine, total = connection.execute(_COUNTS, (service, hosted)).fetchone()
        return mine, total - mine

    # Within a transaction

    def _claim_for(self, connection: sqlite3.Connection, own: Entry) -> Claim:
        if not own.is_pending:
            return Claim(own)
        first = _find(connection, _FIRST_PENDING, (*own.partition, own.id - 1)) or own
        claimed = self._claim(connection, first)
        if claimed is None:
            return Claim(own, blocked_by=first)
        return Claim(claimed if first is own else own, claimed)

    def _claim(self, connection: sqlite3.Connection, entry: Entry) -> Optional[Entry]:
        now_ms = self._now_ms()  # read under the write lock: claims are judged in the order they are made
        if not entry.is_due(now_ms):
            return None
        lease_until_ms = now_ms + math.ceil(self.lease_seconds * 1000)
        # the owner is the claim's own: even this process must not take it for a later one
        lease: Dict[str, Any] = {"owner": os.urandom(16).hex(), "lease_until_ms": lease_until_ms}
        if not self._move(connection, "claim", entry.id, now_ms=now_ms, attempts=entry.attempts, **lease):
            return None
        return replace(entry, state="claimed", attempts=entry.attempts + 1, changed_ms=now_ms, **lease)

    def _move(self, connection: sqlite3.Connection, name: str, row_id: int, **facts: Any) -> bool:
        """Make one move of `MOVES` by its guarded UPDATE; True when exactly that row was there to be moved."""
        values = dict({"now_ms": self._now_ms(), "id": row_id}, **facts)
        return connection.execute(MOVES[name], values).rowcount == 1

    def _prune(self, connection: sqlite3.Connection) -> int:
        before_ms = self._now_ms() - math.floor(self.keep_days * 86400 * 1000)
        statement = "DELETE FROM decision WHERE state = 'settled' AND ended_ms < ?"
        return connection.execute(statement, (before_ms,)).rowcount

    def _refuse_if_held(self, entry: Optional[Entry]) -> None:
        if entry is not None and entry.is_held(self._now_ms()):
            raise Conflict(
                "row {} of the outbox {} is being sent; try again later".format(entry.id, self.path)
            )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _select(connection: sqlite3.Connection, where: str, values: Any) -> List[Entry]:
    """Read the rows that fulfil a condition (our own text; values are bound). Raises MalformedRow."""
    return [entry_of(found) for found in connection.execute(_SELECT + where, values).fetchall()]


def _find(connection: sqlite3.Connection, where: str, values: Any) -> Optional[Entry]:
    """Read the one row that fulfils a condition; None where there is none."""
    return next(iter(_select(connection, where, values)), None)


def _get(connection: sqlite3.Connection, row_id: int) -> Entry:
    # A number beyond 64 bits cannot even be asked for.
    found = _find(connection, "id = ?", (row_id,)) if 0 < row_id < 1 << 63 else None
    if found is None:
        raise NotFound("there is no row {} in the outbox".format(quoted(row_id)))
    return found


def _open_file(path: Any, busy_seconds: float) -> SqliteFile:
    try:
        from .._sqlite import Kind, SqliteFile
    except ImportError as error:  # a Python built without SQLite: everything but an outbox works there
        raise HestiaError(
            "OUTBOX",
            "an outbox needs SQLite, and this Python was built without it ({}); install SQLite support, or leave out --outbox".format(
                error
            ),
            delivered=False,
        ) from error
    kind = Kind("outbox", "OUTBOX", APPLICATION_ID, SCHEMA_VERSION, SCHEMA, MalformedRow)
    return SqliteFile(path, kind, busy_seconds)
