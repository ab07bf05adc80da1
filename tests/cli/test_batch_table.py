"""``hestiaos-lite batch`` from a spreadsheet and back, and settings that were mistyped, empty or of another service."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from typing import Any, List, Optional

import pytest

from hestiaos_lite.batch.rate import Backoff
from hestiaos_lite.sandbox import Sandbox

from ..batch.kit import Batch, Child, Timed, executions, once, read, wait_for_requests
from ..cli_call import call
from ..faultserver import FaultServer, answer, reply

UMLAUTS = "Ticket;Frage\r\n7;Wie spät ist es?\r\n8;rm -rf /\r\n9;=1+1\r\n"


def table(path: str, encoding: str = "utf-8-sig", delimiter: str = ";") -> List[List[str]]:
    with open(path, encoding=encoding, newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


# fmt: off
@pytest.mark.parametrize(("encoding", "option", "mark"), [
    ("utf-8", [], b"T"),
    ("utf-8-sig", [], b"\xef\xbb\xbf"),
    ("cp1252", ["--encoding", "cp1252"], b"T"),
    ("utf-16", [], "".encode("utf-16")),
])
# fmt: on
def test_a_spreadsheets_csv_comes_back_with_the_answers_beside_the_questions(
    box: Sandbox, tmp_path: Any, encoding: str, option: List[str], mark: bytes
) -> None:
    path, out = tmp_path / "in.csv", str(tmp_path / "answers.csv")
    path.write_bytes(UMLAUTS.encode(encoding))
    called = call(
        "batch", str(path), "--out", out, "--column", "Frage", "--id-column", "Ticket", "--base-url", box.url, *option
    )
    assert called.code == 1, called
    assert read(out).startswith(mark)
    assert read(out).decode(encoding).endswith("\r\n")
    rows = table(out, encoding)
    trace_ids = [row[4] for row in rows]
    assert all(trace_ids)
    blocked_request_id = rows[2][5]
    assert rows == [
        ["Ticket", "Frage", "outcome", "result", "trace_id", "request_id", "error"],
        ["7", "Wie spät ist es?", "ok", "processed: Wie spät ist es?", trace_ids[1], "", ""],
        ["8", "rm -rf /", "blocked", "", trace_ids[2], blocked_request_id,
         "[GOVERNANCE_BLOCK] blocked by policy destructive-shell: deletes files by force"],
        ["9", "=1+1", "ok", "processed: =1+1", trace_ids[3], "", ""],
    ]  # fmt: skip
    assert len(blocked_request_id) == 36


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupted_table_is_there_and_a_resumed_one_is_whole(box: Sandbox, tmp_path: Any) -> None:
    path, out = tmp_path / "in.csv", str(tmp_path / "answers.csv")
    path.write_text("input,note\n" + "".join("row {},n{}\n".format(n, n) for n in range(60)))
    box.delay_next(0.1, times=60)
    arguments = ["batch", str(path), "--out", out, "--base-url", box.url, "--jobs", "2"]
    child = Child(arguments)
    wait_for_requests(box, 8)
    child.signal(signal.SIGINT)
    assert child.ended().code == 130
    rows = table(out, "utf-8", ",")
    assert [row[:2] for row in rows[1:]] == [["row {}".format(n), "n{}".format(n)] for n in range(60)]
    assert ({row[2] for row in rows}, {len(row) for row in rows}) == ({"outcome", "ok", ""}, {7})
    box.clear_faults()
    os.chmod(out, 0o640)
    assert call(*arguments, "--resume").code == 0
    assert {row[2] for row in table(out, "utf-8", ",")[1:]} == {"ok"}
    assert executions(box) == once(60)
    assert os.stat(out).st_mode & 0o777 == 0o640


@pytest.mark.parametrize("first", list("=+-@\t\r"))
def test_a_cell_that_a_spreadsheet_would_execute_is_made_text(tmp_path: Any, first: str) -> None:
    text = first + "cmd|' /C calc'!A0"
    given = json.dumps({"result": "ALLOW", "output": text, "trace_id": "=t"}).encode()
    path, out = tmp_path / "in.txt", str(tmp_path / "answers.tsv")
    path.write_text("hi\n")
    with FaultServer(answer(reply(200, given))) as server:
        assert call("batch", str(path), "--out", out, "--base-url", server.url).code == 0
    (line,) = table(out, "utf-8", "\t")[1:]
    assert line == ["1", "hi", "", "", "", "", "ok", "'" + text, "'=t", "", ""]


def test_json_lines_may_come_back_as_a_table(box: Sandbox, batch: Batch) -> None:
    batch.give([{"id": "a", "input": "hi", "timeout_ms": 900}])
    out = os.path.join(batch.folder, "answers.csv")
    assert call("batch", batch.input, "--out", out, "--base-url", box.url).code == 0
    header, line = table(out, "utf-8", ",")
    assert header[:6] == ["id", "input", "session_id", "agent_id", "mode_hint", "timeout_ms"]
    assert line[:8] == ["a", "hi", "", "", "", "900", "ok", "processed: hi"]
    called = call("batch", batch.input, "--out", out, "--failed", batch.bad, "--base-url", box.url, "--resume")
    assert (called.code, "leave out --failed" in called.err) == (2, True)


# -- what was mistyped, empty, or of another service


@pytest.fixture
def batch(box: Sandbox, tmp_path: Any) -> Batch:
    return Batch(tmp_path, box.url)


@pytest.mark.parametrize("option", ["--out", "--failed", "--column", "--id-column", "--delimiter", "--encoding"])
def test_an_empty_value_is_a_variable_that_was_not_set(box: Sandbox, batch: Batch, option: str) -> None:
    batch.give_rows(1)
    assert batch.go(option, "").code == 2
    assert (box.requests_total, os.listdir(batch.folder)) == (0, ["in.jsonl"])


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_the_results_may_have_a_name_that_is_no_utf8(box: Sandbox, batch: Batch) -> None:
    """It was exit 70 after the rows were sent, and on each resume."""
    batch.give_rows(2)
    batch.out = os.path.join(batch.folder, os.fsdecode(b"out\xff.jsonl"))
    batch.bad = os.path.join(batch.folder, os.fsdecode(b"bad\xff.jsonl"))
    box.fail_next(422)
    assert batch.go("--jobs", "1").code == 1
    os.unlink(batch.bad)
    assert call("batch", batch.input, "--out", batch.out, "--base-url", box.url, "--resume").code == 1
    assert (batch.ids(batch.out), batch.ids(batch.bad)) == (["r1"], ["r0"])


def test_a_row_that_cannot_be_sent_is_bad_data_and_check_says_so(box: Sandbox, batch: Batch) -> None:
    batch.give([{"id": 1, "agent_id": "a", "task": "t", "config": {"deep": ["\ud800"]}}])
    for more in (["--check"], []):
        called = batch.go("--call", "agent", *more)
        assert (called.code, "line 1: config cannot be sent as JSON" in called.err) == (65, True)
    assert box.requests_total == 0


def test_a_resume_of_what_is_not_there_says_so(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(2)
    assert "there was nothing to resume: {}".format(batch.journal) in batch.go("--resume").err
    assert "nothing to resume" not in batch.go("--resume").err
    batch.give_rows(1)
    assert "{}: 1 of its rows are not in this input\n".format(batch.journal) in batch.go("--resume").err


def test_a_journal_belongs_to_one_service_and_one_call(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(2)
    box.lose_next_answer()
    assert batch.go("--jobs", "1").code == 3
    called = batch.go("--call", "chat", "--resume")
    assert (called.code, "its rows were given to run, not to chat" in called.err) == (78, True)
    with Sandbox() as other:
        batch.url = other.url
        called = batch.go("--retry-unknown")
        assert called.code == 78
        assert "its rows were sent to {}, not to {};".format(box.url, other.url) in called.err
        assert "add --moved" in called.err
        assert other.requests_total == 0
        assert batch.go("--retry-unknown", "--moved").code == 0
        assert other.requests_total == 1
        assert batch.go("--resume").code == 0


def test_an_unknown_row_can_be_looked_up_by_its_request_id(box: Sandbox, batch: Batch) -> None:
    batch.give_rows(2)
    box.lose_next_answer()
    called = batch.go("--jobs", "1")
    (line,) = batch.lines(batch.bad)
    assert line["request_id"] == box.requests[0].headers["X-Request-Id"]
    assert "unknown: r0 (request id {})\n".format(line["request_id"]) in called.err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files to another user")
def test_root_does_not_lock_the_service_user_out(box: Sandbox, batch: Batch) -> None:
    """Root's resume rewrote the files as root's; now the journal of another user is not root's to go on with."""
    batch.give_rows(4)
    box.fail_next(422)
    assert batch.go("--jobs", "1").code == 1
    for path in (batch.folder, batch.out, batch.bad, batch.journal):
        os.chown(path, 12345, 12345)
    called = batch.go("--retry-failed")
    assert (called.code, "belongs to another user (uid 12345)" in called.err) == (78, True)
    assert {os.stat(path).st_uid for path in (batch.out, batch.bad, batch.journal)} == {12345}
    os.chown(batch.folder, 0, 0)
    os.chown(batch.journal, 0, 0)
    assert batch.go("--retry-failed").code == 0  # OUT and BAD are rewritten, and stay his
    assert {os.stat(path).st_uid for path in (batch.out, batch.bad)} == {12345}


@pytest.mark.parametrize("retries", ["0", "1", "3"])
def test_an_outage_longer_than_the_retries_burns_no_row(
    batch: Batch, retries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The everyday one: the service accepts rows, is away for a while, and is back for the resume."""
    monkeypatch.setattr(Backoff, "base_seconds", 0.05)
    batch.give_rows(12)
    seen: List[str] = []
    back: List[int] = []

    def judge(text: str, sequence: int) -> Optional[bytes]:
        if len(seen) >= 4 and not back:
            return reply(503, b"{}")
        seen.append(text)
        return None

    with Timed(judge) as server:
        batch.url = server.url
        called = batch.go("--jobs", "2", "--retries", retries, "--patience", "0.4")
        if retries == "0":
            assert called.code == 75
        else:
            assert "rows 12, ok 4, blocked 0, refused 0, again 0, unknown 0, unsent 8\n" in called.err
            assert (called.code, batch.lines(batch.bad)) == (75, [])
        back.append(1)
        assert batch.go("--retry-failed").code == 0
    assert sorted(seen) == sorted("row {}".format(n) for n in range(12))
    batch.check_each_id_once(12)
