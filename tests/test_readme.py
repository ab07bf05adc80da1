"""The README is executed: its Python blocks, its console blocks; its shell blocks are .ci/run's own commands or a crontab's.

A Python block runs as a script of its own against a sandbox. What a line prints stands in its comment, ``print(x)  # text``.
A console block runs line by line in one shell folder; what follows a ``$`` line is what it prints.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import pytest

from hestiaos_lite.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> List[str]:
    return re.findall(r"^```{}\n(.*?)^```$".format(language), TEXT, re.MULTILINE | re.DOTALL)


def numbered(texts: List[str]) -> List[object]:
    return [pytest.param(text, id=str(number)) for number, text in enumerate(texts, 1)]


@pytest.fixture(name="environment")
def _environment(tmp_path: Path) -> Iterator[Dict[str, str]]:
    with Sandbox() as box:
        environment = dict(os.environ, HESTIAOS_BASE_URL=box.url, AEGIS_BASE_URL=box.url)
        environment["PATH"] = os.path.dirname(sys.executable) + os.pathsep + environment["PATH"]
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT)] + environment.get("PYTHONPATH", "").split(os.pathsep)
        )
        yield environment


def test_there_is_something_to_run() -> None:
    assert len(blocks("python")) >= 3
    assert len(blocks("console")) >= 2
    assert len(re.findall("^```", TEXT, re.MULTILINE)) == 2 * sum(
        len(blocks(kind)) for kind in ("python", "console", "sh")
    )


@pytest.mark.parametrize("code", numbered(blocks("python")))
def test_python_block(code: str, environment: Dict[str, str], tmp_path: Path) -> None:
    promised = [found.group(1) for found in re.finditer(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)]
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=str(tmp_path),
        timeout=60,
        text=True,
    )
    assert done.returncode == 0
    assert " ".join(done.stdout.split()) == " ".join(promised)


def commands(block: str) -> List[Tuple[str, str]]:
    """Split a console block into commands and what each prints."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        found.append((command, output))
    return found


@pytest.mark.parametrize("block", numbered(blocks("console")))
def test_console_block(block: str, environment: Dict[str, str], tmp_path: Path) -> None:
    for command, output in commands(block):
        done = subprocess.run(
            ["bash", "-c", command],
            stdout=subprocess.PIPE,
            env=environment,
            cwd=str(tmp_path),
            timeout=60,
            text=True,
        )
        assert (command, done.stdout) == (command, output)
        assert done.returncode == 0, command


def test_shell_blocks_are_what_ci_runs_or_a_crontab(environment: Dict[str, str], tmp_path: Path) -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for line in "".join(blocks("sh")).splitlines():
        if re.match(r"[0-9*]", line):
            job = line.split(None, 5)[5].replace("/tmp/", str(tmp_path) + "/")
            done = subprocess.run(["sh", "-c", job], env=environment, timeout=60)
            assert done.returncode == 0, job
        else:
            assert line in ci, line


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[a-z_]+\.py)`", TEXT))))
def test_each_promise_names_a_test_that_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_sandbox_command_serves(environment: Dict[str, str]) -> None:
    assert "`hestiaos-lite sandbox --port 8000`" in TEXT
    process = subprocess.Popen(
        [sys.executable, "-m", "hestiaos_lite", "sandbox", "--port", "0"],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "http://127.0.0.1:" in process.stderr.readline()
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == 143
