"""``hestiaos-lite batch``: input, results, journal, resuming, signals, exit codes; each against a sandbox of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import time
from collections import Counter
from typing import Any, Dict, Iterator, List

import pytest

from hestiaos_lite.batch.rate import Backoff
from hestiaos_lite.cli import batch as command_of_batch
from hestiaos_lite.sandbox import Sandbox

from ..batch.kit import BLOCKED_TEXT, Batch, executions, once, put, read, wait_for_requests, wait_until
from ..cli_call import Called, call, command, environment
from ..faultserver import closed_port

posix = pytest.mark.skipif(os.name != "posix", reason="signals, limits and pipes of POSIX")


def said(rows: int, **counts: int) -> str:
    """The line that a run ends with."""
    counts = dict(dict.fromkeys(("ok", "blocked", "refused", "again", "unknown", "unsent"), 0), **counts)
    return "rows {}, {}\n".format(rows, ", ".join(map("{0[0]} {0[1]}".format, counts.items())))


@pytest.fixture
def batch(box: Sandbox, tmp_path: Any) -> Iterator[Batch]:
    yield Batch(tmp_path, box.url)


# -- a run


def test_a_run_leaves_each_id_in_one_of_both_files(box: Sandbox, batch: Batch) -> None:
    batch.give([
        {"id": "a", "input": "hi"},
        {"id": 7, "input": BLOCKED_TEXT},
        {"id": "b", "input": "ho", "session_id": "s", "timeout_ms": 700},
    ])  # fmt: skip
    assert batch.go("--timeout", "4") == Called(1, "", said(3, ok=2, blocked=1))
    # what cron mails of a run that has not gone well
    assert batch.go("--resume", "--quiet") == Called(1, "", "hestiaos-lite: " + said(3, ok=2, blocked=1))
    outputs = {line["id"]: line["response"]["output"] for line in batch.lines(batch.out)}
    assert outputs == {"a": "processed: hi", "b": "processed: ho"}
    good, (blocked,) = batch.lines(batch.out)[0], batch.lines(batch.bad)
    assert list(good) == ["id", "ok", "response", "attempts", "seconds"]
    assert list(blocked) == ["id", "ok", "error", "attempts", "seconds", "request_id"]
    assert (blocked["id"], blocked["ok"], blocked["attempts"]) == (7, False, 1)
    trace_id = blocked["error"].pop("trace_id")
    assert blocked["error"] == {
        "class": "GovernanceBlock", "code": "GOVERNANCE_BLOCK", "status": 403, "delivered": True, "effect": "none",
        "message": "blocked by policy destructive-shell: deletes files by force",
    }  # fmt: skip
    sent = sorted((request.json["input"], request.json["options"]["timeout_ms"]) for request in box.requests)
    assert sent == [("hi", 4000), ("ho", 700), (BLOCKED_TEXT, 4000)]
    assert call("trace", trace_id, "--json", "--base-url", batch.url).json["decision"] == "BLOCK"


def test_without_bad_everything_is_in_out(batch: Batch) -> None:
    batch.give([{"id": 1, "input": "hi"}, {"id": 2, "input": BLOCKED_TEXT}])
    called = call("batch", batch.input, "--out", batch.out, "--base-url", batch.url, "--json")
    assert (called.code, called.err) == (1, "")
    none = dict.fromkeys(("refused", "again", "unknown", "unsent"), 0)
    assert called.json == dict(none, rows=2, ok=1, blocked=1, exit_code=1)
    assert sorted((line["id"], line["ok"]) for line in batch.lines(batch.out)) == [(1, True), (2, False)]


def test_text_from_standard_input_to_standard_output(box: Sandbox) -> None:
    text = "\ufeffone\r\n\n  two \nlast, without its end"
    called = call("batch", "-", "--out", "-", "--call", "chat", "--base-url", box.url, "--quiet", stdin=text)
    assert (called.code, called.err) == (0, "")
    answers = {line["id"]: line["response"]["result"] for line in map(json.loads, called.out.splitlines())}
    assert answers == {1: "processed: one", 3: "processed:   two ", 4: "processed: last, without its end"}


def test_an_empty_input_is_done(batch: Batch) -> None:
    batch.give([])
    assert batch.go() == Called(0, "", said(0))


# -- input


_NO_ID = "id must be a string that is not empty, or a whole number"
FAULTY = [
    (b'{"id": 1, "input": "good"}', None),
    (b'{"id": 1, "input": "twice"}', "the id 1 is in line 1 already"),
    (b'{"input": "no id"}', "id is missing"),
    (b'{"id": null, "input": "x"}', "id is missing"),
    (b'{"id": true, "input": "x"}', _NO_ID),
    (b'{"id": "", "input": "x"}', _NO_ID),
    (b'{"id": 1.5, "input": "x"}', _NO_ID),
    (b'{"id": "\\ud800", "input": "x"}', "id is not valid text"),
    (b'{"id": 2}', "input is missing"),
    (b'{"id": 2, "input": 5, "foo": 1}', 'input must be a string, not int; unknown field "foo"'),
    (b'{"id": 2, "input": "\\udfff"}', "input is not valid text"),
    (b'{"id": 2, "input": "x", "timeout_ms": 0}', "timeout_ms must be a whole number, 1 or more, not 0"),
    (b'{"id": 2, "input": "x", "task": "x"}', 'unknown field "task"'),
    (b'{"id": 3, "input": "x"', "is not JSON: Expecting ',' delimiter at column 23"),
    (b"", None),
    (b'{"id": 4, "id": 5, "input": "x"}', "is not JSON: an object names 'id' twice"),
    (b'{"id": 6, "input": NaN}', "input must be a string, not float"),
    (b"[1, 2]", "a row must be an object, not list"),
    (b'{"id": 7, "input": "\xff"}', "is not UTF-8 text (after 20 characters): save it as UTF-8, or name its --encoding"
     " (cp1252 of a Western Excel)"),
    (b'{"id": "1", "input": "another id than the number"}', None),
]  # fmt: skip


def test_every_fault_is_reported_with_its_line_and_nothing_is_sent(box: Sandbox, batch: Batch) -> None:
    put(batch.input, b"\n".join(line for line, _ in FAULTY))
    called = batch.go()
    assert called.code == 65
    assert called.err.splitlines() == [
        *(
            "hestiaos-lite: {} line {}: {}".format(batch.input, number, fault)
            for number, (_, fault) in enumerate(FAULTY, 1)
            if fault
        ),
        "hestiaos-lite: [BAD_DATA] {}: 17 faulty lines; nothing was sent".format(batch.input),
    ]
    assert box.requests_total == 0
    assert os.listdir(batch.folder) == ["in.jsonl"]


def test_of_many_faults_the_first_twenty_are_shown(batch: Batch) -> None:
    batch.give([{"id": number} for number in range(50)])
    called = batch.go()
    assert called.code == 65
    assert len(called.err.splitlines()) == 21
    assert "50 faulty lines (the first 20 are shown)" in called.err
    batch.give_rows(25)
    assert batch.go().code == 0
    batch.give([dict(row, input="changed") for row in batch.lines(batch.input)])
    called = batch.go("--resume")
    assert (called.code, called.err.count(" (id ")) == (65, 20)


@pytest.mark.parametrize(("name", "content", "call_name", "ids"), [
    ("a.jsonl", '\n{"id": "x", "input": "a"}\n', "run", ["x"]),
    ("a.txt", '{"id": "x"}\n', "run", [1]),
    ("a", '\n{"id": "x", "message": "a"}', "chat", ["x"]),
    ("a", "plain\nlines\n", "chat", [1, 2]),
    ("a.NDJSON", '{"id": "x", "agent_id": "a", "input": "t"}', "agent", ["x"]),
])  # fmt: skip
def test_the_format_is_known_by_name_or_first_line(
    box: Sandbox, tmp_path: Any, name: str, content: str, call_name: str, ids: List[Any]
) -> None:
    path, out = tmp_path / name, str(tmp_path / "out")
    path.write_text(content, encoding="utf-8")
    assert call("batch", str(path), "--out", out, "--call", call_name, "--base-url", box.url).code == 0
    assert Batch(tmp_path, box.url).ids(out) == ids


@posix
def test_a_pipe_is_read_once_and_checked_whole(box: Sandbox, batch: Batch) -> None:
    os.mkfifo(batch.input)
    child = batch.start()
    batch.give_rows(5)
    assert child.wait() == Called(0, "", said(5, ok=5))
    assert executions(box) == once(5)


@posix
@pytest.mark.parametrize(("how", "words"), [
    ("a line is broken", "has changed since it was checked"),
    ("another is copied over it", ""),
    ("it is cut", "it ends early and has changed since"),
    ("a row is repeated", "was it given twice?"),
])  # fmt: skip
def test_an_input_that_changes_while_it_is_read_ends_the_run(
    box: Sandbox, batch: Batch, how: str, words: str
) -> None:
    """What was not checked went out under the old digests, and a repeated id was sent four times."""
    filler = "x" * 1000  # so that the file is larger than what is read at once
    given = [{"id": n, "input": "row {}".format(n), "session_id": filler} for n in range(80)]
    batch.give(given)
    box.delay_next(0.5)
    child = batch.start("--jobs", "1")
    wait_for_requests(box, 1)
    if how == "a line is broken":
        with open(batch.input, "rb+") as file:
            file.seek(40 * 1024)
            file.write(b"\n{broken\n")
    elif how == "it is cut":
        batch.give(given[:40])
    elif how == "a row is repeated":
        batch.give(given[:40] + 40 * [given[40]])
    else:
        batch.give([{"id": n // 2 * 2, "input": "another", "session_id": filler} for n in range(80)])
    called = child.ended()
    assert (called.code, "[BAD_DATA] {}".format(batch.input) in called.err) == (65, True)
    assert words in called.err
    assert executions(box) == once(sum(executions(box).values()))


def test_an_input_that_cannot_be_read_is_bad_data(batch: Batch) -> None:
    words = "hestiaos-lite: [BAD_DATA] {} cannot be read: No such file or directory\n".format(batch.input)
    assert batch.go() == Called(65, "", words)
    os.mkdir(batch.input)
    assert batch.go().code == 65


# -- usage


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(2)
    foreign = os.path.join(batch.folder, "foreign")
    put(foreign, b"precious")
    base = ["batch", batch.input, "--base-url", batch.url]
    cases = [
        (base + ["--out", batch.input], 2, "is the input"),
        (base + ["--out", batch.out, "--failed", batch.input], 2, "is the input"),
        (base + ["--out", batch.out, "--failed", batch.out], 2, "must be different files"),
        (base + ["--out", batch.out, "--failed", batch.journal], 2, "must be different files"),
        (base + ["--out", batch.out, "--failed", "-"], 2, "cannot hold results"),
        (base + ["--out", batch.folder], 2, "cannot hold results"),
        (base + ["--out", batch.out, "--failed", foreign], 2, "holds results of an earlier run"),
        (base + ["--out", batch.out, "--failed", foreign, "--resume"], 2, "holds something else"),
        (base + ["--out", "-", "--resume"], 2, "cannot be resumed"),
        (base + ["--out", batch.out, "--call", "agent"], 65, "agent_id is missing"),
        (base + ["--out", batch.out, "--format", "text", "--call", "agent"], 2, "give it JSON lines"),
        (base + ["--out", os.path.join(batch.folder, "no", "out")], 78, "its folder does not exist; make it first"),
        (base + ["--out", batch.out, "--failed", os.path.join(batch.folder, "no", "bad")], 74,
         "[RESULTS] {} cannot be written: no such file or directory".format(os.path.join(batch.folder, "no", "bad"))),
        (base + ["--out", batch.out, "--encoding", "klingon"], 2, "unknown encoding: klingon"),
        (base + ["--out", batch.out, "--rate", "fast"], 2, "the rate must be above 0"),
        (base + ["--out", batch.out, "--jobs", "0"], 2, "must be 1 or more"),
        (base + ["--out", batch.out, "--jobs", "10001"], 2, "must be 10000 or less, not 10001"),
        (["batch", "", *base[2:], "--out", batch.out], 2, "argument IN: must not be empty"),
        (base + ["--out", batch.out, "--delimiter", "ab"], 2, "must be one character, or tab, not 'ab'"),
        (base, 2, "--out"),
    ]  # fmt: skip
    for arguments, code, words in cases:
        called = call(*arguments)
        assert (called.code, words in called.err) == (code, True), called
    assert (box.requests_total, sorted(os.listdir(batch.folder))) == (0, ["foreign", "in.jsonl"])
    assert read(foreign) == b"precious"


def test_results_of_an_earlier_run_are_never_overwritten(batch: Batch) -> None:
    batch.give_rows(2)
    assert batch.go("--quiet") == Called(0, "", "")
    before = read(batch.out)
    again = batch.go()
    assert again.code == 2
    assert "holds results of an earlier run: continue with --resume;" in again.err
    assert read(batch.out) == before


@posix
def test_two_runs_at_once_do_not_share_files(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(4)
    box.delay_next(2, times=4)
    first = batch.start()
    wait_for_requests(box, 1)
    second = batch.go("--resume")
    assert second.code == 75
    assert "[JOURNAL_BUSY]" in second.err
    assert first.ended().code == 0
    assert executions(box) == once(4)


# -- resuming


# What the first rows met -> the exit code, and how many of them --retry-failed and --retry-unknown send again. The gravest
# outcome is the exit code; a block is a result and not a failure; what may have taken effect is repeated by one flag alone.
@pytest.mark.parametrize(("faults", "code", "failed", "unknown"), [
    ([], 0, 0, 0),
    (["block"], 1, 0, 0),
    ([422], 1, 1, 0),
    ([422, 503], 75, 2, 0),
    ([422, 503, 504], 3, 2, 1),
    ([500, 502, 520, 599], 3, 0, 4),
    (["lost"], 3, 0, 1),
], ids=str)  # fmt: skip
def test_what_is_sent_again_is_what_was_asked_for(
    box: Sandbox, batch: Batch, monkeypatch: Any, faults: List[Any], code: int, failed: int, unknown: int
) -> None:
    monkeypatch.setattr(Backoff, "base_seconds", 0.01)
    batch.give_rows(5)
    if faults == ["block"]:
        batch.give([{"id": "r0", "input": BLOCKED_TEXT}, *batch.lines(batch.input)[1:]])
    for fault in faults:
        if fault == "lost":
            box.lose_next_answer()
        elif fault != "block":
            box.fail_next(fault)
    assert batch.go("--retries", "0", "--jobs", "1").code == code
    assert len(batch.lines(batch.bad)) == len(faults)
    assert sum(line["error"]["effect"] == "unknown" for line in batch.lines(batch.bad)) == unknown
    blocked = faults.count("block")
    for flag, sent, left in (
        ("--resume", 0, code),
        ("--retry-failed", failed, 3 if unknown else blocked),
        ("--retry-unknown", unknown, blocked),
    ):
        before = box.requests_total
        assert batch.go(flag).code == left
        assert box.requests_total - before == sent
    batch.check_each_id_once(5)


EDITS: Dict[str, Any] = {
    "cut": lambda data: data[:-20],
    "emptied": lambda data: b"",
    "a line changed": lambda data: data.replace(b"r0", b"xx").replace(b"r3", b"xx"),
    "a line added": lambda data: data + data.splitlines(True)[0],
    "as it was": lambda data: data,
    "removed": None,
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", ["out", "bad"])
def test_whatever_became_of_out_and_bad_they_are_made_anew(
    box: Sandbox, batch: Batch, name: str, edit: str
) -> None:
    batch.give_rows(8)
    box.fail_next(422, times=2)
    box.fail_next(500)
    assert batch.go("--jobs", "1").code == 3
    path = getattr(batch, name)
    before = [read(batch.out), read(batch.bad)]
    if edit == "removed":
        os.unlink(path)
    else:
        put(path, EDITS[edit](read(path)))
        os.chmod(path, 0o640)
    called = batch.go("--resume")
    is_rebuilt = edit in ("cut", "a line changed", "a line added")  # else it gets what it has yet to get
    told = "{} was rebuilt from the journal\n".format(path)
    assert (called.code, told in called.err) == (3, is_rebuilt)
    assert [read(batch.out), read(batch.bad)] == before
    if os.name == "posix":
        assert stat.S_IMODE(os.stat(path).st_mode) == (0o600 if edit == "removed" else 0o640)
    assert box.requests_total == 8


@pytest.mark.parametrize("failed", ["left out", "another name", "renamed", "something else"])
def test_what_is_known_stays_known_wherever_bad_is(box: Sandbox, batch: Batch, failed: str) -> None:
    """A block was called unknown, and rows that never left were not repeated, once BAD was not where it had been."""
    batch.give([{"id": "r0", "input": BLOCKED_TEXT}, {"id": "r1", "input": "a"}, {"id": "r2", "input": "b"}])
    box.fail_next(503)
    assert batch.go("--jobs", "1", "--retries", "0").code == 75
    other = os.path.join(batch.folder, "other.jsonl")
    arguments = [value for value in batch.arguments("--retry-failed") if value not in ("--failed", batch.bad)]
    if failed == "renamed":
        os.rename(batch.bad, other)
    if failed == "something else":
        put(other, b"precious")
    if failed != "left out":
        arguments += ["--failed", other]
    called = call(*arguments)
    if failed == "something else":
        assert (called.code, "holds something else" in called.err) == (2, True)
        assert read(other) == b"precious"
        called = batch.go("--retry-failed")
    assert called.code in (0, 1), called
    bad = batch.bad if failed in ("left out", "something else") else other
    assert sorted(line["id"] for line in batch.lines(bad) + batch.lines(batch.out)) == ["r0", "r1", "r2"]
    assert all(line["ok"] for line in batch.lines(batch.out))
    assert {line["error"]["code"] for line in batch.lines(bad)} <= {"GOVERNANCE_BLOCK"}
    assert box.requests_total == 4


@posix
def test_killed_in_a_pause_it_leaves_no_doubt_about_what_was_turned_away(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(30)
    box.fail_next(429, times=3, retry_after=600)
    child = batch.start("--jobs", "3")
    wait_for_requests(box, 3)
    time.sleep(0.5)
    child.kill()
    assert child.wait() is None
    assert batch.go("--resume").code == 0
    assert executions(box) == once(30)
    batch.check_each_id_once(30)


@posix
def test_a_row_in_flight_at_a_kill_is_for_retry_unknown_alone_also_a_corrected_one(
    box: Sandbox, batch: Batch
) -> None:
    batch.give_rows(1)
    box.delay_next(30)
    child = batch.start()
    wait_for_requests(box, 1)
    child.kill()
    assert child.wait() is None
    batch.give([{"id": "r0", "input": "row 0, corrected"}])
    assert [batch.go(flag).code for flag in ("--retry-failed", "--retry-unknown")] == [65, 0]
    assert [request.json["input"] for request in box.requests] == ["row 0", "row 0, corrected"]


def test_failed_rows_are_repeated_when_asked_also_with_a_corrected_row(box: Sandbox, batch: Batch) -> None:
    batch.give([{"id": "r{}".format(n), "input": "row {}".format(n), "session_id": "s"} for n in range(4)])
    box.fail_next(422)
    assert batch.go("--jobs", "1").code == 1
    assert batch.ids(batch.bad) == ["r0"]
    rows = batch.lines(batch.input)
    others = [dict(reversed(list(row.items()))) for row in rows[1:]]  # in another order is no change
    batch.give([dict(rows[0], input="row 0, corrected")] + others)
    changed = batch.go("--resume")
    assert changed.code == 65
    assert 'the input is no longer what was sent: line 1 (id "r0"); put it back' in changed.err
    assert batch.go("--retry-failed").code == 0
    assert box.requests_total == 5
    batch.give([*batch.lines(batch.input), {"id": "r4", "input": "added"}])
    assert batch.go("--resume").code == 0
    assert box.requests_total == 6
    batch.check_each_id_once(5)


def test_failed_rows_in_out_are_moved_to_bad_when_repeated(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(4)
    box.fail_next(422, times=2)
    assert call("batch", batch.input, "--out", batch.out, "--base-url", batch.url, "--jobs", "1").code == 1
    box.fail_next(422)
    mode = os.stat(batch.out).st_mode
    assert batch.go("--retry-failed", "--jobs", "1").code == 1
    batch.check_each_id_once(4)
    assert len(batch.lines(batch.bad)) == 1
    assert os.stat(batch.out).st_mode == mode


@pytest.mark.parametrize(("journal", "words"), [
    (None, "is missing, so nobody can know which rows were sent"),
    (b"{}\n", "this is not an SQLite file, or it is damaged; it was left unchanged"),
])  # fmt: skip
def test_a_journal_that_no_run_has_left_is_not_touched(
    box: Sandbox, batch: Batch, journal: Any, words: str
) -> None:
    batch.give_rows(3)
    assert batch.go("--jobs", "1").code == 0
    before = read(batch.out)
    os.unlink(batch.journal)
    if journal is not None:
        put(batch.journal, journal)
    called = batch.go("--resume")
    assert called.code == 78
    assert words in called.err
    assert read(batch.out) == before
    assert box.requests_total == 3
    assert journal is None or read(batch.journal) == journal


def test_a_link_to_a_result_file_stays_a_link(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(3)
    real = os.path.join(batch.folder, "real.jsonl")
    os.symlink(real, batch.bad)
    box.fail_next(422)
    assert batch.go("--jobs", "1").code == 1
    assert batch.go("--retry-failed").code == 0
    assert os.path.islink(batch.bad)
    assert os.path.getsize(real) == 0


# -- ends


def test_a_wrong_key_leaves_nothing_behind(tmp_path: Any) -> None:
    with Sandbox(api_key="right") as box:
        batch = Batch(tmp_path, box.url)
        batch.give_rows(100)
        called = batch.go("--api-key", "wrong")
        assert called.code == 77
        assert said(100, unsent=100) in called.err
        assert "[UNAUTHORIZED]" in called.err
        assert box.requests_total <= 16
        assert os.listdir(batch.folder) == ["in.jsonl"]
        assert batch.go("--api-key", "right").code == 0
        batch.check_each_id_once(100)


def test_a_service_that_is_not_there_leaves_everything_unsent(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "base_seconds", 0.01)
    batch.give_rows(30)
    batch.url = "http://127.0.0.1:{}".format(closed_port())
    called = batch.go()
    assert called.code == 75
    assert "unsent 30" in called.err
    assert "cannot connect" in called.err


@pytest.mark.parametrize(("text", "most", "code", "left"), [
    ("row", "5", 75, (5, 6)),
    (BLOCKED_TEXT, "1", 1, (100,)),  # a block is no failure
])  # fmt: skip
def test_failures_end_the_run_when_there_are_too_many(
    box: Sandbox, batch: Batch, text: str, most: str, code: int, left: Any
) -> None:
    batch.give([{"id": "r{}".format(n), "input": text} for n in range(100)])
    if text == "row":
        box.fail_next(422, times=100)
    assert batch.go("--max-failures", most, "--jobs", "2").code == code
    assert len(batch.lines(batch.bad)) in left
    box.clear_faults()
    assert batch.go("--retry-failed").code == (0 if text == "row" else 1)
    batch.check_each_id_once(100)


def test_the_deadline_leaves_the_rest_unsent(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(60)
    box.delay_next(0.1, times=500)
    called = batch.go("--deadline", "0.3", "--jobs", "2")
    assert called.code == 75
    assert "[BATCH_DEADLINE]" in called.err
    box.clear_faults()
    assert batch.go("--resume").code == 0
    assert executions(box) == once(60)
    batch.check_each_id_once(60)


# -- signals


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_first_signal_finishes_what_is_in_flight(
    box: Sandbox, batch: Batch, number: int, code: int
) -> None:
    batch.give_rows(60)
    box.delay_next(0.1, times=300)
    child = batch.start("--jobs", "4")
    wait_for_requests(box, 10)
    child.signal(number)
    called = child.ended()
    assert called.code == code
    for words in ("finishing what is in flight", "unknown 0", "--resume sends the"):
        assert words in called.err
    assert executions(box) == Counter({"row {}".format(line["id"][1:]): 1 for line in batch.lines(batch.out)})
    box.clear_faults()
    assert batch.go("--resume").code == 0
    assert executions(box) == once(60)
    batch.check_each_id_once(60)


@posix
def test_a_second_signal_stops_now_and_leaves_doubt_only_about_what_was_in_flight(
    box: Sandbox, batch: Batch
) -> None:
    batch.give_rows(50)
    box.delay_next(25, times=3)
    child = batch.start("--jobs", "3")
    wait_for_requests(box, 3)
    child.signal(signal.SIGINT)
    wait_until(lambda: "interrupt again to stop now" in child.said())
    while not child.has_ended():  # what follows the first at once is the first again
        child.signal(signal.SIGINT)
        time.sleep(0.1)
    called = child.ended()
    assert (called.code, said(50, unknown=3, unsent=47) in called.err) == (130, True)
    assert "--resume sends the 47 that are unsent" in called.err
    assert "first look up what became of the unknown ones" in called.err
    box.clear_faults()
    assert batch.go("--resume").code == 3
    assert batch.ids(batch.bad) == ["r0", "r1", "r2"]
    batch.check_each_id_once(50)


@posix
def test_a_signal_that_comes_twice_at_once_is_one(
    box: Sandbox, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timeout(1) signals its command, and then the group that the command is in."""
    monkeypatch.setattr(command_of_batch, "_ONE_SIGNAL_SECONDS", 3600)
    batch.give_rows(50)
    box.delay_next(1, times=3)
    child = batch.start("--jobs", "3")
    wait_for_requests(box, 3)
    child.signal(signal.SIGTERM)
    wait_until(lambda: "interrupt again to stop now" in child.said())
    child.signal(signal.SIGTERM)
    called = child.ended()
    assert (called.code, said(50, ok=3, unsent=47) in called.err) == (143, True)


# -- a disk that is full


def limit_files(size: int) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@posix
def test_ids_that_find_no_room_among_the_temporary_files_are_no_bug(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that few of them are too many for memory
    monkeypatch.setattr("hestiaos_lite.batch.store._CACHE_KIB", 1)
    batch.give_rows(2000)
    called = batch.start("--check", prepare=lambda: limit_files(2000)).ended()
    assert (called.code, "[JOURNAL_DISK] " in called.err, "set TMPDIR" in called.err) == (74, True, True), (
        called
    )


@posix
@pytest.mark.parametrize("limit", [2000, 30000, 100000])
def test_a_full_disk_stops_the_sending_and_names_the_file(box: Sandbox, batch: Batch, limit: int) -> None:
    batch.give_rows(100)
    first = batch.start("--jobs", "4", prepare=lambda: limit_files(limit)).ended()
    assert "check the disk, quotas and file size limits" in first.err
    assert first.code in ((3, 74) if box.requests_total else (74,)), first
    assert box.requests_total < 100
    resumed = batch.go("--resume")
    unknown = len(batch.lines(batch.bad)) if os.path.exists(batch.bad) else 0
    assert resumed.code == (3 if unknown else 0)
    assert unknown <= 2 * 4
    assert (first.code == 3) is bool(unknown)
    batch.check_each_id_once(100)
    assert executions(box) == once(100)


@posix
def test_a_closed_standard_output_stops_the_sending(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(2000)
    process = subprocess.Popen(
        command("batch", batch.input, "--out", "-", "--base-url", box.url, "--quiet"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b'{"id": ')
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert box.requests_total < 2000


def test_the_help_gives_one_default_for_retries() -> None:
    text = " ".join(call("batch", "--help").out.split())
    assert "--retries times (default 5)" in text
    assert "default 3" not in text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_the_last_result_that_cannot_be_written_is_no_success(box: Sandbox) -> None:
    """It is recorded as the run winds down, when nothing is sent any more."""
    with open("/dev/full", "wb", buffering=0) as full:
        out = io.TextIOWrapper(full, write_through=True)
        called = call("batch", "-", "--out", "-", "--base-url", box.url, stdin="one", stdout=out)
        out.detach()
    assert (called.code, "No space left on device" in called.err) == (74, True), called
    assert box.requests_total == 1
