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
from typing import Any, Callable, Iterator, Optional, Tuple

from ..deadline import Deadline
from ..errors import HestiaError
from .rows import MalformedRow
from .schema import APPLICATION_ID, SCHEMA_VERSION, create, migrate
from .trust import fault_of_file, fault_of_folder

_HELD_TOO_LONG = "another program has held it too long; wait for it to end, or look for one that hangs"
_CURES = (  # a word of SQLite's message, and what it means to the reader
    ("locked", _HELD_TOO_LONG),
    ("locking", _HELD_TOO_LONG),
    ("full", "the disk is full; make room and run again"),
    ("readonly", "it cannot be written; check the owner and mode of the file and of its folder"),
    ("unable to open", "it cannot be opened; check the owner and mode of the file and of its folder"),
    ("disk I/O", "the system refused to read or write; check the disk, quotas and file size limits"),
    (
        "malformed",
        "it is damaged; move it away with its -wal and -shm files, and save its rows by 'sqlite3 FILE .recover'",
    ),
)

_HEADER_BYTES = 100
_JOURNAL_MAGIC = bytes.fromhex(
    "d9d505f920a163d7"
)  # https://www.sqlite.org/fileformat2.html#the_rollback_journal
_SHORT_WAIT_MS = 10
_SETTLE_SECONDS = 1.0  # an answer in hand is worth so much beyond the deadline

_gate = threading.RLock()  # held by whoever uses any connection, and by a fork
_files: weakref.WeakSet[OutboxFile] = weakref.WeakSet()


class OutboxFile:
    """One SQLite file of ours, opened when first needed.

    Args:
        path: the file; made with mode 0600 when missing. Its folder must exist, and others may write neither.
        busy_seconds: how long to wait for other programs that write.
    """

    def __init__(self, path: Any, busy_seconds: float) -> None:
        try:
            self._named = os.path.abspath(os.fsdecode(path))
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
        self,
        *,
        write: bool = True,
        delivered: Optional[bool] = None,
        deadline: Optional[Deadline] = None,
        settles: bool = False,
    ) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction, on disk before this returns; an exception undoes it.

        Args:
            write: take the write lock.
            delivered: goes into the `HestiaError` of a failure: whether the decision at hand reached the service.
            deadline: bounds the wait for others, beside ``busy_seconds``.
            settles: it writes down what the service said, for which a little is waited even after the deadline.
        """
        wait_seconds = self._busy_seconds
        if deadline is not None:
            least = min(_SETTLE_SECONDS, wait_seconds) if settles else 0.0
            wait_seconds = max(least, min(wait_seconds, deadline.remaining()))
        give_up = time.monotonic() + wait_seconds
        if not _gate.acquire(timeout=wait_seconds):
            raise self.refuse(_HELD_TOO_LONG, delivered)
        try:
            connection = self._connect(give_up)
            try:
                _insist(connection, "BEGIN IMMEDIATE" if write else "BEGIN", give_up)
                if not write:
                    # a lock on the file is taken by the first statement only
                    _insist(connection, "SELECT 1 FROM decision LIMIT 0", give_up)
                yield connection
                _insist(connection, "COMMIT", give_up)
            except BaseException:
                if connection.in_transaction:  # after a full disk SQLite may have undone it already
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError, MalformedRow) as error:
            raise self._failure(error, delivered) from error
        finally:
            _gate.release()

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

    def _connect(self, give_up: float) -> sqlite3.Connection:
        if self._closed:
            raise self.refuse("it was closed; open it again")
        if self._connection is None:
            self._connection = connection = self._open(give_up)
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

    def _open(self, give_up: float) -> sqlite3.Connection:
        self._create_or_recognise()
        # mode=rw: should the file vanish now, SQLite must not make one that everybody may read.
        connection = sqlite3.connect(
            pathlib.Path(self.path).as_uri() + "?mode=rw",
            timeout=_SHORT_WAIT_MS / 1000,
            isolation_level=None,  # we say BEGIN ourselves: the module's own rules changed in 3.6 and 3.12
            check_same_thread=False,  # the gate sees to that
            uri=True,
        )
        try:
            # Text that is not UTF-8 is a malformed row, which is named, rather than a failed statement.
            connection.text_factory = _text
            self._prepare(connection, give_up)
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
        for folder in {os.path.dirname(self._named), os.path.dirname(self.path)}:
            self._refuse_for(fault_of_folder(folder))
        with contextlib.suppress(FileExistsError):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            os.close(os.open(self.path, flags, 0o600))
        found = os.lstat(self.path)
        self._identity = _identity(found)
        if not stat.S_ISREG(found.st_mode):  # opening a named pipe would wait for ever
            raise self.refuse("this is no regular file; name another path")
        self._refuse_for(fault_of_file(found, self.path))
        if any(file._connection is not None and file._identity == self._identity for file in _files):
            return  # recognised before, and closing a descriptor of ours would drop that connection's locks
        with open(self.path, "rb") as stream:
            header = stream.read(_HEADER_BYTES)
        if not header or self._was_being_made(header):
            return
        if not header.startswith(b"SQLite format 3\0"):
            raise self.refuse(
                "this is no SQLite file, or a damaged one; it was left as it is: name another path"
            )
        if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
            raise self.refuse(
                "this is another program's SQLite file; it was left as it is: name another path"
            )

    def _was_being_made(self, header: bytes) -> bool:
        """True for a first page of zeroes beside the journal of an empty file, which SQLite rolls back to an empty file.

        A loss of power in the file's first transaction leaves it.
        """
        if header.strip(b"\0"):
            return False
        try:
            with open(self.path + "-journal", "rb") as stream:
                journal = stream.read(28)
        except OSError:
            return False
        pages_before = journal[16:20]
        return journal.startswith(_JOURNAL_MAGIC) and pages_before == b"\0\0\0\0"

    def _refuse_for(self, fault: str) -> None:
        if fault:
            raise self.refuse(fault)

    def _prepare(self, connection: sqlite3.Connection, give_up: float) -> None:
        for pragma in (
            "synchronous = FULL",
            # macOS: a plain fsync stops at the drive's cache; elsewhere nothing
            "fullfsync = 1",
            # what the file's own schema may call; unknown to SQLite before 3.31, which ignores it
            "trusted_schema = 0",
        ):
            _insist(connection, "PRAGMA " + pragma, give_up)
        version = _insist(connection, "PRAGMA user_version", give_up)
        if version == 0:
            self._change(connection, create, 0, give_up)
        elif version == 1:
            self._refuse_all_but_tables(connection, give_up)
            self._change(connection, migrate, 1, give_up)
        version = _insist(connection, "PRAGMA user_version", give_up)
        if (
            _insist(connection, "PRAGMA application_id", give_up) != APPLICATION_ID
            or version < SCHEMA_VERSION
        ):
            raise self.refuse("this is another program's SQLite file; name another path")
        if version > SCHEMA_VERSION:
            raise self.refuse(
                "it has schema version {}, and this hestiaos-lite knows {}; it was left as it is: upgrade hestiaos-lite"
                " (pip install -U hestiaos-lite) or name another path".format(version, SCHEMA_VERSION)
            )
        self._refuse_all_but_tables(connection, give_up)
        self._switch_to_wal(connection, give_up)

    def _change(
        self,
        connection: sqlite3.Connection,
        change: Callable[[sqlite3.Connection], None],
        version: int,
        give_up: float,
    ) -> None:
        """Change the schema in one transaction, unless another process was faster."""
        _insist(connection, "BEGIN IMMEDIATE", give_up)
        if _insist(connection, "PRAGMA user_version", give_up) == version:
            change(connection)
        _insist(connection, "COMMIT", give_up)

    def _refuse_all_but_tables(self, connection: sqlite3.Connection, give_up: float) -> None:
        """Refuse a file with triggers or views: we make none, and they could turn one decision into another."""
        statement = "SELECT group_concat(type || ' ' || name, ', ') FROM sqlite_master WHERE type NOT IN ('table', 'index')"
        found = _insist(connection, statement, give_up)
        if found:
            raise self.refuse(
                "it holds what no outbox has ({}), and which could turn one decision into another; look where it came"
                " from, move it away and begin a new one".format(found)
            )

    def _switch_to_wal(self, connection: sqlite3.Connection, give_up: float) -> None:
        """Turn write-ahead logging on: for good, so it is done once in a file's life.

        While another connection reads, SQLite answers "database is locked" at once, whatever its timeout. Where the file
        system has no shared memory the mode stays as it was, which is as durable, only slower.
        """
        if _insist(connection, "PRAGMA journal_mode", give_up) != "wal":
            _insist(connection, "PRAGMA journal_mode = WAL", give_up)

    def _failure(self, error: Exception, delivered: Optional[bool]) -> HestiaError:
        if isinstance(error, MalformedRow):
            return self.refuse(str(error), delivered)
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


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _insist(connection: sqlite3.Connection, statement: str, give_up: float) -> Any:
    """Run a statement that needs a lock, waiting for other programs with many short sleeps; return its first value.

    Left to itself SQLite soon looks only ten times a second, and a neighbour that writes without pause has the lock at
    nearly every one of these moments: ten seconds were seen to pass without a turn.
    """
    while True:
        try:
            found = connection.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= give_up:
                raise
            time.sleep(0.001)
        else:
            return found[0][0] if found else None


def _before_fork() -> None:
    _gate.acquire()
    for file in list(_files):
        file.disconnect()


def _after_fork_in_parent() -> None:
    _gate.release()


def _after_fork_in_child() -> None:
    global _gate
    _HEADER_BYTES = 100


_JOURNAL_MAGIC = bytes.fromhex(
    "d9d505f920a163d7"
)  # https://www.sqlite.org/fileformat2.html#the_rollback_journal
_SHORT_WAIT_MS = 10
_SETTLE_SECONDS = 1.0  # an answer in hand is worth so much beyond the deadline

_gate = threading.RLock()  # the old one belongs to a thread of the parent


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
