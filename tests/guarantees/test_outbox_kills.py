"""Durable, then sent: whatever is killed or stopped at whatever moment, no decision is lost and none takes effect twice."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

import pytest

from hestiaos_lite import AegisClient, Outbox
from hestiaos_lite.sandbox import Sandbox

from ..aegis.kit import PACKAGE_PARENT, queue

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")
FACTS = {"tenant_id": "acme", "thread_id": "main"}
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

APPROVE_ALL = """
import sys
from hestiaos_lite import AegisClient, Outbox
url, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Outbox(path, lease_seconds=1.5) as outbox:
    with AegisClient(url, tenant_id="acme", thread_id="main", outbox=outbox, timeout=1.0) as client:
        print("ready", flush=True)
        for number in range(count):
            client.approve("key-{:04}".format(number), thread_id="th-{}".format(number % 5))
            print("key-{:04}".format(number), flush=True)
"""

FLUSH = """
import sys
from hestiaos_lite import AegisClient, Outbox
# another one that is stopped while it writes holds the file for as long as it is
with Outbox(sys.argv[2], lease_seconds=float(sys.argv[3]), busy_seconds=60) as outbox:
    client = AegisClient(sys.argv[1], tenant_id="acme", thread_id="main", outbox=outbox, timeout=float(sys.argv[3]) / 2)
    with client:
        report = client.flush()
        print(report.sent, report.duplicate, report.dead)
"""


def start(code: str, *arguments: object, before: Any = ()) -> subprocess.Popen:
    command = list(before) + [sys.executable, "-c", code] + [str(argument) for argument in arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=PACKAGE_PARENT),
        universal_newlines=True,
    )


def keys_of(box: Sandbox) -> List[str]:
    return [action["idempotency_key"] for action in box.actions()]


def assert_nothing_is_lost(box: Sandbox, path: Path, acknowledged: Any) -> None:
    """After everybody is gone and the leases have run out, all that was recorded is at the service, once."""
    later = Outbox(path, clock=lambda: time.time() + 2)
    with later as outbox, AegisClient(box.url, outbox=outbox, **FACTS) as client:
        recorded = {row.idempotency_key for row in outbox.list()}
        assert set(keys_of(box)) <= recorded  # none was sent before it was durable
        assert set(acknowledged) <= recorded
        report = client.flush()
        assert (report.queued, report.dead) == (0, 0)
        assert outbox.counts()["settled"] == len(recorded)
    with contextlib.closing(sqlite3.connect(str(path))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert sorted(keys_of(box)) == sorted(recorded)


@posix_only
@pytest.mark.parametrize(("kills", "count"), [(2, 20), pytest.param(60, 200, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(box: Sandbox, tmp_path: Path, kills: int, count: int) -> None:
    number = random.randrange(2**32)
    print("seed", number)
    rng = random.Random(number)
    path = tmp_path / "outbox.db"
    acknowledged: List[str] = []
    for _ in range(kills):
        with start(APPROVE_ALL, box.url, path, count) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.random() * 0.15)
            process.send_signal(signal.SIGKILL)
            acknowledged += [line for line in process.stdout.read().split() if line.startswith("key-")]
    assert_nothing_is_lost(box, path, acknowledged)


@posix_only
@needs_strace
@pytest.mark.parametrize(
    "moments", [range(10, 400, 190), pytest.param(range(1, 401), marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_kill_9_at_the_nth_system_call(tmp_path: Path, moments: Any) -> None:
    """Of those that touch the file or the network; the last ones are beyond the end."""
    calls = "pwrite64,write,fdatasync,fsync,ftruncate,fcntl,unlink,connect,sendto,recvfrom"
    for n in moments:
        folder = tmp_path / str(n)
        folder.mkdir(mode=0o700)
        with Sandbox() as box:
            die_at(n, calls, box, folder / "outbox.db")


def die_at(n: int, calls: str, box: Sandbox, path: Path) -> None:
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + calls]
    strace += ["-e", "inject={}:signal=SIGKILL:when={}".format(calls, n)]
    with start(APPROVE_ALL, box.url, path, 6, before=strace) as process:
        acknowledged = {line for line in process.communicate(timeout=120)[0].split() if line != "ready"}
    print("killed at", n)
    assert_nothing_is_lost(box, path, acknowledged)


@posix_only
@needs_strace
@pytest.mark.parametrize("count", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_the_order_is_durable_then_sent(box: Sandbox, tmp_path: Path, count: int) -> None:
    """Before the first byte of a decision leaves, the log that holds it has been synced."""
    path, trace = tmp_path / "outbox.db", tmp_path / "trace"
    strace = ["strace", "-f", "-qq", "-y", "-s", "20000", "-o", str(trace)]
    strace += ["-e", "trace=pwrite64,fdatasync,fsync,sendto"]
    with start(APPROVE_ALL, box.url, path, count, before=strace) as process:
        process.communicate(timeout=300)
        assert process.returncode == 0
    written: Dict[str, int] = {}
    synced_at, sent = 0, []
    for at, line in enumerate(trace.read_text(errors="replace").splitlines(), 1):
        if "-wal>" in line and "pwrite64(" in line:
            for key in re.findall(r"key-\d{4}", line):
                written.setdefault(key, at)
        elif "-wal>" in line and "sync(" in line:
            assert line.endswith("= 0")
            synced_at = at
        elif "sendto(" in line and "POST " in line:
            (key,) = set(re.findall(r"key-\d{4}", line))
            assert written[key] < synced_at < at
            sent.append(key)
    assert sent == ["key-{:04}".format(number) for number in range(count)]


@posix_only
@pytest.mark.parametrize(
    ("flushers", "rows", "lease_seconds", "stops"),
    [(3, 50, 60.0, 0), pytest.param(16, 4000, 2.0, 30, marks=pytest.mark.slow)],
    ids=["three", "sixteen, stopped beyond their lease"],
)
def test_many_flushers_send_each_row_once(
    box: Sandbox, tmp_path: Path, flushers: int, rows: int, lease_seconds: float, stops: int
) -> None:
    number = random.randrange(2**32)
    print("seed", number)
    rng = random.Random(number)
    path = tmp_path / "outbox.db"
    threads = 25
    with Outbox(path) as outbox:
        for number in range(rows):
            thread_id = "th-{}".format(number % threads)
            queue(outbox, "key-{:04}".format(number), thread_id=thread_id, base_url=box.url)
    processes = [start(FLUSH, box.url, path, lease_seconds) for _ in range(flushers)]
    for _ in range(stops):
        process = rng.choice(processes)
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            time.sleep(rng.choice([0.1, 1.5 * lease_seconds]))
            process.send_signal(signal.SIGCONT)
    reports = []
    for process in processes:
        with process:
            reports.append([int(word) for word in process.communicate(timeout=600)[0].split()])
    sent, duplicate, dead = (sum(column) for column in zip(*reports))
    print("sent", sent, "duplicate", duplicate)
    assert dead == 0
    if not stops:
        assert (sent, duplicate) == (rows, 0)
        posted = Counter(request.headers["Idempotency-Key"] for request in box.requests)
        assert (len(posted), set(posted.values())) == (rows, {1})
    time.sleep(lease_seconds if stops else 0)
    with Outbox(path) as outbox, AegisClient(box.url, outbox=outbox, **FACTS) as client:
        assert client.flush().dead == 0
        assert outbox.counts() == {"queued": 0, "claimed": 0, "settled": rows, "dead": 0}
    accepted = keys_of(box)
    assert sorted(accepted) == ["key-{:04}".format(number) for number in range(rows)]
    for thread in range(threads):
        in_thread = [key for key in accepted if int(key[4:]) % threads == thread]
        assert in_thread == sorted(in_thread)
