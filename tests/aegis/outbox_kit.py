"""What the tests of the outbox share: a clock that can be set, decisions, a service that can be told what to say."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from hestiaos_lite import errors
from hestiaos_lite.aegis import delivery
from hestiaos_lite.aegis.answers import ServerAnswer
from hestiaos_lite.aegis.delivery import FlushReport, SendResult
from hestiaos_lite.aegis.outbox import Outbox
from hestiaos_lite.aegis.rows import Decision, Entry, canonical_json, find, insert
from hestiaos_lite.deadline import Deadline

NOON = 1800000000.0  # seconds since the epoch
NOON_MS = 1800000000000
LEASE_MS = 60000
SERVICE = "http://127.0.0.1:1/api/v1"
PACKAGE_PARENT = str(Path(__file__).resolve().parent.parent.parent)
LANE = (SERVICE, "acme", "T")

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")


class Clock:
    """A clock that does not run until it is told to."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Service:
    """A ``send`` that remembers what came, and answers each key by what it was told to; 202 otherwise."""

    def __init__(self, **faults: Any) -> None:
        self.faults = faults
        self.keys: List[str] = []

    def __call__(self, decision: Decision, deadline: Deadline) -> ServerAnswer:
        self.keys.append(decision.idempotency_key)
        fault = self.faults.get(decision.idempotency_key, ServerAnswer(202))
        if isinstance(fault, BaseException):
            raise fault
        return fault


def accept(decision: Decision, deadline: Deadline) -> ServerAnswer:
    return ServerAnswer(202, {"request_id": decision.request_id})


def decision(key: str = "key-1", thread_id: str = "T", **changes: Any) -> Decision:
    """A decision of tenant acme for SERVICE."""
    facts: Dict[str, Any] = {
        "service": SERVICE,
        "action": "approve",
        "idempotency_key": key,
        "tenant_id": "acme",
        "thread_id": thread_id,
        "request_id": "req-" + str(key),
        "payload": {"n": 1},
    }
    facts.update(changes)
    return Decision(**facts)


def record(box: Outbox, key: str = "key-1", thread_id: str = "T", **changes: Any) -> Entry:
    """Write a row that nobody has claimed, as a program leaves it that was killed before it sent it."""
    given = decision(key, thread_id, **changes)
    with box._file.transaction() as connection:
        found = find(connection, given.partition, key)
        return found or insert(connection, given, *canonical_json(given.payload), box._now_ms())


def claimed(box: Outbox, row_id: int) -> Entry:
    entry = box.claim_first(box.get(row_id).partition, row_id)
    assert entry is not None
    return entry


def bring_to(box: Outbox, row_id: int, state: str) -> None:
    if state == "queued":
        return
    entry = claimed(box, row_id)
    if state == "settled":
        box.complete(entry, ServerAnswer(202, {"seen": True}))
    elif state == "dead":
        box.fail(entry, "no", 422)


def flushed(box: Outbox, send: Any, **options: Any) -> FlushReport:
    """Flush what tenant acme, or any other, has for SERVICE."""
    return delivery.flush(
        box, send, **dict({"service": SERVICE, "hosted": False, "timeout_seconds": 10}, **options)
    )


def delivered(box: Outbox, entry: Entry, send: Any) -> SendResult:
    return delivery.send_claimed(box, entry, send, Deadline(10))


def refused(act: Callable[[], Any], path: Path, *words: str) -> errors.HestiaError:
    """Run what must fail with the one error an outbox file may raise."""
    with pytest.raises(errors.HestiaError) as caught:
        act()
    error = caught.value
    assert type(error) is errors.HestiaError
    assert error.code == ("OUTBOX_BUSY" if "held it too long" in str(error) else "OUTBOX")
    for word in (str(path),) + words:
        assert word in str(error)
    return error


def sqlite_file(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(str(path))
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.commit()
    connection.close()


def started(code: str, *arguments: Any, **options: Any) -> subprocess.Popen:
    """Start a Python process on some code, with every warning an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)] + [str(a) for a in arguments],
        env=dict(os.environ, PYTHONPATH=PACKAGE_PARENT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        **options,
    )


def killed(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def finished(process: subprocess.Popen) -> str:
    """Wait for a process that must succeed without a word on standard error; give its standard output."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out
