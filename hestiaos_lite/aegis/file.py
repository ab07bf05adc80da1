"""The SQLite file under an outbox: made, recognised, opened, shared by threads, processes and forks.

`Outbox` (outbox.py) says what is written; this module answers for where. No sqlite3 exception and no OSError leaves it:
each becomes a `HestiaError` with the code ``OUTBOX`` that names the path and the cure.

One connection for an `OutboxFile`, and one lock for the process. A connection per thread would gain nothing, since SQLite
lets one writer in at a time, and would leave the connections of ended threads to the garbage collector. The lock is the
process's own because of two traps of POSIX file locks, which belong to the process and not to the connection:

- Closing *any* descriptor of a file drops every lock this process holds on it. So the header is read by hand only when no
  connection of ours has the file open.
- SQLite in a forked child takes the parent's locks for its own, even for a connection opened afresh; the write-ahead log
  may then be removed under it, and what it recorded is lost. So every connection is closed before a fork, and each side
  opens its own when it next needs one.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import stat
import threading
import time
import weakref
from typing import Any, Iterator, Optional, Tuple

from ..errors import HestiaError
from .rows import APPLICATION_ID, SCHEMA, SCHEMA_VERSION

_CURES = (  # a word of SQLite's message, and what it means to the reader
    ("locked", "another program has held it too long; wait for it to end, or look for one that hangs"),
    ("locking", "another program has held it too long; wait for it to end, or look for one that hangs"),
    ("full", "the disk is full; make room and run again"),
    ("readonly", "it cannot be written; check the owner and mode of the file and of its folder"),
    ("unable to open", "it cannot be opened; check the owner and mode of the file and of its folder"),
    ("disk I/O", "the system refused to read or write; check the disk, quotas and file size limits"),
    (
        "malformed",
        "it is damaged; move it away with its -wal and -shm files, and save its rows by 'sqlite3 FILE .recover'",
    ),
)

_gate = threading.RLock()  # held by whoever uses any connection, and by a fork
_files: weakref.WeakSet[OutboxFile] = weakref.WeakSet()


class OutboxFile:
    """One SQLite file of ours, opened when first needed.

    Args:
        path: the file; made with mode 0600 when missing (an existing file keeps its mode). Its folder must exist.
        busy_seconds: how long to wait for other programs that write.
    """

    def __init__(self, path: Any, busy_seconds: float) -> None:
        try:
            # Absolute, so that a later chdir does not matter; real, so that all names of a file share one write-ahead log.
            self.path = os.path.realpath(os.fsdecode(path))
        except (TypeError, ValueError) as error:
            raise HestiaError(
                "OUTBOX", "{!r} cannot be an outbox: {}".format(path, error), delivered=False
            ) from error
        if "\0" in self.path:  # realpath refuses it or not, as the Python version has it
            raise HestiaError(
                "OUTBOX", "{!r} cannot be an outbox: it has a NUL byte".format(path), delivered=False
            )
        self._busy_seconds = busy_seconds
        self._connection: Optional[sqlite3.Connection] = None
        self._disconnect: Optional[weakref.finalize[Any, Any]] = None
        self._identity: Tuple[int, int] = (0, 0)  # device and inode of the file the connection has open
        self._process_id = 0
        self._closed = False
        with _gate:
            _files.add(self)

    @contextlib.contextmanager
    def transaction(
        self, *, write: bool = True, delivered: Optional[bool] = None
    ) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction, on disk before this returns; an exception undoes it.

        `delivered` goes into the `HestiaError` of a failure: whether the decision at hand reached the service.
        """
        with _gate:
            try:
                connection = self._connect()
                try:
                    if write:
                        self._begin_writing(connection)
                    else:
                        connection.execute("BEGIN")
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:  # after a full disk SQLite may have undone it already
                        connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                raise self._failure(error, delivered) from error

    def close(self) -> None:
        """Close the connection for good. Twice does no harm."""
        with _gate:
            self._closed = True
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection until the next transaction."""
        if self._disconnect is not None:
            self._disconnect()
        self._connection = self._disconnect = None

    def refuse(self, what: str, delivered: Optional[bool] = False) -> HestiaError:
        """Build the error that says what is wrong with this file."""
        return HestiaError("OUTBOX", "outbox {}: {}".format(self.path, what), delivered=delivered)

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise self.refuse("it was closed; open it again")
        if self._connection is None:
            self._connection = connection = self._open()
            self._process_id = os.getpid()
            # Also when the outbox is forgotten unclosed, and when the interpreter ends.
            self._disconnect = weakref.finalize(self, connection.close)
            return connection
        if self._process_id != os.getpid():
            raise self.refuse(
                "the process was forked without Python's knowledge; close the outbox before the fork"
            )
        if _identity(os.stat(self.path)) != self._identity:
            raise self.refuse(
                "the file was replaced while open; end every program that uses it, then run again"
            )
        return self._connection

    def _open(self) -> sqlite3.Connection:
        self._create_or_recognise()
        # mode=rw: should the file vanish now, SQLite must not make one that everybody may read.
        connection = sqlite3.connect(
            pathlib.Path(self.path).as_uri() + "?mode=rw",
            timeout=self._busy_seconds,
            isolation_level=None,  # we say BEGIN ourselves: the module's own rules changed in 3.6 and 3.12
            check_same_thread=False,  # the gate sees to that
            uri=True,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create_or_recognise(self) -> None:
        """Make the file, or make sure that it is ours before SQLite touches it.

        SQLite itself would write into a foreign file merely to look at it: it rolls back a journal, or folds in a
        write-ahead log. The header in the main file can be trusted, because the schema is committed before the file is
        switched to write-ahead logging.
        """
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        found = os.stat(self.path)
        self._identity = _identity(found)
        if not stat.S_ISREG(found.st_mode):  # opening a named pipe would wait for ever
            raise self.refuse("this is no regular file; name another path")
        if any(file._connection is not None and file._identity == self._identity for file in _files):
            return  # recognised before, and closing a descriptor of ours would drop that connection's locks
        with open(self.path, "rb") as stream:
            header = stream.read(100)
        if header and not header.startswith(b"SQLite format 3\0"):
            raise self.refuse(
                "this is no SQLite file, or a damaged one; it was left as it is: name another path"
            )
        if header and int.from_bytes(header[68:72], "big") != APPLICATION_ID:
            raise self.refuse(
                "this is another program's SQLite file; it was left as it is: name another path"
            )

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(
            "PRAGMA fullfsync = 1"
        )  # macOS: a plain fsync stops at the drive's cache; elsewhere nothing
        if _pragma(connection, "user_version") == 0:
            self._begin_writing(connection)
            if _pragma(connection, "user_version") == 0:  # else another process was faster
                for statement in SCHEMA:
                    connection.execute(statement)
            connection.execute("COMMIT")
        version = _pragma(connection, "user_version")
        if _pragma(connection, "application_id") != APPLICATION_ID or version < SCHEMA_VERSION:
            raise self.refuse("this is another program's SQLite file; name another path")
        if version > SCHEMA_VERSION:
            raise self.refuse(
                "it has schema version {}, and this hestiaos-lite knows {}; it was left as it is: upgrade hestiaos-lite"
                " (pip install -U hestiaos-lite) or name another path".format(version, SCHEMA_VERSION)
            )
        self._switch_to_wal(connection)

    def _begin_writing(self, connection: sqlite3.Connection) -> None:
        """Take the write lock, waiting for other programs with many short sleeps.

        Left to itself SQLite soon looks only ten times a second, and a neighbour that writes without pause has the lock at
        nearly every one of these moments: ten seconds were seen to pass without a turn.
        """
        connection.execute("PRAGMA busy_timeout = 10").fetchall()  # milliseconds
        try:
            self._insist(connection, "BEGIN IMMEDIATE")
        finally:
            connection.execute("PRAGMA busy_timeout = {}".format(int(self._busy_seconds * 1000))).fetchall()

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        """Turn write-ahead logging on: for good, so it is done once in a file's life.

        While another connection reads, SQLite answers "database is locked" at once, whatever its timeout. Where the file
        system has no shared memory the mode stays as it was, which is as durable, only slower.
        """
        if _pragma(connection, "journal_mode") != "wal":
            self._insist(connection, "PRAGMA journal_mode = WAL")

    def _insist(self, connection: sqlite3.Connection, statement: str) -> None:
        give_up = time.monotonic() + self._busy_seconds
        while True:
            try:
                connection.execute(statement).fetchall()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= give_up:
                    raise
                time.sleep(0.001)
            else:
                return

    def _failure(self, error: Exception, delivered: Optional[bool]) -> HestiaError:
        if isinstance(error, FileNotFoundError):
            folder = os.path.dirname(self.path)
            what = "the file was removed while open; end every program that uses it, then run again"
            if not os.path.isdir(folder):
                what = "its folder does not exist; make it first (mkdir -p {})".format(folder)
            return self.refuse(what, delivered)
        if isinstance(error, OSError):
            what = "{}; check the owner and mode of the file and of its folder".format(
                error.strerror or error
            )
            return self.refuse(what, delivered)
        text = str(error)
        cure = next((cure for word, cure in _CURES if word in text), "SQLite refused")
        return self.refuse("{} ({})".format(cure, text), delivered)


def _identity(found: os.stat_result) -> Tuple[int, int]:
    return found.st_dev, found.st_ino


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute("PRAGMA " + name).fetchall()[0][0]


def _before_fork() -> None:
    _gate.acquire()
    for file in list(_files):
        file.disconnect()


def _after_fork_in_parent() -> None:
    _gate.release()


def _after_fork_in_child() -> None:
    global _gate
    _gate = threading.RLock()  # the old one belongs to a thread of the parent


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
