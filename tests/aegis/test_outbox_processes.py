"""One outbox, many threads and processes: kills, forks, leases, and locks that POSIX would drop."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hestiaos_lite import Outbox

from .kit import finished, queue, started

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")
START = """
    import os, sys, threading, time, warnings
    from hestiaos_lite import Outbox
    from tests.aegis.kit import Service, flushed, queue

    def put(box, key):
        queue(box, key, thread_id=key)
"""


@posix_only
def test_parent_and_forked_children_each_write(path):
    """From any thread, and while another thread writes."""
    code = """
    import contextlib, sqlite3
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later warn of every fork beside threads
    box = Outbox(sys.argv[1])
    expected = {"before"}
    put(box, "before")
    done = threading.Event()

    def write():
        while not done.is_set():
            key = "thread%d" % len(expected)
            put(box, key)
            expected.add(key)

    def in_a_thread(act, *args):
        thread = threading.Thread(target=act, args=args)
        thread.start()
        return thread

    writer = in_a_thread(write)
    children = []
    for n in range(4):
        child = os.fork()
        if child == 0:
            for m in range(6):
                in_a_thread(put, box, "child%d.%d" % (n, m)).join()
            if n == 0:
                assert flushed(box, Service()).sent >= 1
            sys.exit(0)  # not os._exit: what the parent left here must survive being torn down
        children.append(child)
        put(box, "parent%d" % n)
    done.set()
    writer.join()
    box.close()  # as its own last user it folds the log in, and must see that the children still use it
    box = Outbox(sys.argv[1])
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    keys = {row.idempotency_key for row in box.list()}
    expected |= {"parent%d" % n for n in range(4)} | {"child%d.%d" % (n, m) for n in range(4) for m in range(6)}
    assert keys == expected, keys ^ expected
    box.close()
    with contextlib.closing(sqlite3.connect(sys.argv[1])) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    """
    finished(started(START + code, path))


@posix_only
def test_two_outboxes_of_one_process_keep_each_others_locks(path):
    """POSIX drops all of a process's locks on a file when any descriptor of it is closed; a second opening must not."""
    code = """
    import sys
    from hestiaos_lite import Outbox
    with Outbox(sys.argv[1]) as box:  # opened and closed by another process: the last one out would remove the log
        print(len(box.list()))
    """
    with Outbox(path) as one:
        queue(one, "k1")
        with Outbox(path) as two:
            queue(two, "k2")
        assert finished(started(code, path)) == "2\n"
        assert Path(str(path) + "-wal").exists()
        queue(one, "k3")
        assert finished(started(code, path)) == "3\n"


@pytest.mark.parametrize(
    "ending", ["", "del box", "box.close()", "import gc; box.cycle = box; del box; gc.collect()"]
)
def test_an_outbox_left_open_is_closed_without_a_warning(path, ending):
    code = """
    import sys
    from hestiaos_lite import Outbox
    box = Outbox(sys.argv[1])
    box.requeue_all()
    """
    finished(started(code + ending, path))
    assert os.listdir(str(path.parent)) == [path.name]


@posix_only
def test_processes_that_make_one_file_at_once(path):
    """Whoever comes second to the schema or to the switch to logging waits for it."""
    code = (
        START
        + """
    import hestiaos_lite._sqlite  # before the start, so that all are ready
    print("ready", flush=True)
    sys.stdin.readline()
    with Outbox(sys.argv[1]) as box:
        put(box, sys.argv[2])
    """
    )
    processes = [started(code, path, n, stdin=subprocess.PIPE) for n in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        finished(process)
    with Outbox(path) as box:
        assert sorted(row.idempotency_key for row in box.list()) == ["0", "1", "2", "3"]


def test_an_outbox_opens_without_requests(path):
    code = """
    import sys
    sys.modules["requests"] = sys.modules["urllib3"] = None
    from hestiaos_lite import Outbox
    with Outbox(sys.argv[1]) as box:
        print(box.counts())
    """
    assert finished(started(code, path)) == "{'queued': 0, 'claimed': 0, 'settled': 0, 'dead': 0}\n"


def test_without_sqlite_everything_but_an_outbox_works(path):
    code = (
        START
        + """
    from tests.aegis.kit import client_of
    from hestiaos_lite import HestiaError
    for name in [name for name in sys.modules if "sqlite3" in name]:
        del sys.modules[name]
    sys.modules["_sqlite3"] = None  # as where it was not built
    print(client_of(None, Service()).approve("k").accepted)
    try:
        Outbox(sys.argv[1])
    except HestiaError as error:
        print(error.code, error.delivered, error.exit_code, error.message)
    """
    )
    lines = finished(started(code, path)).splitlines()
    assert lines[0] == "True"
    assert lines[1].startswith("OUTBOX False 78 an outbox needs SQLite, and this Python was built without it")
    assert not path.exists()
