"""What a batch has done: its rows, what was sent, every result; one SQLite file beside OUT, and the only truth.

A row is committed as sent, on the disk itself, before its first byte leaves: neither a kill nor a loss of power can make it
look unsent. (One transaction for all rows that go out together. Results are on the disk within a second, since one that is
lost leaves its row in doubt, never unsent.) OUT and BAD are made from this file (`output`).

Since SQLite logs ahead, the last commits are in the -wal file beside the journal, and after a kill the two belong together.
That the -wal was lost is noticed: `_LOGGING` is in the main file by a checkpoint whenever there are commits that only the
-wal has, and `_WHOLE` is the first of these, so that a program that folds the -wal in properly brings it along.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import time
from collections import Counter
from typing import Any, Callable, Dict, Generator, Iterator, List, Mapping, Optional, Sequence, Tuple

from .._check import is_encodable
from .._json import dumps
from .._sqlite import Kind, SqliteFile
from ..errors import HestiaError, InvalidInput
from .input import BatchInput, Line
from .rows import (
    AGAIN,
    OUTCOMES,
    REFUSED,
    UNKNOWN,
    BatchResult,
    BatchRow,
    Sending,
    digest,
    error_facts,
    id_key,
)

UNSENT = "unsent"
SENT = "sent"  # or about to be: nobody knows yet what became of it
RETRY_FAILED = (AGAIN, REFUSED)  # what --retry-failed repeats
RETRY_UNKNOWN = (UNKNOWN, SENT)

# A row's state -> the one that it comes from. It is made unsent again by `Store.record`, from sent, where it was certainly not
# executed; and by `Store._forget`, from what is to be repeated.
_BEFORE: Mapping[str, str] = {SENT: UNSENT, **dict.fromkeys(OUTCOMES, SENT)}

_SCHEMA = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    # run: the last one whose input had the row; result: its number in the other table; request_id: it was last sent under
    "CREATE TABLE rows (id TEXT PRIMARY KEY, line INTEGER NOT NULL, digest TEXT NOT NULL, state TEXT NOT NULL,"
    " run INTEGER NOT NULL, result INTEGER, request_id TEXT) WITHOUT ROWID",
    "CREATE TABLE results (number INTEGER PRIMARY KEY, ok INTEGER NOT NULL, text TEXT NOT NULL)",
)


JOURNAL = Kind("journal", "JOURNAL", 0x48_4C_42_6A, 2, _SCHEMA, json.JSONDecodeError)
BAD_DATA = "BAD_DATA"
_LOGGING, _WHOLE = 1, 2
_SET_FACT = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
_BUSY_SECONDS = 0.5  # another run holds it to its end
_DURABLE_SECONDS = 1.0
_CHECKPOINT_BYTES = 8 * 1024 * 1024
_COMMIT_BYTES = 8192  # of the log, at least
_CACHE_KIB = 8192
_SHOWN = 20
_ROWS_AT_ONCE = 16


class Store:
    """The rows of one input and what became of them; used by one thread.

    Args:
        path: the journal; None keeps it in a temporary file that is gone with this process.

    Raises:
        HestiaError: as `SqliteFile` does, code ``JOURNAL``, ``JOURNAL_BUSY`` (another run has it) or ``JOURNAL_DISK``.
    """

    def __init__(self, path: Optional[str]) -> None:
        self.path = path
        self.notices: List[str] = []  # what the user should hear of resuming
        self.run = 1
        self.tally: Counter[str] = Counter()  # how many rows of this input are in each state
        self._file: Any = (
            _Temporary() if path is None else SqliteFile(path, JOURNAL, _BUSY_SECONDS, exclusive=True)
        )
        self._had_log = path is not None and os.path.exists(path + "-wal")
        self._durable_at = time.monotonic()
        self._logged_bytes = 0  # about, since the last `_fold`

    # -- beginning

    def begin(
        self,
        call: str,
        source: BatchInput,
        service: str = "",
        bad: Optional[bytes] = None,
        *,
        repeat: Sequence[str] = (),
        moved: bool = False,
    ) -> None:
        """Take in the whole input, and what earlier runs have left of it: all of it, or nothing where something is wrong.

        Args:
            call: what the rows are given to.
            service: the base URL they are sent to; empty where nothing is to be sent.
            bad: the file of results that are not ok, as bytes relative to the journal's folder; None where there is none.
            repeat: states of finished rows that are to be sent again.
            moved: the service is another than before, and has what was sent to that.

        Raises:
            HestiaError: the journal is of another service or call.
            FaultyInput: the input cannot be sent.
            InvalidInput: rows are no longer what was sent; code ``BAD_DATA``.
        """
        self._call, self._source = call, source
        with self._file.transaction() as db:
            db.execute("PRAGMA cache_size = -{}".format(_CACHE_KIB))
            db.execute("PRAGMA wal_autocheckpoint = 0")  # `_fold` does it, which says so in the main file
            run = _fact(db, "run")
            if run is not None:
                self.run = run + 1
                call_before, service_before = _fact(db, "call"), _fact(db, "service")
                if call_before != call:
                    raise self._file.refuse("its rows were given to {}, not to {}".format(call_before, call))
                if service_before != service and not moved:
                    what = "its rows were sent to {}, not to {}; if that is the same service at a new address, add --moved"
                    raise self._file.refuse(what.format(service_before, service))
            if _fact(db, "mark") == _LOGGING and not self._had_log:
                what = "{}-wal is missing, which held the end of the journal: every row without a result is in doubt"
                self.notices.append(what.format(self.path))
                db.execute("UPDATE rows SET state = ? WHERE state = ?", (SENT, UNSENT))
            facts = {"run": self.run, "call": call, "service": service, "bad": bad}
            db.executemany(_SET_FACT, facts.items())
            self._take_in(db, repeat)
            self._forget(db, repeat)
            self._report_doubts(db)
            (others,) = db.execute("SELECT COUNT(*) FROM rows WHERE run <> ?", (self.run,)).fetchone()
            if others:
                self.notices.append("{}: {} of its rows are not in this input".format(self.path, others))
        self._fold()
        with self._file.transaction(write=False) as db:
            statement = "SELECT state, COUNT(*) FROM rows WHERE run = ? GROUP BY state"
            self.tally.update(dict(db.execute(statement, (self.run,)).fetchall()))

    def _take_in(self, db: sqlite3.Connection, repeat: Sequence[str]) -> None:
        """Note all rows of the input; raises where any is faulty, or no longer what was sent."""
        faults, shown, changed = 0, [], []  # type: int, List[str], List[str]
        for number, row, _ in self._source.lines():
            fault = row if isinstance(row, str) else ""
            if isinstance(row, BatchRow):
                key, content = id_key(row.id), digest(self._call, row)
                found = db.execute(
                    "SELECT line, digest, state, run FROM rows WHERE id = ?", (key,)
                ).fetchone()
                if found is None:
                    new = (key, number, content, UNSENT, self.run)
                    db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, NULL, NULL)", new)
                    continue
                line, before, state, run = found
                if run == self.run:
                    fault = "the id {} is in line {} already".format(key, line)
            if fault:
                faults += 1
                if len(shown) < _SHOWN:
                    shown.append("{} line {}: {}".format(self._source.name, number, fault))
                continue
            if content != before and state not in (UNSENT, *repeat) and len(changed) < _SHOWN:
                changed.append("line {} (id {})".format(number, key))
            values = (number, content, self.run, key)
            db.execute("UPDATE rows SET line = ?, digest = ?, run = ? WHERE id = ?", values)
        if faults:
            raise FaultyInput(self._source.name, faults, shown)
        if changed:
            what = (
                "the input is no longer what was sent: {}; put it back as it was, and give a row that is to be sent in its"
                " new form a new id"
            )
            raise InvalidInput(what.format(", ".join(changed)), code=BAD_DATA)

    def _forget(self, db: sqlite3.Connection, repeat: Sequence[str]) -> None:
        """Make rows of this input unsent that are to be repeated, without their results."""
        for state in repeat:
            db.execute(
                "DELETE FROM results WHERE number IN (SELECT result FROM rows WHERE state = ? AND run = ?)",
                (state, self.run),
            )
            statement = "UPDATE rows SET state = ?, result = NULL WHERE state = ? AND run = ?"
            db.execute(statement, (UNSENT, state, self.run))

    def _report_doubts(self, db: sqlite3.Connection) -> None:
        """Finish the rows that an earlier run sent without learning what became of them."""
        # a table of their own: they may be all there are, and those of the other change as this goes on
        db.execute(
            "CREATE TEMP TABLE doubts AS SELECT id, request_id FROM rows WHERE state = ? ORDER BY line",
            (SENT,),
        )
        for key, request_id in db.execute("SELECT id, request_id FROM doubts"):
            what = "an earlier run sent it and ended before its answer was recorded; it may have taken effect"
            error = HestiaError("OUTCOME_UNKNOWN", what)
            result = BatchResult(json.loads(key), False, None, error_facts(error), 1, request_id=request_id)
            self._finish(db, result)
        db.execute("DROP TABLE doubts")

    # -- while it goes on

    def unsent(self) -> Iterator[BatchRow]:
        """Read the input again, for the rows that are to be sent; raises InvalidInput where it has changed since."""
        left = self.tally[UNSENT]
        lines = self._source.lines()
        while left:
            some = list(itertools.islice(lines, _ROWS_AT_ONCE))
            if not some:
                raise self._source.has_changed()
            with self.reading() as read:
                found = [row for row, state, _ in map(read, some) if state == UNSENT]
            left -= len(found)
            yield from found

    def record(
        self, results: Sequence[BatchResult], unsent: Sequence[Any], rows: Sequence[Sending]
    ) -> List[str]:
        """Record results, ids of rows that were certainly not executed, and rows that are about to be sent.

        Returns:
            The lines of the results; when the rows are on the disk.
        """
        now = time.monotonic()
        is_durable = bool(rows) or now - self._durable_at >= _DURABLE_SECONDS
        with self._file.transaction(durable=is_durable) as db:
            lines = [self._finish(db, result) for result in results]
            take_back = "UPDATE rows SET state = ? WHERE id = ? AND state = ?"
            taken_back = sum(
                db.execute(take_back, (UNSENT, id_key(row_id), SENT)).rowcount for row_id in unsent
            )
            for row, request_id in rows:
                self._move(db, id_key(row.id), SENT, request_id=request_id)
        if is_durable:
            self._durable_at = now
        self.tally.update(result.outcome for result in results)
        self.tally[UNSENT] += taken_back - len(rows)
        self.tally[SENT] += len(rows) - taken_back - len(results)
        self._logged_bytes += _COMMIT_BYTES + sum(map(len, lines))
        if self._logged_bytes >= _CHECKPOINT_BYTES:
            self._fold()
        return lines

    def _finish(self, db: sqlite3.Connection, result: BatchResult) -> str:
        assert result.id is not None  # noqa: S101 - the input was checked: every row has its id
        line = _encodable(result.to_dict())
        number = db.execute("INSERT INTO results VALUES (NULL, ?, ?)", (result.ok, line)).lastrowid
        self._move(db, id_key(result.id), result.outcome, number)
        return line

    def _move(
        self,
        db: sqlite3.Connection,
        key: str,
        state: str,
        result: Optional[int] = None,
        request_id: Optional[str] = None,
    ) -> None:
        statement = "UPDATE rows SET state = ?, result = ?, request_id = ? WHERE id = ? AND state = ?"
        if db.execute(statement, (state, result, request_id, key, _BEFORE[state])).rowcount != 1:
            what = "{}: the row of the id {} was sent before; was it given twice?"
            raise InvalidInput(what.format(self._source.name, key), code=BAD_DATA)

    def _fold(self) -> None:
        """Fold the log into the main file, which says by its mark that there is more to come."""
        self._mark(_LOGGING)
        self._file.checkpoint()
        self._mark(_WHOLE)
        self._logged_bytes = 0

    def _mark(self, mark: int) -> None:
        with self._file.transaction(durable=False) as db:  # a checkpoint writes the log first
            db.execute(_SET_FACT, ("mark", mark))

    # -- what is there

    def results(self, ok: Optional[bool] = None) -> Generator[str, None, None]:
        """The result lines in the order in which they came: all, or only those that are ok, or not."""
        with self._file.transaction(write=False) as db:
            statement = "SELECT text FROM results WHERE ok = ? OR ? IS NULL ORDER BY number"
            for (line,) in db.execute(statement, (ok, ok)):
                yield line

    @contextlib.contextmanager
    def reading(self) -> Iterator[Callable[[Line], Tuple[BatchRow, str, Optional[str]]]]:
        """Within the block, give a line's row, its state and its result line; raise where it is not what was checked."""
        statement = "SELECT digest, state, text FROM rows LEFT JOIN results ON number = result WHERE id = ?"
        with self._file.transaction(write=False) as db:

            def read(line: Line) -> Tuple[BatchRow, str, Optional[str]]:
                row = line.row
                if isinstance(row, BatchRow):
                    found = db.execute(statement, (id_key(row.id),)).fetchone()
                    if found is not None and found[0] == digest(self._call, row):
                        return row, found[1], found[2]
                raise self._source.has_changed(line.number)

            yield read

    def bad(self) -> Optional[bytes]:
        """The BAD of the earlier run, as `begin` took it; None where there was none."""
        with self._file.transaction(write=False) as db:
            path: Optional[bytes] = _fact(db, "bad")
            return path

    @property
    def has_left_nothing(self) -> bool:
        """True while not one row, of this input or another, was sent."""
        with self._file.transaction(write=False) as db:
            return db.execute("SELECT 1 FROM rows WHERE state <> ? LIMIT 1", (UNSENT,)).fetchone() is None

    def close(self, *, remove: bool = False) -> None:
        """Close it, and remove its files where asked to."""
        self._file.close()
        if remove and self.path is not None:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._file.path + suffix)


class FaultyInput(InvalidInput):
    """The input has lines that cannot be sent; the journal was left as it was.

    Attributes:
        shown: what is wrong with the first twenty.
    """

    default_code = BAD_DATA

    def __init__(self, name: str, count: int, shown: List[str]) -> None:
        more = " (the first {} are shown)".format(len(shown)) if count > len(shown) else ""
        super().__init__("{}: {} faulty lines{}; nothing was sent".format(name, count, more))
        self.shown = shown


class _Temporary:
    """Stands for a `SqliteFile` where nothing is to be kept: SQLite's own temporary file, removed with the connection."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")
        for statement in _SCHEMA:
            self._db.execute(statement)

    @contextlib.contextmanager
    def transaction(self, **_: Any) -> Iterator[sqlite3.Connection]:
        try:
            with self._db:
                self._db.execute("BEGIN")
                yield self._db
        except sqlite3.OperationalError as error:  # no room or no right to write where temporary files go
            what = "the temporary file of row ids cannot be used ({}); set TMPDIR".format(error)
            raise HestiaError("JOURNAL_DISK", what, delivered=False) from error

    def checkpoint(self) -> None:
        """Nothing is to be folded."""

    def close(self) -> None:
        self._db.close()


def _fact(db: sqlite3.Connection, name: str) -> Any:
    found = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if found is None else found[0]


def _encodable(value: Dict[str, Any]) -> str:
    """One JSON object on one line; what UTF-8 cannot hold of a service's answer is escaped."""
    line = dumps(value)
    return line if is_encodable(line) else dumps(value, ascii=True)
