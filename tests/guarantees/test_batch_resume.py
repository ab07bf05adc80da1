"""A batch is resumed from whatever a kill or a loss of power has left: nothing sent twice, no result lost but a damaged one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import stat
from typing import Any, Dict, List, NamedTuple, Sequence

import pytest

from hestiaos_lite.batch import store
from hestiaos_lite.sandbox import Sandbox

from ..batch.kit import BLOCKED_TEXT, Batch, after_a_loss_of_power, put, read, wait_for_requests
from ..faultserver import FaultServer, Wire, ok, reply

ROWS = 24
ALLOWED, REFUSAL = ok({"result": "ALLOW", "trace_id": "t"}), reply(403, b'{"trace_id": "t"}')
INPUTS = ["{} {}".format(BLOCKED_TEXT if number % 4 == 3 else "row", number) for number in range(ROWS)]


def give_inputs(batch: Batch) -> None:
    batch.give([{"id": "r{}".format(number), "input": text} for number, text in enumerate(INPUTS)])


def contents(batch: Batch) -> Dict[str, bytes]:
    return {path: read(path) for path in (batch.out, batch.bad, batch.journal) if os.path.exists(path)}


class Whole(NamedTuple):
    """A complete run of one row at a time: the journal's two files as each row arrived, its request id, and OUT and BAD."""

    journal: List[bytes]
    log: List[bytes]
    request_ids: List[str]
    out: bytes
    bad: bytes


def run_whole(folder: Any) -> Whole:
    journal: List[bytes] = []
    log: List[bytes] = []
    request_ids: List[str] = []

    def serve(wire: Wire) -> None:
        while True:
            request = wire.request()
            text = json.loads(request.body.decode("utf-8"))["input"]
            request_ids.append(request.headers["x-request-id"])
            journal.append(read(batch.journal))
            log.append(read(batch.journal + "-wal"))
            wire.send(REFUSAL if text.startswith(BLOCKED_TEXT) else ALLOWED)

    with FaultServer(serve) as server:
        batch = Batch(folder, server.url)
        give_inputs(batch)
        assert batch.go("--jobs", "1").code == 1
    return Whole(journal, log, request_ids, read(batch.out), read(batch.bad))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return run_whole(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("states", "seed"), [(25, 71), pytest.param(4000, 72, marks=pytest.mark.slow)])
def test_every_state_that_a_loss_of_power_may_leave_is_resumed(
    whole: Whole, states: int, seed: int, tmp_path: Any
) -> None:
    """On the disk is the journal of each row that was sent; what follows in its log, OUT and BAD may be damaged."""
    print("seed", seed)
    rng = random.Random(seed)
    for state in range(states):
        folder = tmp_path / "state"
        folder.mkdir()
        arrived_last = rng.randrange(ROWS)  # with its arrival all that came before is on the disk
        later = rng.randrange(arrived_last, ROWS)
        with Sandbox() as box:
            batch = Batch(folder, box.url)
            give_inputs(batch)
            put(batch.journal, whole.journal[arrived_last])
            synced = len(whole.log[arrived_last])
            put(batch.journal + "-wal", after_a_loss_of_power(whole.log[later], synced, rng))
            put(batch.out, after_a_loss_of_power(whole.out, 0, rng))
            put(batch.bad, after_a_loss_of_power(whole.bad, 0, rng))
            called = batch.go("--resume", "--moved")
            assert called.code in (1, 3), (state, called)
            batch.check_each_id_once(ROWS)
            arrived = [request.json["input"] for request in box.requests]
        assert len(set(arrived)) == len(arrived)
        assert not set(arrived) & set(INPUTS[: arrived_last + 1])
        unknown = [
            INPUTS[int(line["id"][1:])]
            for line in batch.lines(batch.bad)
            if line["error"]["effect"] == "unknown"
        ]
        assert set(INPUTS[later + 1 :]) <= set(arrived)
        assert set(INPUTS[arrived_last:]) <= set(arrived) | set(unknown) | set(INPUTS[arrived_last:later])
        assert len(unknown) <= 1  # one row was in flight
        shutil.rmtree(str(folder))


@pytest.mark.parametrize(("log", "in_doubt", "sent"), [
    ("is lost", range(ROWS), 0),  # it may have been the only one to know that a row was sent
    ("is lost after it was folded in", range(10, ROWS), 0),
    ("is folded in by another program", [10], ROWS - 11),
])  # fmt: skip
def test_without_its_log_a_journal_leaves_in_doubt_what_it_does_not_know(
    log: str,
    in_doubt: Sequence[int],
    sent: int,
    request: Any,
    box: Sandbox,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a run that was killed as the row r10 was in flight."""
    if log == "is lost after it was folded in":
        monkeypatch.setattr(store, "_CHECKPOINT_BYTES", 1)  # after each commit of rows or results
        whole = run_whole(tmp_path)
    else:
        whole = request.getfixturevalue("whole")
    folder = tmp_path / "state"
    folder.mkdir()
    batch = Batch(folder, box.url)
    give_inputs(batch)
    put(batch.journal, whole.journal[10])
    if log == "is folded in by another program":
        put(batch.journal + "-wal", whole.log[10])
        with contextlib.closing(sqlite3.connect(batch.journal)) as looked:
            assert looked.execute("SELECT COUNT(*) FROM rows").fetchone() == (ROWS,)
        assert not os.path.exists(batch.journal + "-wal")
    called = batch.go("--resume", "--moved")
    assert (called.code, "journal-wal is missing" in called.err) == (3, not sent)
    assert box.requests_total == sent
    batch.check_each_id_once(ROWS)
    unknown = [line for line in batch.lines(batch.bad) if line["error"]["effect"] == "unknown"]
    assert [line["id"] for line in unknown] == [
        "r{}".format(number) for number in in_doubt
    ]  # as in the input
    # by this id it can be looked up, though the process that sent it is gone
    assert not sent or unknown[0]["request_id"] == whole.request_ids[10]


def test_a_row_that_no_journal_writes_is_named(whole: Whole, box: Sandbox, tmp_path: Any) -> None:
    batch = Batch(tmp_path, box.url)
    give_inputs(batch)
    put(batch.journal, whole.journal[10])
    with contextlib.closing(sqlite3.connect(batch.journal)) as damaged, damaged:
        damaged.execute("UPDATE rows SET state = 'sent', id = '{' WHERE id = '\"r20\"'")
    called = batch.go("--resume", "--moved")
    assert (called.code, called.err.splitlines()[-1].partition(": Expecting")[0]) == (
        78,
        "hestiaos-lite: [JOURNAL] journal {}".format(batch.journal),
    )


MOVED = "moved or removed during the run"


@pytest.mark.skipif(os.name != "posix", reason="an open file is not moved on Windows")
@pytest.mark.parametrize(("lost", "codes", "words"), [
    ("OUT is moved", (74,), MOVED),
    ("BAD is removed", (74,), MOVED),
    # what was answered last cannot be recorded without the journal
    ("the journal is moved", (3, 78), "removed while open"),
    # whichever of its files is looked at first
    ("the folder is removed", (3, 78), "folder does not exist|" + MOVED),
])  # fmt: skip
def test_results_that_nobody_would_find_end_the_run(
    box: Sandbox, tmp_path: Any, lost: str, codes: Any, words: str
) -> None:
    batch = Batch(tmp_path / "results", box.url)
    os.mkdir(batch.folder)
    batch.input = str(tmp_path / "in.jsonl")
    batch.give_rows(400)
    box.delay_next(0.02, times=400)
    child = batch.start("--jobs", "2")
    wait_for_requests(box, 10)
    if lost == "the folder is removed":
        shutil.rmtree(batch.folder)
    elif lost == "BAD is removed":
        os.unlink(batch.bad)
    else:
        path = batch.out if lost == "OUT is moved" else batch.journal
        os.rename(path, path + ".moved")
    called = child.ended()
    assert (called.code in codes, bool(re.search(words, called.err))) == (True, True), called
    assert box.requests_total < 300


@pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
def test_what_is_made_is_the_users_alone_and_follows_no_link_of_another(box: Sandbox, tmp_path: Any) -> None:
    batch = Batch(tmp_path, box.url)
    batch.give_rows(3)
    box.fail_next(422)
    assert batch.go("--jobs", "1").code == 1
    victim = str(tmp_path / "victim")
    put(victim, b"precious\n")
    os.chmod(victim, 0o644)
    os.symlink(victim, batch.bad + ".rewriting")  # a draft of this name would empty it
    before = os.umask(0)
    try:
        assert batch.go("--retry-failed").code == 0
    finally:
        os.umask(before)
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in contents(batch)] == [0o600] * 3
    assert read(victim) == b"precious\n"
    assert stat.S_IMODE(os.stat(victim).st_mode) == 0o644
    drafts = [name for name in os.listdir(batch.folder) if name.endswith(".rewriting")]
    assert drafts == ["bad.jsonl.rewriting"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a link of another user's needs root"
)
@pytest.mark.parametrize("name", ["out.jsonl", "bad.jsonl"])
def test_a_link_that_another_user_has_planted_is_refused(box: Sandbox, tmp_path: Any, name: str) -> None:
    batch = Batch(tmp_path, box.url)
    batch.give_rows(3)
    link = str(tmp_path / name)
    os.symlink(str(tmp_path / "victim"), link)
    os.chown(link, 12345, 12345, follow_symlinks=False)
    called = batch.go()
    assert called.code == 74
    assert "is another user's link" in called.err
    assert not os.path.exists(str(tmp_path / "victim"))
    assert box.requests_total == 0
