"""outbox: listing, flushing, requeueing, moving and dropping what waits."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Any

import pytest

from ..aegis.kit import sqlite_file
from ..cli_call import Called, call


def hitl(box: Any, *argv: str) -> Called:
    return call("hitl", *argv, "-u", box.url, "--tenant", "t", "--thread", "th")


def test_a_dead_decision_is_sent_again_after_requeue(box: Any, tmp_path: Any) -> None:
    outbox = ["--outbox", str(tmp_path / "o.db"), "-u", box.url]
    box.fail_next(status=422, times=2)
    refused = call("hitl", "approve", "k1", "--tenant", "t", "--thread", "th", *outbox)
    assert (refused.code, "1 dead in the outbox" in refused.err) == (2, True)
    flushed = call("outbox", "flush", "-q", *outbox)
    assert (flushed.code, flushed.out) == (1, "sent       0\nduplicate  0\nqueued     0\ndead       0\n")
    assert "1 dead in the outbox" in flushed.err
    assert "hestiaos-lite outbox requeue --all --outbox " in flushed.err
    assert call("outbox", "requeue", "--all", *outbox) == Called(0, "", "queued again: 1\n")
    assert call("outbox", "requeue", "--all", "-j", *outbox).json == {"requeued": 0}
    assert call("outbox", "flush", *outbox).code == 1
    assert call("outbox", "requeue", "1", *outbox) == Called(0, "", "queued again: approve k1\n")
    assert call("outbox", "requeue", "1", *outbox).code == 1
    for named in ([], ["1", "--all"]):
        assert call("outbox", "requeue", *named, *outbox).code == 2
    assert call("outbox", "flush", *outbox).code == 0
    assert [action["status"] for action in box.actions()] == ["COMMITTED"]


def test_dead_decisions_that_cannot_be_counted_hide_no_answer_and_no_error(box: Any, tmp_path: Any) -> None:
    outbox = ["--outbox", str(tmp_path / "o.db")]
    hitl(box, "approve", "k0", "--payload", json.dumps({"note": "x" * 40000}), *outbox)
    # no page but the first says where the rest of the note is, and the state that comes after it
    intact = (tmp_path / "o.db").read_bytes()
    (tmp_path / "o.db").write_bytes(re.sub(b"[^x]{4}(?=x{4092})", b"\0\0\0\0", intact))
    accepted = hitl(box, "approve", "k1", *outbox)
    assert (accepted.code, accepted.out.split()[0]) == (0, "accepted")
    flushed = call("outbox", "flush", "-u", box.url, *outbox)
    assert (flushed.code, flushed.out) == (0, "sent       0\nduplicate  0\nqueued     0\ndead       0\n")
    box.fail_next(422)
    refused = hitl(box, "approve", "k2", *outbox)
    assert (refused.code, "\nhestiaos-lite: [SCRIPTED_FAULT]" in refused.err) == (2, True)
    for called in (accepted, flushed, refused):
        assert "the dead in the outbox cannot be counted: [OUTBOX] " in called.err


def test_an_outbox_queues_lists_flushes_and_drops(box: Any, tmp_path: Any) -> None:
    outbox = ["--outbox", str(tmp_path / "outbox.db")]
    box.stop()
    for key in ("k1", "k2"):
        queued = hitl(box, "approve", key, "--retries", "0", *outbox)
        assert (queued.code, queued.out.split()[0]) == (75, "queued")
    (cure,) = [line.partition("to send it: hestiaos-lite ")[2] for line in queued.err.splitlines()]
    # as it is, it sends what waits
    assert shlex.split(cure) == ["outbox", "flush", *outbox, "--base-url", box.url]
    assert call("outbox", "flush", "-u", box.url, "--retries", "0", "-j", *outbox).code == 75
    box.start()
    assert call("outbox", "drop", "2", *outbox) == Called(0, "", "dropped approve k2 (queued)\n")
    assert call("outbox", "drop", "2", *outbox).code == 1
    flushed = call("outbox", "flush", "-u", box.url, "-j", *outbox)
    assert flushed.code == 0
    assert flushed.json == {"sent": 1, "duplicate": 0, "queued": 0, "dead": 0, "elsewhere": 0}
    listed = call("outbox", "list", "-j", *outbox)
    shown = [(row["id"], row["state"], row["idempotency_key"], row["payload"]) for row in listed.json]
    assert (listed.code, shown) == (0, [(1, "settled", "k1", {})])
    listed = call("outbox", "list", *outbox)
    assert (listed.code, listed.out[:38]) == (0, "1  settled  approve  k1  thread th  20")
    assert call("outbox", "list", "--state", "dead", *outbox) == Called(0, "", "")


@pytest.mark.parametrize(
    "command", ["list", "flush", "requeue --all", "move --from http://h --to http://i", "drop 1"]
)
def test_an_outbox_that_is_not_there_is_named_and_not_made(tmp_path: Any, command: str) -> None:
    """A path that is mistyped in a crontab would be silent for ever."""
    called = call("outbox", *command.split(), "--outbox", str(tmp_path / "o db"))
    assert (called.code, called.out, os.listdir(str(tmp_path))) == (78, "", [])
    words = "no such outbox: '{}/o db'; the first decision with --outbox creates it".format(tmp_path)
    assert words in called.err


def test_what_looks_after_a_row_prints_it_as_json(box: Any, tmp_path: Any) -> None:
    outbox = ["--outbox", str(tmp_path / "o.db"), "-j"]
    box.fail_next(422)
    hitl(box, "approve", "k1", *outbox)
    row = dict(call("outbox", "list", *outbox).json[0])
    assert list(row)[:5] == ["id", "state", "service", "action", "idempotency_key"]
    assert not {"owner", "payload_digest"} & set(row)  # of no use outside the file
    requeued = call("outbox", "requeue", "1", *outbox).json
    row.update(state="queued", ended_ms=None)
    for name in ("changed_ms", "next_attempt_ms"):
        row[name] = requeued[name]
    assert requeued == row
    assert call("outbox", "drop", "1", *outbox).json == row
    hitl(box, "approve", "k2", *outbox)
    sqlite_file(tmp_path / "o.db", "UPDATE decision SET action = 'x'")
    assert call("outbox", "drop", "2", *outbox).json == {"id": 2}
    assert call("outbox", "list", *outbox).json == []


def test_the_lease_outlasts_a_timeout_of_the_environment(box: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AEGIS_TIMEOUT", "90")
    outbox = ["--outbox", str(tmp_path / "o.db")]
    assert hitl(box, "approve", "k", *outbox).code == 0
    assert call("outbox", "flush", "-u", box.url, *outbox).code == 0
