"""A file that was damaged, cut by a loss of power, or locked by another program: named, recovered or given up in time."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from typing import Any, Dict

import pytest

from hestiaos_lite import ActionResult, Outbox
from hestiaos_lite.deadline import Deadline

from ..cli_call import call
from .kit import URL, Service, client_of, flushed, queue, refused, sqlite_file

# Malformed rows

DEEP = "[" * 100000
CRLF = "char(13) || char(10) || 'X-Evil: 1'"
# fmt: off
MALFORMED: Dict[str, Any] = {
    "payload cut off":            ("payload = '{'", ""),
    "payload a list":             ("payload = '[]'", "its payload is not a JSON object"),
    "payload too deep":           ("payload = '{}'".format(DEEP), ""),
    "payload a blob":             ("payload = x'7b7d'", "its payload is not text"),
    "payload a number":           ("payload = 7", ""),
    "answer too deep":            ("answer = '{}'".format(DEEP), ""),
    "answer cut off":             ("answer = '{'", ""),
    "a blob for a key":           ("idempotency_key = x'ff'", "its idempotency_key is not text"),
    "a key that is not UTF-8":    ("idempotency_key = CAST(x'ff' AS TEXT)", "its idempotency_key is not text"),
    "no key":                     ("idempotency_key = ''", "the header Idempotency-Key is empty"),
    "attempts that are no number": ("attempts = 'many'", "its attempts is not a possible value"),
    "attempts below zero":        ("attempts = -1", "its attempts is not a possible value"),
    "a time beyond all clocks":   ("recorded_ms = 9223372036854775807", "its recorded_ms is not a possible value"),
    "a time that is no number":   ("next_attempt_ms = 'soon'", "its next_attempt_ms is not a possible value"),
    "a time that is a fraction":  ("next_attempt_ms = 1.5", "its next_attempt_ms is not a possible value"),
    "an end that is no number":   ("ended_ms = 'now'", "its ended_ms is not a possible value"),
    "a status that is no number": ("status_code = 'ok'", "its status_code is not a possible value"),
    "a reason that is a blob":    ("reason = x'00'", "its reason is not text"),
    "another payload":            ("payload = '{\"n\":1000}'", "its payload is not the one that was recorded"),
    "another digest":             ("payload_digest = 'x'", "its payload is not the one that was recorded"),
    "an unknown action":          ("action = '../../secrets/x'", "action must be 'approve' or 'reject'"),
    "an action that is no text":  ("action = x'00'", "its action is not text"),
    "a thread that is two headers": ("thread_id = 'T' || " + CRLF, "the header Thread-Id"),
    "a request id that is two headers": ("request_id = 'r' || " + CRLF, "the header X-Request-Id"),
    "a state of its own":         ("state = 'gone'", "its state is unknown"),
    "claimed by nobody":          ("state = 'claimed'", "its state is unknown"),
}
# fmt: on


@pytest.mark.parametrize(("change", "words"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_row_is_named_and_not_sent(path, change, words):
    """Whether the disk did it or somebody who would decide in our name."""
    service = Service()
    with Outbox(path) as box:
        queue(box, "k")
        sqlite_file(path, "PRAGMA ignore_check_constraints = 1", "UPDATE decision SET " + change)
        acts = [lambda: box.get(1), box.list, lambda: flushed(box, service)]
        if "gone" in change:  # it is in none of the four states
            acts.append(lambda: box.list(["settled"]))
            assert box.counts() == {"queued": 0, "claimed": 0, "settled": 0, "dead": 0, "gone": 1}
        if "thread_id" not in change:
            acts.append(lambda: queue(box, "k2"))
        for act in acts:
            refused(act, path, "row 1 is malformed: " + words, "outbox drop 1")
    called = call("outbox", "flush", "-u", URL, "--outbox", str(path))
    assert (called.code, called.err.count("\n")) == (78, 1)
    dropped = call("outbox", "drop", "1", "--outbox", str(path))
    assert (dropped.code, dropped.err) == (0, "dropped row 1, which was malformed\n")
    with Outbox(path) as box:
        assert (box.list(), service.keys) == ([], [])


@pytest.mark.parametrize(("statement", "name"), [
    ("CREATE TRIGGER t AFTER INSERT ON decision BEGIN UPDATE decision SET action = 'approve'; END", "trigger t"),
    ("CREATE VIEW v AS SELECT 1", "view v"),
])  # fmt: skip
def test_what_an_outbox_never_has_is_refused(path, statement, name):
    with Outbox(path) as box:
        queue(box, "k")
    sqlite_file(path, statement)
    refused(lambda: Outbox(path), path, "it holds what no outbox has ({})".format(name), "move it away")
    assert call("outbox", "flush", "-u", URL, "--outbox", str(path)).code == 78


# Loss of power while the file is made


def make_first_page_of_zeroes(path, *, journal_of, name=""):
    """What the disk holds when power fails after the journal is written and before the first page is."""
    other = sqlite3.connect(str(journal_of), isolation_level=None)
    if name:
        other.execute("CREATE TABLE {} (x)".format(name))
    other.execute("PRAGMA cache_size = 1")
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE filler (x)")
    # more than the cache, so that the journal is synced
    other.execute("INSERT INTO filler VALUES (zeroblob(100000))")
    shutil.copy(str(journal_of) + "-journal", str(path) + "-journal")
    other.close()
    path.write_bytes(bytes(4096))
    path.chmod(0o600)


def test_a_first_page_of_zeroes_beside_a_hot_journal_is_recovered(path, tmp_path):
    make_first_page_of_zeroes(path, journal_of=tmp_path / "new.db")
    with Outbox(path) as box:
        queue(box, "k")


def test_the_journal_of_another_programs_file_is_left_alone(path, tmp_path):
    """It would be rolled back into a file that is not ours."""
    make_first_page_of_zeroes(path, journal_of=tmp_path / "other.db", name="t")
    refused(lambda: Outbox(path), path, "not an SQLite file, or it is damaged")
    assert path.read_bytes() == bytes(4096)


@pytest.mark.parametrize("journal", [None, b"", b"no journal", bytes(512)])
def test_a_page_of_zeroes_alone_is_no_outbox(path, journal):
    path.write_bytes(bytes(4096))
    path.chmod(0o600)
    if journal is not None:
        path.with_name("outbox.db-journal").write_bytes(journal)
    before = sorted(os.listdir(str(path.parent)))
    refused(lambda: Outbox(path), path, "not an SQLite file, or it is damaged")
    assert (path.read_bytes(), sorted(os.listdir(str(path.parent)))) == (bytes(4096), before)


# Locked


@pytest.fixture(name="locked")
def _locked(path):
    """An outbox that another program is writing to."""
    Outbox(path).close()
    other = sqlite3.connect(str(path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield path
    other.close()


def test_the_wait_for_the_lock_is_bounded(locked):
    """By the call's deadline, and by the patience that the outbox is given."""
    service = Service()
    for busy_seconds, timeout in ((600, 0.2), (0.2, 50)):
        with Outbox(locked, busy_seconds=busy_seconds) as box, client_of(
            box, service, timeout=timeout
        ) as client:
            words = ("another program has kept it locked too long", "database is locked")
            for call_of in (client.approve, client.conclude):
                error = refused(lambda: call_of("k"), locked, *words)
                assert (error.exit_code, error.delivered) == (75, False)
            assert box.list() == []  # readers are not held up
    sender = ("-u", URL, "--tenant", "acme", "--thread", "T", "--timeout", "0.2")
    called = call("hitl", "approve", "k", *sender, "--outbox", str(locked), "-j")
    assert (called.code, called.error["code"], called.err.count("\n")) == (75, "OUTBOX_BUSY", 1)
    assert service.keys == []


def test_only_an_answer_in_hand_is_worth_a_second_beyond_the_deadline(box, path):
    """By its own methods: from outside no answer can be made to come just at the deadline."""

    def waits_for(act: Any) -> float:
        began = time.monotonic()
        error = refused(act, path, "another program has kept it locked too long")
        assert error.delivered is (act is complete)
        return time.monotonic() - began

    def complete() -> bool:
        return box.complete(entry, ActionResult("k", "r", 202), Deadline(-5))

    queue(box, "k")
    entry = box.claim_first(box.get(1).partition, 1)
    other = sqlite3.connect(str(path), isolation_level=None, timeout=0)
    other.execute("BEGIN IMMEDIATE")
    in_hand_seconds = waits_for(complete)
    assert in_hand_seconds >= 1
    with client_of(box, Service(), timeout=0.05) as client:
        # the least of five, for a machine may be busy
        assert 2 * min(waits_for(lambda: client.approve("k2")) for _ in range(5)) < in_hand_seconds
    other.close()
    assert complete()


@pytest.mark.parametrize(
    ("answer", "words"), [(202, "the service has this decision"), (503, "HTTP 503"), (422, "HTTP 422")]
)
def test_what_could_not_be_written_down_is_told(path, answer, words):
    other = sqlite3.connect(str(path), isolation_level=None, timeout=0)
    service = Service(k=answer)
    service.meanwhile = lambda key: other.execute("BEGIN IMMEDIATE")
    with Outbox(path, busy_seconds=0.1) as box, client_of(box, service) as client:
        error = refused(lambda: client.approve("k"), path, "this could not be recorded: ", words)
        assert error.exit_code == 75
        other.close()
        assert box.get(1).state == "claimed"  # until its lease ends


def test_a_thread_that_waits_for_the_lock_holds_up_no_other_beyond_its_deadline(path):
    results: Any = []
    with Outbox(path, busy_seconds=600) as box, client_of(box, Service(), timeout=50) as patient:
        other = sqlite3.connect(str(path), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=lambda: results.append(patient.approve("k")))
        thread.start()
        time.sleep(0.2)
        with client_of(box, Service(), timeout=0.2) as client:
            refused(lambda: client.approve("k2"), path, "another program has kept it locked too long")
        assert results == []  # it goes on waiting
        other.close()
        thread.join()
        assert results[0].accepted
