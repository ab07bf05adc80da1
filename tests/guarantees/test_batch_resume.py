"""A batch is resumed from whatever a kill or a loss of power has left: nothing sent twice, no result lost but a damaged one."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from typing import Any, Dict

import pytest

from hestiaos_lite.sandbox import Sandbox

from ..batch.test_run import BLOCKED_TEXT
from ..cli.test_batch import Batch, wait_for_requests

ROWS = 24
PAGE = 96  # bytes; a real one holds the whole of so few rows
INPUTS = ["{} {}".format(BLOCKED_TEXT if number % 4 == 3 else "row", number) for number in range(ROWS)]


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def put(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def give_inputs(batch: Batch) -> None:
    batch.give([{"id": "r{}".format(number), "input": text} for number, text in enumerate(INPUTS)])


def contents(batch: Batch) -> Dict[str, bytes]:
    return {path: read(path) for path in (batch.out, batch.bad, batch.journal) if os.path.exists(path)}


def after_a_loss_of_power(data: bytes, synced: int, rng: random.Random) -> bytes:
    """What may be left of a file: whole up to ``synced``; of what follows, pages may be missing before later ones."""
    left = bytearray(data[: rng.randint(synced, len(data))])
    for start in range(synced, len(left), PAGE):
        if rng.random() < 0.3:
            end = min(start + PAGE, len(left))
            left[start:end] = bytes(end - start)
    return bytes(left)


@pytest.mark.parametrize(("states", "seed"), [(40, 71), pytest.param(2500, 72, marks=pytest.mark.slow)])
def test_every_state_that_a_loss_of_power_may_leave_is_resumed(states: int, seed: int, tmp_path: Any) -> None:
    """On the disk is the journal of each row that was sent; what follows in it, and every result, may be damaged."""
    print("seed", seed)
    rng = random.Random(seed)
    with Sandbox() as box:
        complete = Batch(tmp_path, box.url)
        give_inputs(complete)
        assert complete.go("--jobs", "1").code == 1
    whole = contents(complete)
    journal = whole[complete.journal].splitlines(True)
    for state in range(states):
        folder = tmp_path / "state"
        folder.mkdir()
        sent = rng.randint(0, ROWS)
        synced = len(b"".join(journal[: sent + 1])) if sent else 0
        with Sandbox() as box:
            batch = Batch(folder, box.url)
            give_inputs(batch)
            put(batch.journal, after_a_loss_of_power(b"".join(journal), synced, rng))
            for path, name in ((batch.out, complete.out), (batch.bad, complete.bad)):
                lines = [
                    line for line in whole[name].splitlines(True) if int(json.loads(line)["id"][1:]) < sent
                ]
                put(path, after_a_loss_of_power(b"".join(lines), 0, rng))
            called = batch.go("--resume")
            assert called.code in (1, 3), (state, called)
            batch.check_each_id_once(ROWS)
            arrived = [request.json["input"] for request in box.requests]
        assert len(set(arrived)) == len(arrived)
        assert not set(arrived) & set(INPUTS[:sent])
        unknown = [line["id"] for line in batch.lines(batch.bad) if line["error"]["effect"] == "unknown"]
        assert set(INPUTS[sent:]) <= set(arrived) | {INPUTS[int(row_id[1:])] for row_id in unknown}
        assert (called.code == 3) is bool(unknown)
        shutil.rmtree(str(folder))


@pytest.mark.parametrize("retry", ["--retry-failed", "--retry-unknown"])
def test_a_retry_that_is_refused_changes_no_file(box: Sandbox, tmp_path: Any, retry: str) -> None:
    batch = Batch(tmp_path, box.url)
    batch.give_rows(6)
    box.fail_next(422, times=2)
    box.fail_next(500, times=2)
    assert batch.go("--jobs", "1").code == 3
    before = contents(batch)
    rows = batch.lines(batch.input)
    batch.give([*rows[:5], dict(rows[5], input="another")])
    called = batch.go(retry)
    assert called.code == 65
    assert "is no longer what was sent: line 6" in called.err
    assert "new file" not in called.err
    assert contents(batch) == before
    assert box.requests_total == 6


@pytest.mark.skipif(os.name != "posix", reason="an open file is not moved on Windows")
@pytest.mark.parametrize(
    "lost", ["OUT is moved", "BAD is removed", "the journal is moved", "the folder is removed"]
)
def test_results_that_nobody_would_find_end_the_run(box: Sandbox, tmp_path: Any, lost: str) -> None:
    batch = Batch(tmp_path / "results", box.url)
    os.mkdir(batch.folder)
    batch.input = str(tmp_path / "in.jsonl")
    batch.give_rows(400)
    box.delay_next(0.02, times=400)
    process = batch.start("--jobs", "2")
    wait_for_requests(box, 10)
    if lost == "the folder is removed":
        shutil.rmtree(batch.folder)
    elif lost == "BAD is removed":
        os.unlink(batch.bad)
    else:
        path = batch.out if lost == "OUT is moved" else batch.journal
        os.rename(path, path + ".moved")
    err = process.communicate(timeout=30)[1].decode("utf-8")
    assert process.returncode == 74, err
    assert "was moved or removed during the run" in err
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
@pytest.mark.parametrize("name", ["out.jsonl", "bad.jsonl", "out.jsonl.journal"])
def test_a_link_that_another_user_has_planted_is_refused(box: Sandbox, tmp_path: Any, name: str) -> None:
    batch = Batch(tmp_path, box.url)
    batch.give_rows(3)
    link = str(tmp_path / name)
    os.symlink(str(tmp_path / "victim"), link)
    os.chown(link, 12345, 12345, follow_symlinks=False)
    called = batch.go()
    assert called.code == 74
    assert "is a link of another user's" in called.err
    assert not os.path.exists(str(tmp_path / "victim"))
    assert box.requests_total == 0
