"""The command line frozen by PyInstaller: it has all its commands, and keeps its exit codes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hestiaos_lite.cli.commands import COMMANDS

from ..cli_call import ROOT, Called, environment

pytest.importorskip("PyInstaller", reason="needs PyInstaller: pip install pyinstaller")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", name="program")
def _program(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("frozen")
    entry = folder / "entry.py"
    shutil.copy(str(Path(ROOT) / "hestiaos_lite" / "__main__.py"), str(entry))
    options = ["--onedir", "--console", "--log-level", "ERROR", "--paths", ROOT, "--name", "hestiaos-lite"]
    subprocess.run(
        [sys.executable, "-m", "PyInstaller"] + options + [str(entry)], cwd=str(folder), check=True
    )
    return str(folder / "dist" / "hestiaos-lite" / "hestiaos-lite")


def run(program: str, *argv: str) -> Called:
    done = subprocess.run([program, *argv], capture_output=True, env=environment(), timeout=60)
    return Called(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))


def test_every_command_is_in_it(program: str) -> None:
    for command in COMMANDS.values():
        called = run(program, *command.name.split(), "--help")
        assert (command.name, called.code, called.err) == (command.name, 0, "")


def test_it_calls_a_service_and_keeps_the_exit_codes(program: str, box: Any) -> None:
    assert run(program, "run", "x", "-q", "-u", box.url) == Called(0, "processed: x\n", "")
    assert run(program, "run", "rm -rf /", "-u", box.url).code == 1
    assert run(program, "bogus").code == 2
    assert run(program, "health", "-u", "http://127.0.0.1:1", "--retries", "0").code == 69


def test_the_demo_runs_in_it(program: str) -> None:
    """Every part of the library: streams, the outbox with its SQLite, the sandbox."""
    called = run(program, "demo", "-q")
    assert (called.code, called.err) == (0, "")
