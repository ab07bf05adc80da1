"""What the README alone must keep: its length, the commands of .ci/run, and the sandbox it sends its reader to.

Its blocks are run by tests/test_docs.py, with those of all documents.
"""

from __future__ import annotations

import re
import subprocess
import sys

from tests.markdown import ROOT, blocks_of

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_is_short_and_shows_the_three_ways_in() -> None:
    assert len(TEXT.splitlines()) <= 130
    assert [block.language for block in blocks_of(README)].count("crontab") == 1
    assert {"python", "console", "crontab", "sh"} == {block.language for block in blocks_of(README)}


def test_it_names_the_commands_of_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    named = re.findall(r"^ +readme '(.*)'$", ci, re.MULTILINE)
    assert len(named) == 2
    assert "".join(command + "\n" for command in named) in [block.text for block in blocks_of(README)]


def test_each_promise_names_its_tests() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", TEXT.partition("## What it promises")[2], re.MULTILINE)[
        1:
    ]
    assert len(rows) >= 10
    for promise, tests in rows:
        paths = re.findall(r"\]\((tests/[\w/]+\.py)\)", tests)
        assert paths and all((ROOT / path).is_file() for path in paths), promise


def test_the_sandbox_command_serves() -> None:
    assert "`hestiaos-lite sandbox --port 8000`" in TEXT
    process = subprocess.Popen(
        [sys.executable, "-m", "hestiaos_lite", "sandbox", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert "http://127.0.0.1:" in process.stderr.readline()
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == 143
