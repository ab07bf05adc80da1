"""The file layer under the outbox and a batch's journal: durability, forks, one program at a time, files not to be written."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from hestiaos_lite import HestiaError, _sqlite
from hestiaos_lite._sqlite import Kind, SqliteFile

from .aegis.kit import finished, started

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")
NOTES = Kind("notes", "NOTES", 0x4E4F5445, 3, ["CREATE TABLE note (text TEXT NOT NULL)"], KeyError)
SETUP = """
    import ctypes, os, sys, threading
    from hestiaos_lite import HestiaError
    from hestiaos_lite._sqlite import Kind, SqliteFile

    def write(text):
        with file.transaction() as connection:
            connection.execute("INSERT INTO note VALUES (?)", (text,))

    kind = Kind("notes", "NOTES", 0x4E4F5445, 3, ["CREATE TABLE note (text TEXT NOT NULL)"], KeyError)
    file = SqliteFile(sys.argv[1], kind, busy_seconds=5)
    write("before")
"""


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "notes.db"


@contextlib.contextmanager
def opened(path: Path, kind: Kind = NOTES, **options):
    file = SqliteFile(path, kind, busy_seconds=options.pop("busy_seconds", 5.0), **options)
    try:
        yield file
    finally:
        file.close()


def write(file: SqliteFile, text: str, **options) -> None:
    with file.transaction(**options) as connection:
        connection.execute("INSERT INTO note VALUES (?)", (text,))


def read(file: SqliteFile) -> list:
    with file.transaction(write=False) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY rowid")]


def written(path: Path) -> list:
    """What another program sees in the file."""
    with contextlib.closing(sqlite3.connect(str(path))) as other:
        return [text for (text,) in other.execute("SELECT text FROM note ORDER BY rowid")]


def test_what_a_transaction_does_is_done_whole_or_not_at_all(path):
    with opened(path) as file:
        write(file, "one")
        with pytest.raises(RuntimeError), file.transaction() as connection:
            connection.execute("INSERT INTO note VALUES ('two')")
            raise RuntimeError
        with pytest.raises(HestiaError, match="notes .*notes.db: 'row 7'") as caught:
            with file.transaction(delivered=True):
                raise KeyError("row 7")
        assert (caught.value.code, caught.value.delivered) == ("NOTES", True)
        assert read(file) == written(path) == ["one"]


def test_a_signal_handler_in_the_middle_of_a_transaction_is_refused_and_does_not_undo_it(path):
    with opened(path) as file:
        with file.transaction() as connection:
            connection.execute("INSERT INTO note VALUES ('one')")
            for may_write in (True, False):  # as a handler may that strikes here
                with pytest.raises(HestiaError, match="a signal handler has interrupted") as caught:
                    with file.transaction(write=may_write, delivered=False):
                        raise AssertionError("not reached")
                assert (caught.value.code, caught.value.effect) == ("NOTES_BUSY", "none")
        assert read(file) == ["one"]


def test_each_transaction_says_whether_it_waits_for_the_disk(path):
    """NORMAL with a write-ahead log syncs nothing until a checkpoint: https://www.sqlite.org/pragma.html#pragma_synchronous."""
    with opened(path) as file:
        seen = []
        for durable in (True, False, False, True):
            with file.transaction(durable=durable) as connection:
                seen.append(connection.execute("PRAGMA synchronous").fetchone()[0])
        assert (seen, connection.execute("PRAGMA journal_mode").fetchone()) == ([2, 1, 1, 2], ("wal",))


def test_a_rollback_journal_is_always_synced(path):
    """With NORMAL it could be damaged by a loss of power."""
    with opened(path) as file:
        write(file, "one")
        file._logs_ahead = False  # as on a file system without shared memory, which is hard to come by
        with file.transaction(durable=False) as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_where_the_file_cannot_log_ahead_a_reader_waits_for_a_writer(path):
    with opened(path) as file:
        write(file, "one")
        with file.transaction(write=False) as connection:
            pass
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
        other = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(0.3, other.execute, ["COMMIT"])
        timer.start()
        assert read(file) == ["one"]
        timer.join()
        other.close()


def test_a_checkpoint_leaves_all_in_the_main_file(path, tmp_path):
    with opened(path) as file:
        for n in range(3):
            write(file, str(n), durable=False)
        file.checkpoint()
        copy = tmp_path / "copy.db"
        copy.write_bytes(path.read_bytes())
        assert written(copy) == ["0", "1", "2"]


def test_a_checkpoint_waits_for_a_reader_and_then_gives_up(path):
    with opened(path, busy_seconds=0.2) as file, contextlib.closing(sqlite3.connect(str(path))) as other:
        write(file, "one")
        other.execute("BEGIN")
        other.execute("SELECT * FROM note").fetchall()
        write(file, "two")
        with pytest.raises(HestiaError, match="locked too long") as caught:
            file.checkpoint()
        assert caught.value.code == "NOTES_BUSY"
        other.execute("ROLLBACK")
        file.checkpoint()


def test_an_exclusive_file_is_one_programs_until_it_is_closed(path):
    with opened(path, exclusive=True) as file:
        write(file, "one")
        for exclusive in (True, False):
            with opened(path, exclusive=exclusive, busy_seconds=0.1) as other:
                with pytest.raises(HestiaError, match="locked too long") as caught:
                    read(other)
                assert caught.value.code == "NOTES_BUSY"
        assert read(file) == ["one"]
    with opened(path, exclusive=True) as file:
        assert read(file) == ["one"]
        assert not os.path.exists(str(path) + "-shm")  # no shared memory, when it is opened again either


def test_a_file_of_another_kind_that_this_process_has_open_is_refused(path):
    """Its header is not read by hand then: closing that descriptor would drop the connection's locks."""
    with opened(path) as file, opened(path, NOTES._replace(word="songs", application_id=7)) as other:
        write(file, "one")
        with pytest.raises(HestiaError, match="songs .* another program's SQLite file"):
            read(other)


# A file that cannot be written


READ_ONLY = """
import sys
from tests.test_sqlite import HestiaError, opened, read, write
with opened(sys.argv[1]) as file:
    for line in sys.stdin:
        print(read(file), flush=True)
    try:
        write(file, "three")
    except HestiaError as error:
        print(error.code, error.delivered, error.message)
"""


@posix_only
@pytest.mark.parametrize("has_log", [False, True])
def test_a_read_only_mount_can_be_read_and_changes_are_seen(path, has_log):
    """A plain connection could not read it: SQLite makes a write-ahead log even to read."""
    mount = "mount --bind {0} {0} && mount -o remount,ro,bind {0}".format(path.parent)
    if subprocess.call(["unshare", "-m", "sh", "-c", mount], stderr=subprocess.DEVNULL) != 0:
        pytest.skip("may not mount")
    command = [
        "unshare",
        "-m",
        "sh",
        "-c",
        mount + ' && exec "$0" -c "$1" "$2"',
        sys.executable,
        READ_ONLY,
        str(path),
    ]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    home = str(Path(__file__).parent.parent)
    with opened(path) as file:
        texts = ["zero"]
        write(file, "zero")
        with subprocess.Popen(command, cwd=home, universal_newlines=True, **pipes) as process:
            for text in ("one", "two"):
                write(file, text)
                if not has_log:
                    file.disconnect()  # the last one out folds the log in
                process.stdin.write("\n")
                process.stdin.flush()
                texts.append(text)
                assert process.stdout.readline() == repr(texts) + "\n"
            out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.startswith("NOTES None notes {}: it cannot be written".format(path))


@pytest.mark.parametrize(
    ("name", "shown"),
    [("plain.db", "{}/plain.db"), ("a b.db", "'{}/a b.db'"), ("a\udcff'.db", "$'{}/a\\xff\\x27.db'")],
)
@posix_only
def test_a_path_is_shown_as_a_shell_reads_it(tmp_path, name, shown):
    path = tmp_path / name
    os.mkdir(os.fsencode(str(path)))
    with opened(path) as file, pytest.raises(HestiaError) as caught:
        read(file)
    shown = shown.format(tmp_path)
    assert str(caught.value).startswith("[NOTES] notes {}: this is not a regular file".format(shown))
    command = ["bash", "-c", "cd {} && pwd".format(shown)]
    assert subprocess.check_output(command) == os.fsencode(str(path)) + b"\n"


# Forks


@posix_only
def test_a_fork_without_pythons_knowledge_is_noticed(path):
    """What C code forks has the parent's connection, and would take the parent's locks for its own."""
    code = """
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        try:
            write("child")
        except HestiaError as error:
            print(error.code, error.message, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    write("parent")
    """
    out = finished(started(SETUP + code, path))
    assert out == (
        "NOTES notes {}: the process was forked without Python's knowledge; close the notes before the fork\n"
    ).format(path)
    assert written(path) == ["before", "parent"]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="older Pythons close what is forgotten without a word")
def test_an_interrupt_at_any_line_leaves_no_connection_to_the_collector(path):
    interrupts = 0

    def interrupt(at: int) -> bool:
        """Use a new file once, and interrupt it at that line of the module; False when there are not so many."""
        seen = itertools.count()

        def trace(frame, event, argument):
            if (
                frame.f_code.co_filename != SqliteFile.__init__.__code__.co_filename
                or "<" in frame.f_code.co_name
            ):
                return None  # nor generator expressions, which look at all the files that are left
            if event == "line" and next(seen) == at:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            with opened(path.with_name("{}.db".format(at))) as file:
                write(file, "one")
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        while interrupt(interrupts):
            interrupts += 1
        gc.collect()
    # private: struck at the very line that gives it back, the gate stays with this thread, and others would wait for it
    with contextlib.suppress(RuntimeError):
        while True:
            _sqlite._gate.release()
    assert [warning.message for warning in caught if "database" in str(warning.message)] == []
    assert interrupts > 50
