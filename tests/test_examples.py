"""Every file in examples/ is run here against the sandbox, as its own first lines say it is used."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator

import pytest

from hestiaos_lite import AegisClient, idempotency_key
from hestiaos_lite.sandbox import Sandbox

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(name="box")
def _box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


def environment(box: Sandbox) -> Dict[str, str]:
    """What a job is told by its environment; the command found first is the one of this interpreter."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HESTIAOS_", "AEGIS_"))}
    scripts = os.path.dirname(sys.executable)
    return dict(
        kept,
        PATH=scripts + os.pathsep + os.environ["PATH"],
        HESTIAOS_BASE_URL=box.url,
        AEGIS_BASE_URL=box.url,
        AEGIS_TENANT_ID="acme",
        AEGIS_THREAD_ID="nightly",
        PAUSE_SECONDS="0",
    )


def run(box: Sandbox, *command: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    if words[0].endswith(".py"):
        words.insert(0, sys.executable)
    return subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(box),
        timeout=60,
    )


def test_every_example_is_short_and_tried_here() -> None:
    tried = Path(__file__).read_text(encoding="utf-8")
    for path in sorted(EXAMPLES.iterdir()):
        assert '"{}"'.format(path.name) in tried, path
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60, path


def test_nightly_report(box: Sandbox) -> None:
    done = run(box, EXAMPLES / "nightly_report.py", "create", "a", "report")
    assert (done.returncode, done.stdout) == (0, "processed: create a report\n")
    refused = run(box, EXAMPLES / "nightly_report.py", "rm -rf /")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("refused: ")
    box.lose_next_answer()
    lost = run(box, EXAMPLES / "nightly_report.py")
    assert (lost.returncode, lost.stdout) == (3, "")
    assert "it may have taken effect" in lost.stderr


def test_stream_to_terminal(box: Sandbox) -> None:
    done = run(box, EXAMPLES / "stream_to_terminal.py", "create a report")
    assert (done.returncode, done.stdout, done.stderr) == (0, "processed: create a report\n", "")
    box.drop_next_stream(after_events=3)
    cut = run(box, EXAMPLES / "stream_to_terminal.py", "create a report")
    assert cut.returncode == 76
    assert "processed: create a report" not in cut.stdout


def test_approval_gate_can_be_rerun(box: Sandbox, tmp_path: Path) -> None:
    command = (EXAMPLES / "approval_gate.py", tmp_path / "outbox.db", "42", "2026-11-21")
    first, again = run(box, *command), run(box, *command)
    assert (first.returncode, first.stdout) == (0, "paid invoice 42\n"), first.stderr
    assert (again.returncode, again.stdout) == (0, "invoice 42 was paid before\n"), again.stderr
    assert [action["status"] for action in box.actions()] == ["COMMITTED"]


def test_approval_gate_does_not_act_on_a_rejection(box: Sandbox, tmp_path: Path) -> None:
    key = idempotency_key("invoice", "77", date="2026-11-21")
    with AegisClient(box.url, tenant_id="acme", thread_id="invoices") as client:
        client.reject(key, payload={"invoice": "77", "date": "2026-11-21"})
    gate = run(box, EXAMPLES / "approval_gate.py", tmp_path / "outbox.db", "77", "2026-11-21")
    assert (gate.returncode, gate.stdout) == (1, "")
    assert "already stands for 'reject'" in gate.stderr


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


def test_crontab(box: Sandbox, tmp_path: Path) -> None:
    """Each line is run by its shell, with its files in a folder of the test."""
    text = (EXAMPLES / "crontab").read_text(encoding="utf-8")
    jobs = [line.split(None, 5)[5] for line in text.splitlines() if re.match(r"[0-9*]", line)]
    assert len(jobs) == 3
    for job in jobs:
        done = run(box, "sh", "-c", job.replace("/tmp/", str(tmp_path) + "/"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), job
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == "processed: create a report\n"


@pytest.mark.parametrize("name", ["hestiaos-nightly.service", "hestiaos-nightly.timer"])
def test_units_are_wellformed(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze"):
        text = (
            (EXAMPLES / name)
            .read_text(encoding="utf-8")
            .replace("ExecStart=hestiaos-lite", "ExecStart=/bin/echo")
        )
        (tmp_path / name).write_text(text, encoding="utf-8")
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


def test_service_restarts_only_where_nothing_was_done(box: Sandbox) -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.read(EXAMPLES / "hestiaos-nightly.service")
    service = unit["Service"]
    restart = set(service["RestartForceExitStatus"].split())
    stay = set(service["RestartPreventExitStatus"].split())
    assert restart == {"69", "75"}
    assert stay == {"1", "2", "3", "65", "76", "77", "78"}
    done = run(box, *shlex.split(service["ExecStart"]))
    assert (done.returncode, done.stdout) == (0, "processed: create a report\n")
