"""One outbox, many threads and processes: kills, forks, leases, and locks that POSIX would drop."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import List

import pytest

from hestiaos_lite.aegis.delivery import FlushReport
from hestiaos_lite.aegis.outbox import Outbox

from .outbox_kit import Service, finished, flushed, killed, posix_only, record

# Threads, processes, kills, forks

PUT = """
    import os, sys, threading, time, warnings
    from hestiaos_lite.aegis.answers import ServerAnswer
    from hestiaos_lite.aegis.delivery import flush
    from hestiaos_lite.aegis.outbox import Outbox
    from hestiaos_lite.aegis.rows import Decision, canonical_json, insert

    def put(box, key, thread="T"):
        decision = Decision("http://127.0.0.1:1/api/v1", "approve", key, "acme", thread, "r", {})
        with box._file.transaction() as connection:
            return insert(connection, decision, *canonical_json({}), box._now_ms())

    def flushed(box, send):
        return flush(box, send, service="http://127.0.0.1:1/api/v1", hosted=False, timeout_seconds=10)
"""


def test_threads_share_one_outbox(path):
    with Outbox(path) as box:
        service = Service()
        start = threading.Barrier(8)
        reports: List[FlushReport] = []
        ids: List[int] = []

        def work() -> None:
            start.wait()
            ids.extend(record(box, "k{}".format(n), "T{}".format(n % 10)).id for n in range(100))
            start.wait()
            reports.append(flushed(box, service))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ids) == sorted(list(range(1, 101)) * 8)
        assert sum(report.sent for report in reports) == 100
        assert sorted(service.keys) == sorted("k{}".format(n) for n in range(100))
        for tail in range(10):
            sent = [int(key[1:]) for key in service.keys if int(key[1:]) % 10 == tail]
            assert sent == sorted(sent)


@posix_only
def test_a_killed_senders_row_is_free_after_its_lease_and_not_before(path, clock, script):
    clock.now = time.time()
    with Outbox(path, clock=clock) as box:
        record(box, "k1")
        record(box, "k2")
        holder = script(
            PUT
            + """
    box = Outbox(sys.argv[1], lease_seconds=45)
    flushed(box, lambda row, deadline: (print(row.id, flush=True), time.sleep(60)))
            """,
            path,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        killed(holder)
        lease_until_ms = box.get(1).lease_until_ms
        assert lease_until_ms is not None
        clock.now = lease_until_ms / 1000 - 0.5
        service = Service()
        assert flushed(box, service) == FlushReport(queued=2)
        clock.now = lease_until_ms / 1000 + 0.5
        assert flushed(box, service) == FlushReport(sent=2)
        assert service.keys == ["k1", "k2"]
        assert [row.attempts for row in box.list()] == [2, 1]


FORK = (
    PUT
    + """
    def record(box, key):
        return put(box, key, key)

    box = Outbox(sys.argv[1])
    record(box, "before")
    children = []
    for n in range(4):
        child = os.fork()
        if child == 0:
            for m in range(50):
                record(box, "child%d.%d" % (n, m))
            if n == 0:
                assert flushed(box, lambda row, deadline: ServerAnswer(202)).sent >= 1
            sys.exit(0)  # not os._exit: what the parent left here must survive being torn down
        children.append(child)
        record(box, "parent%d" % n)
    box.close()  # as its own last user it folds the log in, and must see that the children still use it
    box = Outbox(sys.argv[1])
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    keys = {row.idempotency_key for row in box.list()}
    expected = {"before"} | {"parent%d" % n for n in range(4)}
    expected |= {"child%d.%d" % (n, m) for n in range(4) for m in range(50)}
    assert keys == expected, keys ^ expected
    with box._file.transaction() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    box.close()
"""
)


@posix_only
def test_parent_and_forked_children_each_write(path, script):
    finished(script(FORK, path))


@posix_only
def test_a_fork_while_another_thread_writes(path, script):
    code = (
        PUT
        + """
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later warn of every fork beside threads

    box = Outbox(sys.argv[1])
    done = threading.Event()

    def write():
        n = 0
        while not done.is_set():
            put(box, "t%d" % n)
            n += 1

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    for n in range(20):
        child = os.fork()
        if child == 0:
            put(box, "child%d" % n)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    done.set()
    thread.join()
    assert {"child%d" % n for n in range(20)} <= {row.idempotency_key for row in box.list()}
    box.close()
    """
    )
    finished(script(code, path))


@posix_only
def test_two_outboxes_of_one_process_keep_each_others_locks(path, script):
    """POSIX drops all of a process's locks on a file when any descriptor of it is closed; a second opening must not."""
    code = """
    import sys
    from hestiaos_lite.aegis.outbox import Outbox
    with Outbox(sys.argv[1]) as box:  # opened and closed by another process: the last one out would remove the log
        print(len(box.list()))
    """
    with Outbox(path) as one:
        record(one, "k1")
        with Outbox(path) as two:
            record(two, "k2")
        assert finished(script(code, path)) == "2\n"
        assert Path(str(path) + "-wal").exists()
        record(one, "k3")
        assert finished(script(code, path)) == "3\n"


@pytest.mark.parametrize(
    "ending", ["", "del box", "box.close()", "import gc; box.cycle = box; del box; gc.collect()"]
)
def test_an_outbox_left_open_is_closed_without_a_warning(path, ending, script):
    code = (
        PUT
        + """
    box = Outbox(sys.argv[1])
    put(box, "k")
    """
    )
    finished(script(code + "\n    " + ending, path))
    assert os.listdir(str(path.parent)) == [path.name]


@posix_only
def test_processes_that_make_one_file_at_once(path, script):
    """Whoever comes second to the schema or to the switch to logging waits for it."""
    code = (
        PUT
        + """
    import sqlite3  # before the start, so that all are ready
    import hestiaos_lite._sqlite
    print("ready", flush=True)
    sys.stdin.readline()
    box = Outbox(sys.argv[1])
    put(box, sys.argv[2])
    box.close()
    """
    )
    processes = [script(code, path, n, stdin=subprocess.PIPE) for n in range(6)]
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
        assert sorted(row.idempotency_key for row in box.list()) == ["0", "1", "2", "3", "4", "5"]
