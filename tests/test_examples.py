"""Every file in examples/ is run here against the sandbox, as its own first lines say it is used."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Optional
from unittest import mock

import pytest

from hestiaos_lite import AegisClient, IdempotencyConflict, Outbox, idempotency_key
from hestiaos_lite.sandbox import Sandbox
from tests.markdown import INSTALLED, ROOT, SCRIPTS, blocks_of, jobs, run_job, shell_environment

EXAMPLES = ROOT / "examples"
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def run(
    box: Sandbox, *command: object, stdin: str = "", cwd: Optional[Path] = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    if words[0].endswith(".py"):
        words.insert(0, sys.executable)
    return subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        text=True,
        env=settings(box, variables),
        cwd=None if cwd is None else str(cwd),
        timeout=60,
    )


def settings(box: Sandbox, variables: Dict[str, str]) -> Dict[str, str]:
    return {**shell_environment(box), "AEGIS_THREAD_ID": "nightly", "PAUSE_SECONDS": "0", **variables}


def called(box: Sandbox, name: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """What `run` gives of a Python example, which is called in this process: to start one takes ten times as long."""
    words = [str(EXAMPLES / name), *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, settings(box, variables), clear=True))
        stack.enter_context(mock.patch.object(sys, "argv", words))
        out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(words[0], run_name="__main__")
        said = [stream.seek(0) or stream.read() for stream in (out, err)]
    return subprocess.CompletedProcess(words, ended.value.code, *said)


def test_every_example_is_short_and_tried_here() -> None:
    tried = Path(__file__).read_text(encoding="utf-8")
    for path in sorted(EXAMPLES.iterdir()):
        assert '"{}"'.format(path.name) in tried, path
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60, path


def test_nightly_report(box: Sandbox) -> None:
    done = called(box, "nightly_report.py", "create", "a", "report")
    assert (done.returncode, done.stdout, done.stderr) == (0, "processed: create a report\n", "")


@pytest.mark.parametrize(("prompt", "prepare", "variables", "code", "said"), [
    pytest.param("rm -rf /", None, {}, 1, "[GOVERNANCE_BLOCK] ", id="blocked"),
    pytest.param("a", lambda box: box.lose_next_answer(), {}, 3, "it may have taken effect", id="lost"),
    pytest.param("a", lambda box: box.fail_next(401), {}, 77, "HTTP 401", id="credentials"),
    pytest.param("a", lambda box: box.fail_next(200, body="<html>"), {}, 76, "JSON", id="html"),
    pytest.param("a", None, {"HESTIAOS_BASE_URL": "nonsense"}, 78, "[CONFIGURATION] ", id="bad-url"),
    pytest.param("a", None, {"HESTIAOS_BASE_URL": "http://127.0.0.1:1"}, 69, "never reached", id="refused"),
])  # fmt: skip
def test_nightly_report_fails_with_one_line_and_the_code_of_the_error(
    box: Sandbox, prompt: str, prepare: Any, variables: Dict[str, str], code: int, said: str
) -> None:
    if prepare:
        prepare(box)
    done = called(box, "nightly_report.py", prompt, **variables)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.skipif(sys.platform == "win32", reason="ulimit is a shell's")
def test_nightly_report_fails_where_only_a_part_of_it_can_be_written(
    box: Sandbox, tmp_path: Path, unbuffered: str
) -> None:
    words = [sys.executable, str(EXAMPLES / "nightly_report.py"), "word " * 1000]
    command = "ulimit -f 1; {} > report.txt".format(" ".join(shlex.quote(word) for word in words))
    done = run(box, "bash", "-c", command, cwd=tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (74, "the report cannot be written: File too large\n")


def test_stream_to_terminal(box: Sandbox) -> None:
    done = called(box, "stream_to_terminal.py", "create a report")
    assert (done.returncode, done.stdout, done.stderr) == (0, "processed: create a report\n", "")
    box.drop_next_stream(after_events=3)
    cut = called(box, "stream_to_terminal.py", "create a report")
    assert cut.returncode == 76
    assert "processed: create a report" not in cut.stdout


def test_stream_to_terminal_ends_quietly_when_its_reader_does(box: Sandbox) -> None:
    box.token_delay_seconds = 0.05  # so that the reader has gone while the stream still runs
    words = [
        sys.executable,
        str(EXAMPLES / "stream_to_terminal.py"),
        "one two three four five six seven eight",
    ]
    command = "set -o pipefail; {} | head -c 9".format(" ".join(shlex.quote(word) for word in words))
    done = run(box, "bash", "-c", command)
    assert (done.returncode, done.stdout, done.stderr) == (141, "processed", "")


def test_a_decision_can_be_rerun(box: Sandbox, tmp_path: Path) -> None:
    command = ("rerunnable_decision.py", tmp_path / "outbox.db", "42", "120.00")
    key = idempotency_key("invoice", "42", amount="120.00")
    paid = "paid invoice 42: 120.00, under key {}\n".format(key[:16])
    before = "invoice 42 was paid before\n"

    def pays(says: str) -> None:
        done = called(box, *command)
        assert (done.returncode, done.stdout) == (0, says), done.stderr

    pays(paid)
    pays(before)
    (mark,) = tmp_path.glob("paid-*")
    mark.unlink()  # as if the first had been killed once it had paid
    pays(paid)
    assert [action["status"] for action in box.actions()] == ["COMMITTED"]


def test_a_rerunnable_decision_does_not_act_on_a_rejection(box: Sandbox, tmp_path: Path) -> None:
    key = idempotency_key("invoice", "77", amount="5")
    with AegisClient(box.url, tenant_id="acme", thread_id="invoices") as client:
        client.reject(key, payload={"invoice": "77", "amount": "5"})
    gate = called(box, "rerunnable_decision.py", tmp_path / "outbox.db", "77", "5")
    assert (gate.returncode, gate.stdout) == (1, "")
    assert "recorded 'reject' under this idempotency key, not 'approve'" in gate.stderr


def person(box: Sandbox) -> AegisClient:
    return AegisClient(box.url, tenant_id="acme", thread_id="nightly")


@pytest.mark.parametrize(("decide", "code", "said"), [
    pytest.param(lambda client: client.approve("k"), 0, "", id="approved"),
    pytest.param(lambda client: client.reject("k"), 1, r"k is not paid: rejected [\w-]+\n", id="rejected"),
    pytest.param(lambda client: None, 1, r"k is not paid: expired [\w-]+\n", id="nobody-decided"),
])  # fmt: skip
def test_a_person_decides_and_a_job_acts(
    decide: Any, code: int, said: str, box: Sandbox, payee: Path
) -> None:
    with person(box) as client:
        decide(client)
        done = run(box, *pay_if_approved(payee))
        assert done.returncode == code, done.stderr
        assert re.match(said + r"\Z", done.stderr), done.stderr
        assert done.stdout == ("" if code else "paid 120 under k\n")
        if code == 0:
            again = run(box, *pay_if_approved(payee))
            assert (again.returncode, again.stdout) == (0, "")
        else:
            with pytest.raises(IdempotencyConflict):
                client.approve("k")  # too late, for good


@pytest.fixture
def payee(tmp_path: Path) -> Path:
    """A command that pays once under a key; where KILL says so its caller is killed, before or after that."""
    path = tmp_path / "pay"
    path.write_text(
        """#!/bin/sh
[ "$KILL" != before ] || { kill -9 $PPID; exit; }
if mkdir "$(dirname "$0")/$3"; then echo "paid $1 under $3"; else echo "$3 is known"; fi 2> /dev/null
[ "$KILL" != after ] || kill -9 $PPID
"""
    )
    path.chmod(0o700)
    return path


def pay_if_approved(payee: Path) -> Any:
    return (EXAMPLES / "pay_if_approved.sh", "k", payee.parent, payee, "120")


def test_a_key_that_no_mark_can_be_made_for_is_refused_before_anything_is_asked(
    box: Sandbox, payee: Path
) -> None:
    script, _, *rest = pay_if_approved(payee)
    done = run(box, script, "a/b", *rest)
    assert (done.returncode, done.stdout, box.requests_total) == (2, "", 0)


def test_what_could_not_be_concluded_is_not_paid(box: Sandbox, payee: Path) -> None:
    box.fail_next(403)
    done = run(box, *pay_if_approved(payee))
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.count("\n") == 1
    assert list(payee.parent.iterdir()) == [payee]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_job_that_is_killed_pays_once_when_it_is_run_again(box: Sandbox, payee: Path, moment: str) -> None:
    with person(box) as client:
        client.approve("k")
    killed = run(box, *pay_if_approved(payee), KILL=moment)
    again = run(box, *pay_if_approved(payee))
    assert (killed.returncode, again.returncode) == (-9, 0)
    said = killed.stdout + again.stdout
    known = "k is known\n" if moment == "after" else ""
    assert said == "paid 120 under k\n" + known


def test_a_job_waits_for_one_decision() -> None:
    with Sandbox(hitl_delay_seconds=0.5) as box, person(box) as client:
        approved = client.approve("yes").request_id
        rejected = client.reject("no").request_id
        done = run(box, EXAMPLES / "wait_for_decision.sh", approved, "echo", "a  b")
        assert (done.returncode, done.stdout, done.stderr) == (0, "a  b\n", "")
        refused = run(box, EXAMPLES / "wait_for_decision.sh", rejected, "echo", "a")
        assert (refused.returncode, refused.stdout) == (1, "")
    with Sandbox(hitl_delay_seconds=60) as box, person(box) as client:
        pending = client.approve("later").request_id
        done = run(box, EXAMPLES / "wait_for_decision.sh", pending, "echo", "a", WAIT_SECONDS="0.1")
        assert (done.returncode, done.stdout) == (75, "")


def test_batch_with_retries(box: Sandbox, tmp_path: Path) -> None:
    rows = [{"id": number, "input": "report {}".format(number)} for number in range(5)]
    source, out, bad = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = run(box, EXAMPLES / "batch_with_retries.sh", source, out, bad)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert sorted((row["id"], row["ok"]) for row in results) == [(number, True) for number in range(5)]


def test_threaded_service(box: Sandbox) -> None:
    done = run(box, EXAMPLES / "threaded_service.py", stdin="one\nrm -rf /\ntwo\n")
    assert (done.returncode, done.stdout) == (1, "one\tprocessed: one\nrm -rf /\t-\ntwo\tprocessed: two\n")
    assert "GOVERNANCE_BLOCK" in done.stderr
    bad = run(box, EXAMPLES / "threaded_service.py", stdin="one\n", HESTIAOS_BASE_URL="nonsense")
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (78, "", 1)


# What cron mails for each line of the crontab, as a pattern: nothing, or one line that is of use.
CRONTAB, JOBS = jobs((EXAMPLES / "crontab").read_text(encoding="utf-8"))
REPORT, FLUSH, DAILY, GUARD, HEALTH = JOBS
NOTHING = ""
MAILED = {
    "up": {REPORT: NOTHING, FLUSH: NOTHING, DAILY: NOTHING, GUARD: NOTHING, HEALTH: NOTHING},
    "down": {
        REPORT: r"hestiaos-lite: .* it never reached the service; try again later(, or allow it more time)?",
        FLUSH: NOTHING,
        DAILY: r"1  queued   approve  invoice-42  thread invoices  .*",
        GUARD: r"hestiaos-lite: not run: .* it never reached the service; try again later(, or allow it more time)?",
        HEALTH: r"hestiaos-lite: .* it never reached the service; try again later(, or allow it more time)?",
    },
    "blocking": {
        REPORT: r"hestiaos-lite: \[SCRIPTED_FAULT\] .*HTTP 403.* nothing was done; it would be refused again",
        FLUSH: r"hestiaos-lite: .*",
        DAILY: r"hestiaos-lite: .*",
        GUARD: r"hestiaos-lite: not run: .*HTTP 403.*",
        HEALTH: r"hestiaos-lite: \[SCRIPTED_FAULT\] .*HTTP 403.*",
    },
    "slow": {
        REPORT: r"hestiaos-lite: \[TIMEOUT\] .* it may have taken effect; look for its request id .*",
        FLUSH: NOTHING,
        DAILY: r"1  queued   approve  invoice-42  thread invoices  .*",
        GUARD: r"hestiaos-lite: not run: \[TIMEOUT\] .*",
        HEALTH: r"hestiaos-lite: \[TIMEOUT\] .*",
    },
}


@pytest.mark.parametrize("state", sorted(MAILED))
def test_crontab(state: str, box: Sandbox, tmp_path: Path) -> None:
    """Each line of examples/crontab, run as cron runs it while the service is in each of these states."""
    url = box.url
    box.stop()
    homes = [tmp_path / str(number) for number in range(len(JOBS))]  # one each: they run at once
    for home in homes:
        home.mkdir(0o700)
        with Outbox(home / "outbox.db") as outbox:
            waiting = AegisClient(url, api_key="k3y", thread_id="invoices", max_retries=0, outbox=outbox)
            assert waiting.approve("invoice-42").queued
    if state != "down":
        box.start()
    if state == "blocking":
        box.fail_next(403, times=1000)
    elif state == "slow":
        box.delay_next(5, times=1000)

    def mailed(job: str, home: Path) -> str:
        return run_job(job, CRONTAB, home, url, timeout_seconds=20 if state == "up" else 1).stdout

    with ThreadPoolExecutor(len(JOBS)) as pool:
        for job, mail in zip(JOBS, pool.map(mailed, JOBS, homes)):
            assert re.match(MAILED[state][job] + r"\n?\Z", mail), (job, mail)
    if state == "up":
        report = homes[JOBS.index(REPORT)] / "report.txt"
        assert report.read_text(encoding="utf-8") == "processed: create a report\n"
        assert [action["status"] for action in box.actions()] == ["COMMITTED"]


def test_a_report_that_failed_leaves_the_last_one(box: Sandbox, tmp_path: Path) -> None:
    assert run_job(REPORT, CRONTAB, tmp_path, box.url).returncode == 0
    box.fail_next(403)
    assert run_job(REPORT, CRONTAB, tmp_path, box.url).returncode == 1
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == "processed: create a report\n"


README_CRONTAB, (README_REPORT,) = jobs(
    next(block.text for block in blocks_of(ROOT / "README.md") if block.language == "crontab")
)


@pytest.mark.parametrize(
    ("settings", "job", "lock"), [(CRONTAB, REPORT, "report.lock"), (README_CRONTAB, README_REPORT, "lock")]
)
def test_a_report_that_meets_another_leaves_its_file_alone(
    settings: Any, job: str, lock: str, box: Sandbox, tmp_path: Path
) -> None:
    import fcntl

    (tmp_path / "report.new").write_text("what the other has written so far")
    with (tmp_path / lock).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run_job(job, settings, tmp_path, box.url)
    assert (done.returncode, done.stdout) == (75, "")
    assert (tmp_path / "report.new").read_text() == "what the other has written so far"


UNITS = ["hestiaos-nightly.service", "hestiaos-nightly.timer", "hestiaos-failed@.service"]


@pytest.mark.parametrize("name", UNITS)
def test_units_are_wellformed(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze"):
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(
            text.replace(INSTALLED + "/hestiaos-lite", "/bin/echo"), encoding="utf-8"
        )
        if name.endswith(".timer"):
            (tmp_path / "hestiaos-nightly.service").write_text(
                "[Service]\nExecStart=/bin/echo\n", encoding="utf-8"
            )
        done = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / name)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(EXAMPLES / name)
    assert set(unit.sections()) <= {"Unit", "Service", "Timer", "Install"}


def test_service_restarts_only_where_nothing_was_done(box: Sandbox, tmp_path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.read(EXAMPLES / "hestiaos-nightly.service")
    service = unit["Service"]
    restart = set(service["RestartForceExitStatus"].split())
    stay = set(service["RestartPreventExitStatus"].split())
    assert restart == {"69", "75"}
    documented = re.findall(r"^\| ([\d, ]+) \|", REFERENCE.partition("## Exit codes")[2], re.MULTILINE)
    codes = {code for row in documented for code in row.split(", ")}
    assert stay == codes - restart - {"0"}
    command = shlex.split(service["ExecStart"].replace(INSTALLED, SCRIPTS))
    for status, code in ((None, 0), (401, 77)):
        if status is not None:
            box.fail_next(status)
        assert run(box, *command, cwd=tmp_path).returncode == code
        assert (tmp_path / "report.txt").read_text(encoding="utf-8") == "processed: create a report\n"
