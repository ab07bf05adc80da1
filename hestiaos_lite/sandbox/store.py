"""The sandbox's state in SQLite: traces, secrets and human-in-the-loop actions.

One connection is shared by all threads behind a lock; every write is one statement in autocommit, so it is done
or not done. In memory the state lives as long as the store; in a file (WAL) it outlives the process.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

APPLICATION_ID = 0x48534C53  # "HSLS", in the file's header: tells our file from any other SQLite file
SCHEMA_VERSION = 2

Values = Union[Tuple[Any, ...], Dict[str, Any]]

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

# Uniqueness of (tenant, thread, key) is the table's UNIQUE constraint and the quota a condition of the same INSERT,
# so no two callers can both read that theirs was accepted, in whatever thread or process.
_ADD_ACTION = """
INSERT OR IGNORE INTO actions
    (tenant, thread_id, idempotency_key, action, payload, request_id, outcome, accepted_ms, ready_ms)
SELECT :tenant, :thread_id, :idempotency_key, :action, :payload, :request_id, :outcome, :now_ms, :now_ms + :delay_ms
WHERE :quota IS NULL OR (SELECT COUNT(*) FROM actions WHERE tenant = :tenant) < :quota
"""
_ACTIONS = """
SELECT tenant, thread_id, idempotency_key, action, payload, request_id, accepted_ms,
    CASE WHEN ready_ms <= :now_ms THEN outcome ELSE 'PENDING' END AS status
FROM actions
"""


class Store:
    """Opens at first use, and again after ``close``; in memory it stays open until it is collected.

    Args:
        path: an SQLite file, made readable to its owner alone where there is none; None keeps everything in memory.
    """

    _connection: Optional[sqlite3.Connection] = None

    def __init__(self, path: Union[None, str, os.PathLike[str]] = None) -> None:
        self.path = None if path is None else os.fspath(path)
        self._lock = threading.Lock()

    def __del__(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def open(self) -> None:
        """Open now. Raises ValueError naming a file that cannot be opened, is foreign or is newer."""
        with self._lock:
            self._opened()

    def close(self) -> None:
        """Close the file. A store in memory would lose its state, so it is left as it is."""
        with self._lock:
            if self.path is not None and self._connection is not None:
                self._connection.close()
                self._connection = None

    # -- traces

    def add_trace(self, trace_id: str, document: Dict[str, Any]) -> None:
        self._write("INSERT INTO traces VALUES (?, ?)", (trace_id, json.dumps(document)))

    def trace(self, trace_id: str) -> Optional[Dict[str, Any]]:
        rows = self._read("SELECT document FROM traces WHERE trace_id = ?", (trace_id,))
        return dict(json.loads(rows[0][0])) if rows else None

    # -- secrets

    def set_secret(self, credential_ref: str, secret: str) -> None:
        self._write("INSERT OR REPLACE INTO secrets VALUES (?, ?)", (credential_ref, secret))

    def secret(self, credential_ref: str) -> Optional[str]:
        rows = self._read("SELECT secret FROM secrets WHERE credential_ref = ?", (credential_ref,))
        return rows[0][0] if rows else None

    def delete_secret(self, credential_ref: str) -> bool:
        """True when there was one."""
        return self._write("DELETE FROM secrets WHERE credential_ref = ?", (credential_ref,)) == 1

    # -- human-in-the-loop actions

    def add_action(self, action: Mapping[str, Any], delay_seconds: float, quota: Optional[int]) -> bool:
        """Accept an action once: True, or False when the key is taken or the tenant's quota is used up.

        Args:
            action: tenant, thread_id, idempotency_key, action, payload, request_id, and outcome, its status once
                the delay is over.
        """
        times = {"now_ms": _now_ms(), "delay_ms": int(delay_seconds * 1000)}
        values = dict(action, payload=json.dumps(action["payload"]), quota=quota, **times)
        return self._write(_ADD_ACTION, values) == 1

    def action_by_key(self, tenant: str, thread_id: str, idempotency_key: str) -> Optional[Dict[str, Any]]:
        condition = "WHERE tenant = :tenant AND thread_id = :thread_id AND idempotency_key = :key"
        found = self._actions(condition, tenant=tenant, thread_id=thread_id, key=idempotency_key)
        return found[0] if found else None

    def action_by_request(self, request_id: str, tenant: Optional[str] = None) -> Optional[Dict[str, Any]]:
        """The newest action of that request id, of any tenant unless one is given."""
        condition = "WHERE request_id = :request_id AND (:tenant IS NULL OR tenant = :tenant) ORDER BY id DESC LIMIT 1"
        found = self._actions(condition, request_id=request_id, tenant=tenant)
        return found[0] if found else None

    def actions(self) -> List[Dict[str, Any]]:
        """Every action, oldest first."""
        return self._actions("ORDER BY id")

    def _actions(self, condition: str, **values: Any) -> List[Dict[str, Any]]:
        found = [dict(row) for row in self._read(_ACTIONS + condition, dict(values, now_ms=_now_ms()))]
        for action in found:
            action["payload"] = json.loads(action["payload"])
        return found

    # -- SQLite

    def _write(self, statement: str, values: Values) -> int:
        """Run one writing statement; the number of rows it changed."""
        with self._lock:
            return self._opened().execute(statement, values).rowcount

    def _read(self, statement: str, values: Values) -> List[sqlite3.Row]:
        with self._lock:
            return self._opened().execute(statement, values).fetchall()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connect(self.path)
        return self._connection


def _connect(path: Optional[str]) -> sqlite3.Connection:
    place = path or ":memory:"
    try:
        if path is not None:
            _make_private(path)
        connection = sqlite3.connect(place, timeout=10.0, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
    except (sqlite3.Error, OSError) as error:
        raise ValueError("sandbox database {}: {}".format(place, error)) from error
    try:
        if path is not None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")  # two sandboxes on one new file must not both create the tables
        _adopt(connection)
        connection.execute("COMMIT")
    except (sqlite3.Error, ValueError) as error:
        connection.close()
        raise ValueError("sandbox database {}: {}".format(place, error)) from error
    return connection


def _make_private(path: str) -> None:
    """Create the file where there is none; it holds secrets, and SQLite would let others read it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600))
    except FileExistsError:
        # Not opened here: closing it again would drop the locks of another sandbox in this process.
        if os.path.islink(path):
            raise OSError("it is a symbolic link; give the file itself") from None


def _adopt(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database; refuse one that is not ours or of a version we do not know."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if not (application_id or version or tables):
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
    elif application_id != APPLICATION_ID:
        raise ValueError("this SQLite file is not a sandbox's; use another file")
    elif version != SCHEMA_VERSION:
        raise ValueError("its schema version is {}, not {}; use another file".format(version, SCHEMA_VERSION))


def _now_ms() -> int:
    return int(time.time() * 1000)
