"""The file under an outbox: which files are refused, what happens when the disk or another program does not play along."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from hestiaos_lite import errors
from hestiaos_lite.aegis.outbox import Outbox
from hestiaos_lite.aegis.rows import APPLICATION_ID, SCHEMA, SCHEMA_VERSION

from .kit import PACKAGE_PARENT, finished, queue, refused, sqlite_file, started

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")
MADE = (
    *SCHEMA,
    "PRAGMA application_id = {}".format(APPLICATION_ID),
    "PRAGMA user_version = {}".format(SCHEMA_VERSION),
)

# Files that cannot be an outbox


def snapshot(folder: Path) -> Dict[str, Any]:
    return {entry.name: entry.read_bytes() if entry.is_file() else "" for entry in sorted(folder.iterdir())}


def make_foreign_with_a_log(path: Path) -> None:
    """Leave a write-ahead log behind, as a killed program does: opening the file would fold it in."""
    source = path.parent.parent / "source.db"
    connection = sqlite3.connect(str(source))
    for statement in ("PRAGMA journal_mode = WAL", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"):
        connection.execute(statement).fetchall()
    connection.commit()
    shutil.copy(str(source), str(path))
    shutil.copy(str(source) + "-wal", str(path) + "-wal")
    connection.close()


def make_of_version(version: int) -> Callable[[Path], None]:
    return lambda path: sqlite_file(path, *MADE[:-1], "PRAGMA user_version = {}".format(version))


def make_torn(path: Path) -> None:
    """A good header, and noise after it."""
    sqlite_file(path, *MADE)
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(range(256)) * (len(content) // 256))


FOREIGN = ["another program's SQLite file", "left unchanged"]
UNUSABLE: Dict[str, Any] = {
    "directory": (Path.mkdir, ["not a regular file", "use another path"]),
    "named pipe": (os.mkfifo if os.name == "posix" else Path.mkdir, ["not a regular file"]),  # without waiting
    "not SQLite": (
        lambda path: path.write_text("key,action\n" * 1000), ["not an SQLite file", "left unchanged", "use another path"],
    ),
    "cut in the header": (lambda path: path.write_bytes(b"SQLite format 3\0"), FOREIGN),
    "another program's": (
        lambda path: sqlite_file(path, "CREATE TABLE decision (id INTEGER)", "PRAGMA user_version = 1"), FOREIGN,
    ),
    "another program's, with a log": (make_foreign_with_a_log, FOREIGN),
    "older schema": (make_of_version(1), ["schema version 1", "reads version 2", "left unchanged"]),
    "newer schema": (make_of_version(3), ["schema version 3", "reads version 2", "left unchanged"]),
    "torn": (make_torn, ["it is damaged", ".recover"]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_file_that_is_no_outbox_is_refused_and_left_alone(tmp_path, make, words):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "outbox.db"
    make(path)
    before = snapshot(folder)
    error = refused(lambda: Outbox(path), path, *words)
    assert error.delivered is False
    assert snapshot(folder) == before


def test_a_missing_folder(tmp_path):
    path = tmp_path / "no" / "such" / "outbox.db"
    refused(lambda: Outbox(path), path, "its folder does not exist", "mkdir -p {}".format(path.parent))


@pytest.mark.parametrize("bad", [None, 7, "nul\0byte"])
def test_what_is_no_path_at_all(bad):
    with pytest.raises(errors.HestiaError, match="cannot be the path of the outbox"):
        Outbox(bad)


@pytest.mark.parametrize("name", ["with space.db", "per%20cent?mode=ro#x.db", "grüße.db", ":memory:"])
def test_any_name_is_only_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(str(tmp_path))
    with Outbox(name) as box:
        queue(box, "k")
        monkeypatch.chdir("/")  # the path was made absolute when it was given
        assert [row.id for row in box.list()] == [1]
    assert os.listdir(str(tmp_path)) == [name]


@posix_only
def test_the_files_are_for_their_owner_only(tmp_path):
    path = tmp_path / "outbox.db"
    previous = os.umask(0)
    try:
        with Outbox(path) as box:
            queue(box, "k")
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    finally:
        os.umask(previous)
    assert modes == {"outbox.db": 0o600, "outbox.db-wal": 0o600, "outbox.db-shm": 0o600}


@posix_only
def test_a_file_that_is_there_keeps_its_mode(path):
    path.touch(mode=0o640)
    path.chmod(0o640)
    with Outbox(path) as box:
        queue(box, "k")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_file_is_marked_as_ours_and_logs_ahead(box, path):
    header = path.read_bytes()[:100]
    assert (header[18:20], header[60:64], header[68:72]) == (b"\2\2", b"\0\0\0\2", b"HLOB")


def test_locked_while_it_is_being_made(path):
    path.touch()
    other = sqlite3.connect(str(path), isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        refused(lambda: Outbox(path, busy_seconds=0.2), path, "another program has kept it locked too long")
    finally:
        other.close()
    with Outbox(path) as box:
        queue(box, "k")


def test_the_switch_to_logging_waits_for_a_reader(path):
    sqlite_file(path, *MADE)  # made, but its maker was killed before the switch
    other = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
    try:
        other.execute("BEGIN")
        other.execute("SELECT * FROM decision").fetchall()
        refused(lambda: Outbox(path, busy_seconds=0.2), path, "another program has kept it locked too long")
        threading.Timer(0.3, lambda: other.execute("ROLLBACK")).start()
        with Outbox(path, busy_seconds=30) as box:
            queue(box, "k")
    finally:
        other.close()


@pytest.mark.parametrize("replace", [False, True], ids=["removed", "replaced"])
def test_a_file_that_is_taken_away_while_open(box, path, replace):
    queue(box, "k")
    path.rename(path.with_name("away.db"))
    if replace:
        path.touch()
    refused(lambda: queue(box, "k2"), path, "replaced" if replace else "removed", "run again")


FILL = """
    import sys
    from hestiaos_lite import HestiaError, Outbox
    from tests.aegis.kit import Service, client_of
    {setup}
    box = Outbox(sys.argv[1])
    client = client_of(box, Service())
    sent = 0
    try:
        while sent < 1000:
            client.approve("k%d" % sent, payload={{"x": "y" * 5000}})
            sent += 1
    except HestiaError as error:
        print(error.code, error.exit_code, error.delivered, sent, str(error), sep="|")
    {after}
    # what was sent is there, and so is a row whose answer there was no room for
    assert len(box.list()) - sent in (0, 1), (len(box.list()), sent)
    assert client.approve("small").accepted
    box.close()
"""


@posix_only
def test_a_file_size_limit(path):
    setup = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300000, resource.RLIM_INFINITY))"
    after = "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    out = finished(started(FILL.format(setup=setup, after=after), path))
    code, exit_code, delivered, sent, message = out.strip().split("|")
    assert (code, exit_code, delivered in ("True", "False")) == ("OUTBOX_DISK", "74", True)
    assert int(sent) > 3
    assert str(path) in message
    assert "limits" in message
    assert ("this could not be recorded: the service has this decision;" in message) is (delivered == "True")


@posix_only
def test_a_full_disk(tmp_path):
    mounted = "mount -t tmpfs -o size=500k,mode=700 tmpfs {}".format(tmp_path)
    if subprocess.call(["unshare", "-m", "sh", "-c", mounted], stderr=subprocess.DEVNULL) != 0:
        pytest.skip("may not mount a small file system")
    setup = "import os; open(os.path.dirname(sys.argv[1]) + '/ballast', 'wb').write(bytes(60000))"
    after = "os.remove(os.path.dirname(sys.argv[1]) + '/ballast')"
    code = textwrap.dedent(FILL.format(setup=setup, after=after))
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted + ' && exec "$0" -c "$1" "$2"', sys.executable, code]
        + [str(tmp_path / "outbox.db")],
        env=dict(os.environ, PYTHONPATH=PACKAGE_PARENT),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    code, exit_code, delivered, sent, message = ran.stdout.strip().split("|")
    assert (code, exit_code) == ("OUTBOX_DISK", "74")
    assert int(sent) > 3
    assert "the disk is full; make room" in message


READ_ONLY = """
    import os, sys
    # loaded before another user may not read the libraries any more
    import hestiaos_lite._sqlite, shlex
    from hestiaos_lite import HestiaError, Outbox
    from tests.aegis.kit import client_of, nobody_there
    try:
        client_of(None, nobody_there()).approve("k")
    except HestiaError:
        pass
    os.environ["HESTIAOS_CONFIG"] = os.devnull
    if os.getuid() == 0:
        os.setuid(65534)  # root may write anywhere
    try:
        with Outbox(sys.argv[1]) as box:
            print(len(box.list()), end="|")
            client_of(box, nobody_there()).approve("k")
    except HestiaError as error:
        print(error.code, error.delivered, str(error), sep="|")
"""


@posix_only
@pytest.mark.parametrize("case", ["file", "folder", "unreadable"])
def test_what_may_not_be_written(case):
    # Not tmp_path: another user may not enter it.
    folder = Path(tempfile.mkdtemp())
    path = folder / "outbox.db"
    try:
        if case != "folder":
            Outbox(path).close()
            path.chmod(0o444 if case == "file" else 0)
        folder.chmod(0o555)
        *listed, code, delivered, message = finished(started(READ_ONLY, path)).strip().split("|")
        assert (listed, code, delivered) == (["0"] if case == "file" else [], "OUTBOX", "False")
        assert "outbox {}: ".format(os.path.realpath(str(path))) in message
        assert "check the owner and mode of the file and of its folder" in message
        assert os.listdir(str(folder)) == ([] if case == "folder" else ["outbox.db"])
    finally:
        folder.chmod(0o700)
        shutil.rmtree(str(folder))
