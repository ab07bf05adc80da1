"""Which row stands where: the ids of a batch with their lines and states, in a temporary SQLite file.

On disk, so that memory stays flat however many rows there are; exact, where hashes of ids would only almost be. SQLite
makes the file itself, keeps it in its cache while it is small, and removes it with the connection. Nothing in it outlives
the run: it is built from the input, the results and the journal each time.
"""

from __future__ import annotations

import itertools
import sqlite3
from typing import Any, Collection, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import HestiaError

UNSENT = "unsent"
SENT = "sent"  # the journal says it was sent, and no result says what became of it

_SCHEMA = """
CREATE TABLE rows (
    id TEXT PRIMARY KEY,
    line INTEGER NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    sent_digest TEXT,
    place TEXT
) WITHOUT ROWID
"""
_CACHE_KIB = 2048


class Changed(NamedTuple):
    """A row that is no longer what was sent under its id."""

    line: int
    key: str


class RowIndex:
    """The rows of one input by the key of their id (`rows.id_key`)."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # "": a temporary file of SQLite's own
        self._run("PRAGMA journal_mode = OFF")
        self._run("PRAGMA synchronous = OFF")
        self._run("PRAGMA cache_size = -{}".format(_CACHE_KIB))
        self._run("BEGIN")
        self._run(_SCHEMA)

    def close(self) -> None:
        """Remove it."""
        self._db.close()

    def add(self, key: str, line: int, digest: str) -> Optional[int]:
        """Add an unsent row; return the line of an earlier row of this id, which stays, or None."""
        try:
            self._run("INSERT INTO rows VALUES (?, ?, ?, ?, NULL, NULL)", (key, line, digest, UNSENT))
        except sqlite3.IntegrityError:
            return int(self._one("SELECT line FROM rows WHERE id = ?", key)[0])
        return None

    def mark(self, key: str, state: str, place: Optional[str] = None) -> bool:
        """Set a row's state, and in which file its result stands; False when there is no such row."""
        return (
            self._run("UPDATE rows SET state = ?, place = ? WHERE id = ?", (state, place, key)).rowcount == 1
        )

    def mark_sent(self, key: str, digest: Optional[str]) -> bool:
        """Note what was sent under an id; with a digest of None, that it was sent and certainly not executed."""
        state = UNSENT if digest is None else SENT
        changed = self._run("UPDATE rows SET state = ?, sent_digest = ? WHERE id = ?", (state, digest, key))
        return changed.rowcount == 1

    def state(self, key: str) -> Optional[str]:
        """A row's state: `UNSENT`, `SENT` or an outcome; None when there is no such row."""
        row = self._one("SELECT state FROM rows WHERE id = ?", key)
        return None if row is None else str(row[0])

    def digest(self, key: str) -> Optional[str]:
        """The digest of a row's content as it stands in the input."""
        row = self._one("SELECT digest FROM rows WHERE id = ?", key)
        return None if row is None else str(row[0])

    def place(self, key: str) -> Optional[str]:
        """The file in which a row's result stands, or None."""
        row = self._one("SELECT place FROM rows WHERE id = ?", key)
        return None if row is None or row[0] is None else str(row[0])

    def reopen(self, state: str) -> None:
        """Make the rows of one state unsent; `place` still says where their old results stand."""
        self._run("UPDATE rows SET state = ? WHERE state = ?", (UNSENT, state))

    def in_state(self, state: str) -> Iterator[str]:
        """The keys of the rows of one state, in the input's order."""
        # a few at a time by line, since the caller changes states as it goes
        line = -1
        while True:
            found = self._run(
                "SELECT line, id FROM rows WHERE state = ? AND line > ? ORDER BY line LIMIT 1000",
                (state, line),
            ).fetchall()
            if not found:
                return
            yield from (key for _, key in found)
            line = found[-1][0]

    def changed(self, sent_anew: Collection[str], limit: int) -> List[Changed]:
        """The first rows whose content is no longer what was sent, but for those in states that are sent anew."""
        query = "SELECT line, id, state FROM rows WHERE sent_digest <> digest AND state <> ? ORDER BY line"
        found = (
            Changed(line, key) for line, key, state in self._run(query, (UNSENT,)) if state not in sent_anew
        )
        return list(itertools.islice(found, limit))

    def counts(self) -> Dict[str, int]:
        """How many rows are in each state."""
        return dict(self._run("SELECT state, COUNT(*) FROM rows GROUP BY state").fetchall())

    def _run(self, statement: str, values: Tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.OperationalError as error:  # no room or no right to write where temporary files go
            raise HestiaError(
                "BATCH_FILE",
                "the temporary file of row ids cannot be used ({}); set TMPDIR".format(error),
                delivered=False,
            ) from error

    def _one(self, query: str, key: str) -> Any:
        row: Optional[Tuple[Any, ...]] = self._run(query, (key,)).fetchone()
        return row
