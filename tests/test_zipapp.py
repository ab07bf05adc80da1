"""The single file: built here, and run by every Python it says it is for."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

pytestmark = pytest.mark.slow


def interpreters(floor: str) -> List[str]:
    """This Python, and the oldest and newest that pyenv has."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    oldest = glob.glob(os.path.join(root, "versions", floor + ".*", "bin", "python"))
    return (
        [sys.executable]
        + oldest[:1]
        + glob.glob(os.path.join(root, "versions", "3.13.*", "bin", "python"))[:1]
    )


def test_one_file_runs_everywhere(tmp_path: Path) -> None:
    archive = tmp_path / "hestiaos-lite.pyz"
    built = subprocess.run(
        [sys.executable, "-m", "hestiaos_lite.zipapp", "--output", str(archive)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    floor = built.stdout.rsplit("Python ", 1)[1].split()[0]
    for python in interpreters(floor):
        for command in (["demo"], ["--version"], ["completion", "bash"]):
            done = subprocess.run(
                [python, "-I", str(archive)] + command, stdout=subprocess.PIPE, cwd=str(tmp_path)
            )
            assert done.returncode == 0, (python, command)
            assert done.stdout


def test_tls_is_verified_with_the_certificates_inside(tmp_path: Path) -> None:
    archive = tmp_path / "hestiaos-lite.pyz"
    subprocess.run([sys.executable, "-m", "hestiaos_lite.zipapp", "--output", str(archive)], check=True)
    code = (
        "import sys; sys.path.insert(0, {!r}); import requests.certs, ssl; "
        "context = ssl.create_default_context(cafile=requests.certs.where()); print(len(context.get_ca_certs()) > 50)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code.format(str(archive))], stdout=subprocess.PIPE, check=True
    )
    assert done.stdout.split() == [b"True"]
