"""A SQLite file of ours: trusted, recognised, opened, shared by threads, processes and forks, one transaction at a time.

The outbox and the journal of a batch say what is written; this module answers for where. No sqlite3 exception and no
OSError leaves it: each becomes a `HestiaError` that names the path and the cure, with a code by cause (see `Kind`).

One connection for a `SqliteFile`, and one lock for the process. A connection per thread would gain nothing, since SQLite
lets one writer in at a time, and would leave the connections of ended threads to the garbage collector. The lock is the
process's own because of two traps of POSIX file locks, which belong to the process and not to the connection
(https://www.sqlite.org/howtocorrupt.html, section 2):

- Closing *any* descriptor of a file drops every lock this process holds on it. So the header is read by hand only when no
  connection of ours has the file open.
- SQLite in a forked child takes the parent's locks for its own, even for a connection opened afresh; the write-ahead log
  may then be removed under it, and what it recorded is lost. So every connection is closed before a fork, and each side
  opens its own when it next needs one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pathlib
import sqlite3
import stat
import threading
import time
import weakref
from typing import Any, Iterator, NamedTuple, Optional, Sequence, Tuple, Type

from ._check import others, quoted
from ._redact import pasteable
from .deadline import Deadline
from .errors import HestiaError

_HELD_TOO_LONG = (
    "another program has kept it locked too long; wait for it to end, or look for one that hangs (on a network disk: use a"
    " local one)"
)
_DISK_FULL = "the disk is full; make room and run again"
_DISK_FAILS = "the system refused to read or write; check the disk, quotas and file size limits"
_NOT_WRITABLE = "check the owner and mode of the file and of its folder"
_DAMAGED = (
    "it is damaged; move it away with its -wal and -shm files, and save its rows with 'sqlite3 FILE .recover'"
)
# A word of SQLite's message (Python names the error's number only from 3.11 on), what our code ends with, and the cure.
_CAUSES = (
    ("lock", "_BUSY", _HELD_TOO_LONG),
    ("full", "_DISK", _DISK_FULL),
    ("disk I/O", "_DISK", _DISK_FAILS),
    ("readonly", "", "it cannot be written; " + _NOT_WRITABLE),
    ("unable to open", "", "it cannot be opened; " + _NOT_WRITABLE),
    ("malformed", "", _DAMAGED),
)
_OF_SYSTEM = {errno.ENOSPC: ("_DISK", _DISK_FULL), errno.EIO: ("_DISK", _DISK_FAILS)}  # likewise

_AS_THAT_USER = "run this as that user (sudo -u '#{}'), or "
_LEFT_ALONE = "it was left unchanged: use another path"
# https://www.sqlite.org/fileformat2.html, 1.3 and 3
_HEADER_BYTES = 100
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_SHORT_WAIT_MS = 10
_GRACE_SECONDS = 1.0  # an answer in hand is worth so much beyond the deadline

_gate = threading.RLock()  # held while any connection is used, and by a fork
_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()


class Kind(NamedTuple):
    """What a file of ours is.

    Attributes:
        word: what messages call it, such as ``outbox``.
        code: of its errors: as it is where the file is foreign, damaged, insecure or may not be written, with ``_BUSY``
            where another program keeps it locked too long, with ``_DISK`` where the disk is full or fails.
        application_id: marks the file as ours; SQLite keeps it in the header.
        version: of the schema; a file of another is refused.
        schema: the statements that make its tables and indexes, one each, for executescript() would commit behind our back.
        malformed: what is raised in a transaction where a row holds what we never write; it becomes an error of ours.
    """

    word: str
    code: str
    application_id: int
    version: int
    schema: Sequence[str]
    malformed: Type[Exception]


class SqliteFile:
    """One SQLite file of ours, opened when first needed; it logs ahead (WAL) where the file system can.

    Args:
        path: the file; made with mode 0600 when missing. Its folder must exist, and others may write to neither.
        kind: what it is.
        busy_seconds: how long to wait for other programs that write.
        exclusive: nobody else may use it from the first transaction to `close` (SQLite's exclusive locking mode, which also
            does without shared memory); others get `Kind.code` ``_BUSY``.
    """

    def __init__(self, path: Any, kind: Kind, busy_seconds: float, *, exclusive: bool = False) -> None:
        self._kind = kind
        self._busy_seconds = busy_seconds
        self._exclusive = exclusive
        try:
            self._named = os.path.abspath(os.fsdecode(path))
            # Absolute, so that a later chdir does not matter; real, so that all names of a file share one write-ahead log.
            self.path = os.path.realpath(os.fsdecode(path))
            if "\0" in self.path:  # realpath refuses it or not, as the Python version has it
                raise ValueError("it has a NUL byte")  # noqa: TRY301
        except (TypeError, ValueError) as error:
            what = "{} cannot be the path of the {}: {}".format(quoted(path), kind.word, error)
            raise HestiaError(kind.code, what, delivered=False) from error
        self._connection: Optional[sqlite3.Connection] = None
        self._disconnect: Optional[weakref.finalize[Any, Any]] = None
        self._found: Optional[os.stat_result] = None  # of the file that the connection has open
        self._process_id = 0
        self._logs_ahead = False
        self._read_only = False
        self._closed = False
        with _gate:
            _files.add(self)

    @contextlib.contextmanager
    def transaction(
        self,
        *,
        write: bool = True,
        durable: bool = True,
        delivered: Optional[bool] = None,
        deadline: Optional[Deadline] = None,
    ) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction, on disk before this returns; an exception undoes it.

        Args:
            write: take the write lock.
            durable: False: it may be undone by a loss of power (never by a kill), until a later one that is durable has
                written something; whatever is lost then is lost from the end. Where the file cannot log ahead, all are.
            delivered: goes into the `HestiaError` of a failure: whether the decision at hand reached the service.
            deadline: bounds the wait for others, beside ``busy_seconds``. What may have been delivered is written down, for
                which a little is waited even after it.
        """
        wait_seconds = self._busy_seconds
        if deadline is not None:
            least = 0.0 if delivered is False else min(_GRACE_SECONDS, wait_seconds)
            wait_seconds = max(least, min(wait_seconds, deadline.remaining()))
        with self._connected(wait_seconds, delivered) as (connection, give_up):
            if connection.in_transaction:
                # what failed in here would undo that one, and the interrupted code would go on without it
                what = "a signal handler has interrupted this thread while it used it; use it outside of the handler"
                raise self.refuse(what, delivered, "_BUSY")
            try:
                # With NORMAL a log is written in order and synced by the next FULL commit or checkpoint; a rollback
                # journal might be damaged (https://www.sqlite.org/pragma.html#pragma_synchronous).
                level = "FULL" if durable or not self._logs_ahead else "NORMAL"
                _insist(connection, "PRAGMA synchronous = " + level, give_up)
                _insist(connection, "BEGIN IMMEDIATE" if write else "BEGIN", give_up)
                if not write:
                    # a lock on the file is taken by the first statement only
                    _insist(connection, "SELECT 1 FROM sqlite_master LIMIT 1", give_up)
                yield connection
                _insist(connection, "COMMIT", give_up)
            except BaseException:
                if connection.in_transaction:  # after a full disk SQLite may have undone it already
                    connection.execute("ROLLBACK")
                raise
            finally:
                if self._read_only:  # nothing tells such a connection that somebody else has written
                    self.disconnect()

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the main file, on disk before this returns."""
        with self._connected(self._busy_seconds, None) as (connection, give_up):
            # the first value is 1 where another connection kept it from being done
            while _insist(connection, "PRAGMA wal_checkpoint(TRUNCATE)", give_up):
                if time.monotonic() >= give_up:
                    raise self.refuse(_HELD_TOO_LONG, None, "_BUSY")
                time.sleep(0.001)

    @contextlib.contextmanager
    def _connected(
        self, wait_seconds: float, delivered: Optional[bool]
    ) -> Iterator[Tuple[sqlite3.Connection, float]]:
        """Hold the gate and give the connection, and when to give up; what fails in the block becomes an error of ours."""
        give_up = time.monotonic() + wait_seconds
        is_held = False
        try:  # before the gate is taken: an interrupt in between would leave it to this thread for good
            is_held = _gate.acquire(timeout=wait_seconds)
            if not is_held:
                raise self.refuse(_HELD_TOO_LONG, delivered, "_BUSY")
            yield self._connect(give_up), give_up
        except (sqlite3.Error, OSError, self._kind.malformed) as error:
            raise self._failure(error, delivered) from error
        finally:
            if is_held:
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

    def refuse(self, what: str, delivered: Optional[bool] = False, cause: str = "") -> HestiaError:
        """Build the error that says what is wrong with this file; `cause` is added to its code."""
        message = "{} {}: {}".format(self._kind.word, pasteable(self.path), what)
        return HestiaError(self._kind.code + cause, message, delivered=delivered)

    # Opening

    def _connect(self, give_up: float) -> sqlite3.Connection:
        if self._closed:
            raise self.refuse("it was closed; open it again")
        if self._connection is None:
            self._process_id = os.getpid()
            self._connection = self._open(give_up)
        if self._process_id != os.getpid():
            what = "the process was forked without Python's knowledge; close the {} before the fork"
            raise self.refuse(what.format(self._kind.word))
        if self._found is None or not os.path.samestat(os.stat(self.path), self._found):
            raise self.refuse(
                "the file was replaced while open; end every program that uses it, then run again"
            )
        return self._connection

    def _open(self, give_up: float) -> sqlite3.Connection:
        self._create_or_recognise()
        # mode=rw: should the file vanish now, SQLite must not make one that everybody may read.
        mode = "rw"
        self._read_only = not os.access(self.path, os.W_OK)
        if self._read_only:
            # SQLite needs a write-ahead log even to read, and cannot make one here; where there is none, nobody writes.
            mode = "ro" if os.path.exists(self.path + "-wal") else "ro&immutable=1"
        connection = None
        try:
            connection = sqlite3.connect(
                "{}?mode={}".format(pathlib.Path(self.path).as_uri(), mode),
                timeout=_SHORT_WAIT_MS / 1000,
                isolation_level=None,  # we say BEGIN ourselves: the module's own rules changed in 3.6 and 3.12
                check_same_thread=False,  # the gate sees to that
                uri=True,
            )
            # Also when the file is forgotten unclosed, when the interpreter ends, and when an interrupt strikes here.
            self._disconnect = weakref.finalize(self, connection.close)
            # Text that is not UTF-8 is a malformed row, which is named, rather than a failed statement.
            connection.text_factory = functools.partial(str, encoding="utf-8", errors="surrogateescape")
            self._prepare(connection, give_up)
        except BaseException:
            if connection is not None:
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
            self._refuse_folder_of_others(folder)
        if not os.path.lexists(self.path):  # where nothing may be written, that is said before "it exists"
            with contextlib.suppress(FileExistsError):
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
                os.close(os.open(self.path, flags, 0o600))
        found = self._found = os.lstat(self.path)
        if not stat.S_ISREG(found.st_mode):  # opening a named pipe would wait for ever
            raise self.refuse("this is not a regular file; use another path")
        owner, may_write = others(found)
        if owner:
            what = "it belongs to another user ({}), who could send anything as you; {}use another path"
            raise self.refuse(what.format(owner, _AS_THAT_USER.format(found.st_uid)))
        if may_write:  # such a file decides nothing
            what = "others may write to it, and so send anything in your name; check what it holds, then: chmod go-w {}"
            raise self.refuse(what.format(pasteable(self.path)))
        if any(f._connection and f._found and os.path.samestat(f._found, found) for f in _files):
            return  # recognised before, and closing a descriptor of ours would drop that connection's locks
        with open(self.path, "rb") as stream:
            header = stream.read(_HEADER_BYTES)
        if not header or self._was_being_made(header):
            return
        if not header.startswith(b"SQLite format 3\0"):
            raise self.refuse("this is not an SQLite file, or it is damaged; " + _LEFT_ALONE)
        if int.from_bytes(header[68:72], "big") != self._kind.application_id:
            raise self.refuse("this is another program's SQLite file; " + _LEFT_ALONE)

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
        return journal.startswith(_JOURNAL_MAGIC) and journal[16:20] == bytes(4)  # pages before: none

    def _refuse_folder_of_others(self, folder: str) -> None:
        """Refuse a folder where others could put a file of theirs in our file's place.

        As ssh has it for keys: the folder and all above it belong to this user or to root, and others may not write them.
        Above the folder itself a sticky one, such as /tmp, will do: nobody can move there what is ours.
        """
        real = pathlib.Path(os.path.realpath(folder))
        for path in (real, *real.parents):
            found = os.stat(path)
            shown = pasteable(str(path))
            owner, may_write = others(found)
            if owner:
                what = "its folder {} belongs to another user ({}); {}use a folder of your own"
                raise self.refuse(what.format(shown, owner, _AS_THAT_USER.format(found.st_uid)))
            is_shared = found.st_mode & stat.S_ISVTX  # as /tmp is, and is to stay
            if may_write and not (is_shared and path != real):
                what = "others may write to its folder {}, and so put a file of their own in its place; {}use a folder of your own"
                cure = "" if is_shared else "chmod go-w {} or ".format(shown)
                raise self.refuse(what.format(shown, cure) + " (mkdir -m 700)")

    def _prepare(self, connection: sqlite3.Connection, give_up: float) -> None:
        # exclusive locking first: any other statement may open the log, and then with shared memory
        for pragma in (("locking_mode = EXCLUSIVE",) if self._exclusive else ()) + (
            "synchronous = FULL",
            # macOS: a plain fsync stops at the drive's cache; elsewhere nothing
            "fullfsync = 1",
            # what the file's own schema may call; unknown to SQLite before 3.31, which ignores it
            "trusted_schema = 0",
        ):
            _insist(connection, "PRAGMA " + pragma, give_up)
        version = _insist(connection, "PRAGMA user_version", give_up)
        if version == 0:
            version = self._create(connection, give_up)
        # asked for once more: the header may have been read before another program made the file
        if _insist(connection, "PRAGMA application_id", give_up) != self._kind.application_id:
            raise self.refuse("this is another program's SQLite file; " + _LEFT_ALONE)
        if version != self._kind.version:
            what = "it has schema version {}, and this hestiaos-lite reads version {}; {}, or use the hestiaos-lite that made it"
            raise self.refuse(what.format(version, self._kind.version, _LEFT_ALONE))
        # we make no triggers or views, and they could change what is sent
        statement = "SELECT group_concat(type || ' ' || name, ', ') FROM sqlite_master WHERE type NOT IN ('table', 'index')"
        found = _insist(connection, statement, give_up)
        if found:
            raise self.refuse(
                "it holds what no {} has ({}), and which could change what is sent; find out where it came from, move"
                " it away and start a new one".format(self._kind.word, found)
            )
        # Write-ahead logging is turned on once in a file's life. Where the file system has no shared memory the mode stays
        # as it was, which is as durable, only slower. While another connection reads, SQLite answers "database is locked"
        # at once, whatever its timeout.
        mode = "wal" if self._read_only else _insist(connection, "PRAGMA journal_mode", give_up)
        if mode != "wal":
            mode = _insist(connection, "PRAGMA journal_mode = WAL", give_up)
        self._logs_ahead = bool(mode == "wal")

    def _create(self, connection: sqlite3.Connection, give_up: float) -> Any:
        """Make the tables in one transaction, unless another process was faster; give the version that is there now."""
        _insist(connection, "BEGIN IMMEDIATE", give_up)
        if _insist(connection, "PRAGMA user_version", give_up) == 0:
            for statement in self._kind.schema:
                connection.execute(statement)
            connection.execute("PRAGMA application_id = {}".format(self._kind.application_id))
            connection.execute("PRAGMA user_version = {}".format(self._kind.version))
        _insist(connection, "COMMIT", give_up)
        return _insist(connection, "PRAGMA user_version", give_up)

    def _failure(self, error: Exception, delivered: Optional[bool]) -> HestiaError:
        if isinstance(error, self._kind.malformed):
            return self.refuse(str(error), delivered)
        if isinstance(error, FileNotFoundError):
            folder = os.path.dirname(self.path)
            what = "the file was removed while open; end every program that uses it, then run again"
            if not os.path.isdir(folder):
                what = "its folder does not exist; make it first (mkdir -p {})".format(pasteable(folder))
            return self.refuse(what, delivered)
        if isinstance(error, OSError):
            cause, cure = _OF_SYSTEM.get(error.errno or 0, ("", _NOT_WRITABLE))
            return self.refuse("{}; {}".format(error.strerror or error, cure), delivered, cause)
        text = str(error)
        cause, cure = next((found[1:] for found in _CAUSES if found[0] in text), ("", "SQLite refused"))
        return self.refuse("{} ({})".format(cure, text), delivered, cause)


def _insist(connection: sqlite3.Connection, statement: str, give_up: float) -> Any:
    """Run a statement that needs a lock, waiting for other programs with many short sleeps; return its first value.

    Left to itself SQLite soon looks only ten times a second, and another program that writes without pause has the lock at
    nearly every one of these moments: ten seconds were seen to pass without getting it.
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


# Forks


def _before_fork() -> None:
    _gate.acquire()
    for file in list(_files):
        file.disconnect()


def _after_fork_in_child() -> None:
    global _gate
    _gate = threading.RLock()  # the old one belongs to a thread of the parent


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=lambda: _gate.release(), after_in_child=_after_fork_in_child
    )
