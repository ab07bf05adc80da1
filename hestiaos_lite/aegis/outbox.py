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

import os
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Optional, Union

from .._check import check_seconds
from ..errors import Conflict, HestiaError, InvalidInput
from .queue import Queue
from .rows import STATES, Entry, MalformedRow, find, get, move, prune, select, service_of

if TYPE_CHECKING:
    import sqlite3

    from .._sqlite import SqliteFile

__all__ = ["Outbox"]


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
        self.keep_days = check_seconds("keep_days", keep_days, unit="days")
        self._clock = clock
        self._file = _open_file(path, check_seconds("busy_seconds", busy_seconds))
        self.queue = Queue(self._file, lease_seconds=lease_seconds, keep_days=keep_days, clock=clock)
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
            return get(connection, row_id)

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
                entry: Optional[Entry] = get(connection, row_id)
            except MalformedRow:
                entry = None
            self._refuse_if_held(entry)
            connection.execute("DELETE FROM decision WHERE id = ?", (row_id,))
        return entry

    def requeue(self, row_id: int) -> bool:
        """Give a dead row another chance, once its cause was put right. False when it is not dead."""
        with self._file.transaction() as connection:
            return self._requeue(connection, get(connection, row_id).id)

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
            return prune(connection, self._now_ms(), self.keep_days)

    def _requeue(self, connection: sqlite3.Connection, row_id: int) -> bool:
        now_ms = self._now_ms()
        return move(connection, "requeue", row_id, now_ms, {"next_attempt_ms": now_ms, "ended_ms": None})

    def _refuse_if_held(self, entry: Optional[Entry]) -> None:
        if entry is not None and entry.is_held(self._now_ms()):
            raise Conflict(
                "row {} of the outbox {} is being sent; try again later".format(entry.id, self.path)
            )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _open_file(path: Any, busy_seconds: float) -> SqliteFile:
    try:
        from .._sqlite import Kind, SqliteFile
    except ImportError as error:  # a Python built without SQLite: everything but an outbox works there
        raise HestiaError(
            "OUTBOX",
            "an outbox needs SQLite, and this Python was built without it ({}); install it, or do without --outbox".format(
                error
            ),
            delivered=False,
        ) from error
    from .schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION

    kind = Kind("outbox", "OUTBOX", APPLICATION_ID, SCHEMA_VERSION, SCHEMA, MalformedRow)
    return SqliteFile(path, kind, busy_seconds)
