"""``hestiaos-lite batch``: input, results, journal, resuming, signals, exit codes; each against a sandbox of its own."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from typing import Any, Iterator, List

import pytest

from hestiaos_lite.batch.input import BatchInput
from hestiaos_lite.batch.rate import Backoff
from hestiaos_lite.cli import progress
from hestiaos_lite.sandbox import Sandbox

from ..batch.kit import BLOCKED_TEXT, Batch, executions, once, read, wait_for_requests
from ..cli_call import Called, call, command, environment, run
from ..faultserver import closed_port

UNKNOWN_ERROR = {
    "class": "HestiaError",
    "code": "OUTCOME_UNKNOWN",
    "message": "an earlier run sent it and ended before its answer was recorded; it may have taken effect",
    "status": None,
    "trace_id": None,
    "delivered": None,
    "effect": "unknown",
}


@pytest.fixture
def batch(box: Sandbox, tmp_path: Any) -> Iterator[Batch]:
    yield Batch(tmp_path, box.url)


# -- a run


def test_a_run_leaves_each_id_in_one_of_both_files(box: Sandbox, batch: Batch) -> None:
    batch.give(
        [
            {"id": "a", "input": "hi"},
            {"id": 7, "input": BLOCKED_TEXT},
            {"id": "b", "input": "ho", "session_id": "s"},
        ]
    )
    called = batch.go()
    assert called.code == 1
    assert called.out == ""
    assert called.err == "rows 3, ok 2, blocked 1, refused 0, again 0, unknown 0, unsent 0\n"
    assert batch.ids(batch.out) == ["a", "b"]
    (blocked,) = batch.lines(batch.bad)
    assert list(blocked) == ["id", "ok", "error", "attempts", "seconds", "request_id"]
    assert list(blocked["error"]) == [
        "class",
        "code",
        "message",
        "status",
        "trace_id",
        "delivered",
        "effect",
    ]
    assert (blocked["id"], blocked["error"]["code"], blocked["attempts"]) == (7, "GOVERNANCE_BLOCK", 1)
    assert [
        line["id"] for line in batch.lines(batch.out) if line["response"]["output"] == "processed: ho"
    ] == ["b"]
    assert Counter(request.json["input"] for request in box.requests) == {"hi": 1, BLOCKED_TEXT: 1, "ho": 1}


def test_without_bad_everything_stands_in_out(batch: Batch) -> None:
    batch.give([{"id": 1, "input": "hi"}, {"id": 2, "input": BLOCKED_TEXT}])
    called = call("batch", batch.input, "--out", batch.out, "--base-url", batch.url, "--json")
    assert (called.code, called.err) == (1, "")
    assert called.json == {
        "rows": 2,
        "ok": 1,
        "blocked": 1,
        "refused": 0,
        "again": 0,
        "unknown": 0,
        "unsent": 0,
        "exit_code": 1,
    }
    assert sorted((line["id"], line["ok"]) for line in batch.lines(batch.out)) == [(1, True), (2, False)]


def test_text_from_standard_input_to_standard_output(box: Sandbox) -> None:
    text = "\ufeffone\r\n\n  two \nlast, without its end"
    called = call("batch", "-", "--out", "-", "--call", "chat", "--base-url", box.url, "--quiet", stdin=text)
    assert (called.code, called.err) == (0, "")
    answers = {line["id"]: line["response"]["result"] for line in map(json.loads, called.out.splitlines())}
    assert answers == {1: "processed: one", 3: "processed:   two ", 4: "processed: last, without its end"}


def test_an_empty_input_is_done(batch: Batch) -> None:
    batch.give([])
    called = batch.go()
    assert (called.code, called.err) == (
        0,
        "rows 0, ok 0, blocked 0, refused 0, again 0, unknown 0, unsent 0\n",
    )


def test_the_timeout_bounds_what_the_service_is_granted(box: Sandbox, batch: Batch) -> None:
    batch.give([{"id": 1, "input": "a"}, {"id": 2, "input": "b", "timeout_ms": 700}])
    assert batch.go("--timeout", "4").code == 0
    granted = {request.json["input"]: request.json["options"]["timeout_ms"] for request in box.requests}
    assert granted == {"a": 4000, "b": 700}


# -- input


FAULTY = b"""\
{"id": 1, "input": "good"}
{"id": 1, "input": "twice"}
{"input": "no id"}
{"id": 2, "input": "x", "colour": "red"}
{"id": 3, "input": "x"

{"id": 4, "id": 5, "input": "x"}
{"id": 6, "input": NaN}
[1, 2]
{"id": 7, "input": "\xff"}
{"id": "1", "input": "another id than the number"}
"""


def test_every_fault_is_told_with_its_line_and_nothing_is_sent(box: Sandbox, batch: Batch) -> None:
    with open(batch.input, "wb") as file:
        file.write(FAULTY)
    called = batch.go()
    prefix = "hestiaos-lite: " + batch.input
    assert called.code == 65
    assert called.err.splitlines() == [
        prefix + " line 2: the id 1 is in line 1 already",
        prefix + " line 3: id is missing",
        prefix + ' line 4: unknown field "colour"',
        prefix + " line 5: is not JSON: Expecting ',' delimiter at column 23",
        prefix + " line 7: is not JSON: an object names 'id' twice",
        prefix + " line 8: input must be a string, not float",
        prefix + " line 9: a row must be an object, not list",
        prefix
        + " line 10: is not UTF-8 text (after 20 characters): save it as UTF-8, or name its --encoding",
        "hestiaos-lite: [BAD_DATA] {}: 8 faulty lines; nothing was sent".format(batch.input),
    ]
    assert box.requests_total == 0
    assert os.listdir(batch.folder) == ["in.jsonl"]


def test_of_many_faults_the_first_twenty_are_shown(batch: Batch) -> None:
    batch.give([{"id": number} for number in range(50)])
    called = batch.go()
    assert called.code == 65
    assert len(called.err.splitlines()) == 21
    assert "50 faulty lines (the first 20 are shown)" in called.err


@pytest.mark.parametrize(("name", "content", "call_name", "ids"), [
    ("a.jsonl", '\n{"id": "x", "input": "a"}\n', "run", ["x"]),
    ("a.txt", '{"id": "x"}\n', "run", [1]),
    ("a", '\n{"id": "x", "message": "a"}', "chat", ["x"]),
    ("a", "plain\nlines\n", "chat", [1, 2]),
    ("a.NDJSON", '{"id": "x", "agent_id": "a", "input": "t"}', "agent", ["x"]),
])  # fmt: skip
def test_the_format_is_told_by_name_or_first_line(
    tmp_path: Any, name: str, content: str, call_name: str, ids: List[Any]
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    source = BatchInput(str(path), call_name)
    assert [line.row.id for line in source.lines()] == ids
    source.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_read_once_and_checked_whole(box: Sandbox, batch: Batch) -> None:
    os.mkfifo(batch.input)
    process = batch.start("--quiet")
    with open(batch.input, "w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"id": "r{}".format(n), "input": "row {}".format(n)}) + "\n" for n in range(5)
        )
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 0
    assert executions(box) == once(5)


def test_an_input_that_changes_while_it_is_read_ends_the_run(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(1000)  # more than is read at once
    box.delay_next(0.5)
    process = batch.start("--jobs", "1")
    wait_for_requests(box, 1)
    with open(batch.input, "rb+") as file:
        file.seek(20 * 1024)
        file.write(b"\n{broken\n")
    err = process.communicate(timeout=60)[1].decode("utf-8")
    assert process.returncode == 65
    assert "has changed since it was checked" in err


def test_an_input_that_cannot_be_read_is_bad_data(batch: Batch) -> None:
    assert (
        batch.go().err
        == "hestiaos-lite: [BAD_DATA] {} cannot be read: No such file or directory\n".format(batch.input)
    )
    os.mkdir(batch.input)
    assert batch.go().code == 65


# -- usage


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(2)
    base = ["batch", batch.input, "--base-url", batch.url]
    cases = [
        (base + ["--out", batch.input], 2, "is the input"),
        (base + ["--out", batch.out, "--failed", batch.input], 2, "is the input"),
        (base + ["--out", batch.out, "--failed", batch.out], 2, "must be different files"),
        (base + ["--out", batch.out, "--failed", batch.journal], 2, "must be different files"),
        (base + ["--out", batch.out, "--failed", "-"], 2, "cannot hold results"),
        (base + ["--out", batch.folder], 2, "cannot hold results"),
        (base + ["--out", "-", "--resume"], 2, "cannot be resumed"),
        (base + ["--out", batch.out, "--call", "agent"], 65, "agent_id is missing"),
        (base + ["--out", batch.out, "--format", "text", "--call", "agent"], 2, "give it JSON lines"),
        (base + ["--out", os.path.join(batch.folder, "no", "out")], 78, "its folder does not exist; make it first"),
        (base + ["--out", batch.out, "--rate", "fast"], 2, "the rate must be above 0"),
        (base + ["--out", batch.out, "--jobs", "0"], 2, "must be 1 or more"),
        (base, 2, "--out"),
    ]  # fmt: skip
    for arguments, code, words in cases:
        called = call(*arguments)
        assert (called.code, words in called.err) == (code, True), called
    assert box.requests_total == 0


def test_results_of_an_earlier_run_are_never_overwritten(batch: Batch) -> None:
    batch.give_rows(2)
    assert batch.go("--quiet") == Called(0, "", "")
    with open(batch.out, "rb") as file:
        before = file.read()
    again = batch.go()
    assert again.code == 2
    assert "holds results of an earlier run: continue with --resume;" in again.err
    with open(batch.out, "rb") as file:
        assert file.read() == before


def test_two_runs_at_once_do_not_share_files(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(4)
    box.delay_next(4, times=4)
    first = batch.start()
    wait_for_requests(box, 1)
    second = batch.go("--resume")
    assert second.code == 75
    assert "[JOURNAL_BUSY]" in second.err
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert executions(box) == once(4)


# -- resuming


def test_a_resumed_run_that_was_complete_sends_nothing(box: Sandbox, batch: Batch) -> None:
    batch.give([{"id": "r0", "input": "row 0"}, {"id": "r1", "input": BLOCKED_TEXT}])
    assert batch.go().code == 1
    assert batch.go("--resume").code == 1  # what it left still has blocked rows
    assert batch.go("--retry-failed", "--retry-unknown").code == 1  # a block is a result, not a failure
    assert box.requests_total == 2


def test_rows_added_to_the_input_are_sent_by_resuming(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(3)
    assert batch.go().code == 0
    batch.give_rows(6)
    assert batch.go("--resume").code == 0
    assert executions(box) == once(6)
    batch.check_each_id_once(6)


@pytest.mark.parametrize("edit", ["cut", "emptied", "removed", "a line changed", "a line added", "as it was"])
@pytest.mark.parametrize("name", ["out", "bad"])
def test_whatever_became_of_out_and_bad_they_are_made_anew(
    box: Sandbox, batch: Batch, name: str, edit: str
) -> None:
    batch.give_rows(8)
    box.fail_next(422, times=2)
    box.fail_next(500)
    assert batch.go("--jobs", "1").code == 3
    path = batch.out if name == "out" else batch.bad
    before = [read(batch.out), read(batch.bad)]
    data = read(path)
    with open(path, "wb") as file:
        file.write(
            {
                "cut": data[:-20],
                "emptied": b"",
                "removed": b"",
                "a line changed": data.replace(b"r0", b"xx").replace(b"r3", b"xx"),
                "a line added": data + data.splitlines(True)[0],
                "as it was": data,
            }[edit]
        )
    if edit == "removed":
        os.unlink(path)
    else:
        os.chmod(path, 0o640)
    assert batch.go("--resume").code == 3
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
        with open(other, "w", encoding="utf-8") as file:
            file.write("precious")
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


def test_a_row_in_doubt_is_unknown_until_told_to_repeat_it(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(4)
    box.lose_next_answer()
    assert batch.go("--jobs", "1").code == 3
    assert batch.ids(batch.bad) == ["r0"]
    (line,) = batch.lines(batch.bad)
    assert (line["error"]["class"], line["error"]["delivered"]) == ("ConnectionFailed", None)
    assert batch.go("--resume").code == 3
    assert batch.go("--retry-failed").code == 3
    assert executions(box) == once(4)
    assert batch.go("--retry-unknown").code == 0
    assert executions(box) == once(4) + Counter({"row 0": 1})
    batch.check_each_id_once(4)


@pytest.mark.parametrize("status", [500, 502, 520, 599])
def test_a_failure_of_the_service_is_not_repeated_as_one_without_effect(
    box: Sandbox, batch: Batch, status: int
) -> None:
    batch.give_rows(3)
    box.fail_next(status)
    assert batch.go("--jobs", "1").code == 3
    assert batch.go("--retry-failed").code == 3
    assert box.requests_total == 3
    assert batch.go("--retry-unknown").code == 0
    assert box.requests_total == 4


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
def test_killed_in_a_pause_it_leaves_no_doubt_about_what_was_turned_away(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(30)
    box.fail_next(429, times=3, retry_after=600)
    process = batch.start("--jobs", "3")
    wait_for_requests(box, 3)
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=30)
    assert batch.go("--resume").code == 0
    assert executions(box) == once(30)
    batch.check_each_id_once(30)


def test_failed_rows_are_repeated_when_asked_also_with_a_mended_row(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(4)
    box.fail_next(422, path="/api/v1/run")
    box.fail_next(503, path="/api/v1/run")
    assert batch.go("--jobs", "1", "--retries", "0").code == 75
    assert batch.ids(batch.bad) == ["r0", "r1"]
    assert batch.go("--resume").code == 75
    assert box.requests_total == 4
    rows = batch.lines(batch.input)
    batch.give([dict(rows[0], input="row 0, mended")] + rows[1:])
    changed = batch.go("--resume")
    assert changed.code == 65
    assert 'the input is no longer what was sent: line 1 (id "r0")' in changed.err
    assert batch.go("--retry-failed").code == 0
    assert box.requests_total == 6
    batch.check_each_id_once(4)


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


def test_another_input_of_the_same_ids_is_refused(box: Sandbox, tmp_path: Any) -> None:
    monday, tuesday, out = tmp_path / "monday.txt", tmp_path / "tuesday.txt", tmp_path / "out.jsonl"
    monday.write_text("one\ntwo\n")
    tuesday.write_text("one\nthree\n")
    assert call("batch", str(monday), "--out", str(out), "--base-url", box.url).code == 0
    called = call("batch", str(tuesday), "--out", str(out), "--base-url", box.url, "--resume")
    assert called.code == 65
    assert "the input is no longer what was sent: line 2 (id 2)" in called.err
    assert box.requests_total == 2


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
        with open(batch.journal, "wb") as file:
            file.write(journal)
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
        assert "rows 100, ok 0, blocked 0, refused 0, again 0, unknown 0, unsent 100\n" in called.err
        assert "[UNAUTHORIZED]" in called.err
        assert box.requests_total <= 16
        assert os.listdir(batch.folder) == ["in.jsonl"]
        assert batch.go("--api-key", "right").code == 0
        batch.check_each_id_once(100)


def test_a_service_that_is_not_there_leaves_everything_unsent(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "base_seconds", 0.01)
    batch.give_rows(10)
    batch.url = "http://127.0.0.1:{}".format(closed_port())
    called = batch.go()
    assert called.code == 75
    assert "unsent 10" in called.err
    assert "cannot connect" in called.err


def test_failures_end_the_run_when_there_are_too_many(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(100)
    box.fail_next(422, times=100)
    called = batch.go("--max-failures", "5", "--jobs", "2")
    assert called.code == 75
    assert 5 <= len(batch.lines(batch.bad)) <= 6
    box.clear_faults()
    assert batch.go("--retry-failed").code == 0
    batch.check_each_id_once(100)


def test_blocks_are_no_failures(batch: Batch) -> None:
    batch.give([{"id": n, "input": BLOCKED_TEXT} for n in range(5)])
    assert batch.go("--max-failures", "1").code == 1
    assert len(batch.lines(batch.bad)) == 5


def test_the_deadline_leaves_the_rest_unsent(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(500)
    box.delay_next(0.05, times=500)
    called = batch.go("--deadline", "0.3", "--jobs", "2")
    assert called.code == 75
    assert "[BATCH_DEADLINE]" in called.err
    box.clear_faults()
    assert batch.go("--resume").code == 0
    assert executions(box) == once(500)
    batch.check_each_id_once(500)


@pytest.mark.parametrize(("faults", "code"), [
    ([], 0),
    ([(422, 1)], 1),
    ([(422, 1), (503, 1)], 75),
    ([(422, 1), (503, 1), (504, 1)], 3),
    ([(500, 1)], 3),
])  # fmt: skip
def test_the_gravest_outcome_is_the_exit_code(
    box: Sandbox, batch: Batch, faults: List[Any], code: int
) -> None:
    batch.give_rows(6)
    for status, times in faults:
        box.fail_next(status, times=times)
    assert batch.go("--retries", "0", "--jobs", "1").code == code
    assert len(batch.lines(batch.bad)) == len(faults)


# -- signals


posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_first_signal_finishes_what_is_in_flight(
    box: Sandbox, batch: Batch, number: int, code: int
) -> None:
    batch.give_rows(300)
    box.delay_next(0.05, times=300)
    process = batch.start("--jobs", "4")
    wait_for_requests(box, 20)
    process.send_signal(number)
    err = process.communicate(timeout=30)[1].decode("utf-8")
    assert process.returncode == code
    assert "finishing what is in flight" in err
    assert "unknown 0" in err
    assert "--resume sends the" in err
    assert executions(box) == Counter({"row {}".format(line["id"][1:]): 1 for line in batch.lines(batch.out)})
    box.clear_faults()
    assert batch.go("--resume").code == 0
    assert executions(box) == once(300)
    batch.check_each_id_once(300)


@posix
def test_a_second_signal_stops_now_and_leaves_doubt_only_about_what_was_in_flight(
    box: Sandbox, batch: Batch
) -> None:
    batch.give_rows(50)
    box.delay_next(25, times=3)
    process = batch.start("--jobs", "3")
    wait_for_requests(box, 3)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert b"interrupt again to stop now" in process.stderr.readline()
    began = time.monotonic()
    while process.poll() is None:  # what follows the first at once is the first again
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    err = process.communicate(timeout=20)[1].decode("utf-8")
    assert time.monotonic() - began < 20
    assert process.returncode == 130
    assert "rows 50, ok 0, blocked 0, refused 0, again 0, unknown 3, unsent 47\n" in err
    assert "--resume sends the 47 that are unsent" in err
    assert "first look up what became of the unknown ones" in err
    box.clear_faults()
    assert batch.go("--resume").code == 3
    assert batch.ids(batch.bad) == ["r0", "r1", "r2"]
    batch.check_each_id_once(50)


PATIENT = """
import sys
from hestiaos_lite.cli import batch, main
batch._ONE_SIGNAL_SECONDS = 3600
sys.exit(main(sys.argv[1:]))
"""


@posix
def test_a_signal_that_comes_twice_at_once_is_one(box: Sandbox, batch: Batch) -> None:
    """timeout(1) signals its command, and then the group that the command is in."""
    batch.give_rows(50)
    box.delay_next(1, times=3)
    process = subprocess.Popen(
        [sys.executable, "-c", PATIENT] + batch.arguments("--jobs", "3"),
        env=environment(),
        stderr=subprocess.PIPE,
    )
    wait_for_requests(box, 3)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert b"interrupt again to stop now" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=30)[1].decode("utf-8")
    assert process.returncode == 143
    assert "rows 50, ok 3, blocked 0, refused 0, again 0, unknown 0, unsent 47\n" in err


# -- a disk that is full

LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from hestiaos_lite.cli import main
sys.exit(main(sys.argv[2:]))
"""


@posix
@pytest.mark.parametrize("limit", [2000, 30000, 100000])
def test_a_full_disk_stops_the_sending_and_names_the_file(box: Sandbox, batch: Batch, limit: int) -> None:
    batch.give_rows(100)
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit)] + batch.arguments("--jobs", "4"),
        env=environment(),
        capture_output=True,
        timeout=60,
    )
    err = process.stderr.decode("utf-8")
    assert "check the disk, quotas and file size limits" in err
    assert process.returncode in ((3, 74) if box.requests_total else (74,)), err
    sent = box.requests_total
    assert sent < 100
    resumed = batch.go("--resume")
    unknown = len(batch.lines(batch.bad)) if os.path.exists(batch.bad) else 0
    assert resumed.code == (3 if unknown else 0)
    assert unknown <= 2 * 4
    assert (process.returncode == 3) is bool(unknown)
    batch.check_each_id_once(100)
    assert executions(box) == once(100)


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


# -- progress


class Terminal:
    def __init__(self, is_terminal: bool) -> None:
        self.text = ""
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def shown(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool, quiet: bool = False, bar: bool = False
) -> str:
    stream = Terminal(is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_TERMINAL_SECONDS", 0.02)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.02)
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress.Progress(10, {"ok": 2}, Backoff(), quiet=quiet) as shows:
        for outcome in ("ok", "blocked", "again", "unknown"):
            shows.note(outcome)
        deadline = time.monotonic() + 10
        while not ("6/10" in stream.text or quiet) and time.monotonic() < deadline:
            time.sleep(0.01)
    return stream.text


def test_without_a_terminal_progress_is_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    line = shown(monkeypatch, is_terminal=False).splitlines()[-1]
    assert line.startswith("hestiaos-lite: 6/10 done, ok 3, blocked 1, failed 2, ")
    assert line.endswith(" left")
    assert progress.__dict__["_LINE_SECONDS"] == 0.02


def test_on_a_terminal_progress_is_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, is_terminal=True)
    assert text.startswith("\r\033[K6/10 done, ok 3, blocked 1, failed 2, ")
    assert text.endswith("\r\033[K")
    assert "\n" not in text


@posix
def test_a_line_fits_the_terminal_also_after_it_was_made_smaller() -> None:
    import fcntl
    import struct
    import termios

    leader, follower = os.openpty()
    pause = Backoff()
    pause.rejected(time.monotonic(), 90, "[\x1b[2J] \u65e5\u672c\r" * 20)
    with open(follower, "w", encoding="utf-8") as terminal:
        shows = progress.Progress(100000, {}, pause, quiet=True)
        shows._stream = terminal
        for columns in (40, 20, 100, 1, 0):
            fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            line = shows._fitting(shows.line())
            assert line.isascii() and line.isprintable()
            assert len(line) == (columns or 80) - 1
    os.close(leader)


def test_with_tqdm_it_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    text = shown(monkeypatch, is_terminal=True, bar=True)
    assert "6/10" in text
    assert "ok=3, blocked=1, failed=2" in text


def test_the_help_gives_one_default_for_retries() -> None:
    text = " ".join(call("batch", "--help").out.split())
    assert "--retries times (default 5)" in text
    assert "default 3" not in text


def test_quiet_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, is_terminal=True, quiet=True) == ""


def test_a_pause_is_shown_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pause = Backoff()
    pause.rejected(time.monotonic(), 90, "[RATE_LIMITED] too many requests")
    line = progress.Progress(10, {}, pause, quiet=True).line()
    assert line.endswith(", ? left, paused for 90 s: [RATE_LIMITED] too many requests")
    pause.rejected(time.monotonic(), 90, "[X] \x1b[2J\nall is well")
    assert progress.Progress(10, {}, pause, quiet=True).line().endswith(": [X] \\x1b[2J all is well")


def test_the_command_in_a_process_of_its_own(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(3)
    called = run(*batch.arguments())
    assert called == Called(0, "", "rows 3, ok 3, blocked 0, refused 0, again 0, unknown 0, unsent 0\n")
