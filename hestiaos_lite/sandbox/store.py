"""The sandbox's state in SQLite: traces, secrets and human-in-the-loop actions.

One connection is shared by all threads behind a lock; every write is one statement in autocommit, so it is done
or not done. In memory the state lives as long as the store; in a file (WAL) it outlives the process.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import Any, List, Mapping, Optional, Sequence, Union

APPLICATION_ID = 0x48534C53  # "HSLS", in the file's header: tells our file from any other SQLite file
SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE traces (trace_id TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE secrets (credential_ref TEXT PRIMARY KEY, secret TEXT NOT NULL);
CREATE TABLE actions (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    action TEXT NOT NULL,
    payload TEXT NOT NULL,
    request_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    accepted_ms INTEGER NOT NULL,
    ready_ms INTEGER NOT NULL,
    UNIQUE (tenant, thread_id, idempotency_key)
);
CREATE INDEX actions_by_request ON actions (request_id);
PRAGMA application_id = {};
PRAGMA user_version = {}
""".format(APPLICATION_ID, SCHEMA_VERSION)

Values = Union[Sequence[Any], Mapping[str, Any]]


class Store:
    """Opens at first use, and again after ``close``; in memory it stays open as long as this object lives.

    Args:
        path: an SQLite file, made readable to its owner alone where there is none; None keeps everything in memory.
    """

    def __init__(self, path: Union[None, str, os.PathLike[str]] = None) -> None:
        self._connection: Optional[sqlite3.Connection] = None
        self._lock = threading.RLock()
        self.path = None if path is None else os.fspath(path)

    def __del__(self) -> None:
        # Python 3.13 warns of a connection that nobody closed. What the collector runs may lose a signal's exception:
        # so no cycle of references may lead here, and this runs when the last name of the sandbox goes.
        if self._connection is not None:
            self._connection.close()

    def open(self) -> sqlite3.Connection:
        """The connection. Raises ValueError naming a file that cannot be opened, is foreign or of another version."""
        with self._lock:
            if self._connection is None:
                self._connection = _connect(self.path)
            return self._connection

    def close(self) -> None:
        """Close the file. A store in memory would lose its state, so it is left as it is."""
        with self._lock:
            if self.path is not None and self._connection is not None:
                self._connection.close()
                self._connection = None

    def write(self, statement: str, values: Values) -> int:
        """Run one writing statement; the number of rows it changed."""
        with self._lock:
            return self.open().execute(statement, values).rowcount

    def read(self, statement: str, values: Values) -> List[sqlite3.Row]:
        with self._lock:
            return self.open().execute(statement, values).fetchall()


def _connect(path: Optional[str]) -> sqlite3.Connection:
    place, connection = ":memory:" if path is None else path, None
    try:
        if path is not None:
            _make_private(path)
        connection = sqlite3.connect(place, timeout=10.0, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        # in memory there is no other journal, and this no error
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")  # two sandboxes on one new file must not both create the tables
        _adopt(connection)
        connection.execute("COMMIT")
    except (sqlite3.Error, OSError, ValueError) as error:
        if connection is not None:
            connection.close()
        raise ValueError("sandbox database {}: {}".format(place, error)) from error
    return connection


def _make_private(path: str) -> None:
    """Create the file where there is none; it holds secrets, and SQLite would let others read it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # Not opened here: closing it again would drop the locks of another sandbox in this process.
        if os.path.islink(path):
            raise OSError("it is a symbolic link; give the file itself") from None


def _adopt(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database; refuse one that is not ours or of a version we do not know."""
    counts = "PRAGMA application_id", "PRAGMA user_version", "SELECT COUNT(*) FROM sqlite_master"
    application_id, version, tables = (connection.execute(count).fetchone()[0] for count in counts)
    if not (application_id or version or tables):
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
    elif application_id != APPLICATION_ID:
        raise ValueError("this SQLite file is not a sandbox's; use another file")
    elif version != SCHEMA_VERSION:
        raise ValueError("its schema version is {}, not {}; use another file".format(version, SCHEMA_VERSION))
