"""The recipe for a single file: built as docs/operations.md says, and run by every Python it is for."""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from ..cli_call import ROOT

pytestmark = pytest.mark.slow

OPERATIONS = (Path(ROOT) / "docs" / "operations.md").read_text(encoding="utf-8")
(RECIPE,) = [
    block
    for block in re.findall(r"^```\w+\n(.*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)
    if "zipapp" in block
]
# an older certifi lets requests read the trust store from a predictable name in the temporary folder
OLDEST_CERTIFI = "2022"


@pytest.fixture(scope="module", name="archive")
def _archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("zipapp")
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(sys.executable)
    subprocess.run(["git", "clone", "-q", ROOT, str(folder / "source")], check=True)
    environment = dict(os.environ, PATH="{}:{}".format(folder / "bin", os.environ["PATH"]))
    subprocess.run(["sh", "-ec", RECIPE], env=environment, cwd=str(folder / "source"), check=True)
    return str(folder / "source" / "hestiaos-lite.pyz")


def interpreters() -> List[str]:
    """This Python and, where this is the oldest of them, the newest that pyenv has."""
    if sys.version_info >= (3, 8):
        return [sys.executable]
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    return [sys.executable] + glob.glob(os.path.join(root, "versions", "3.13.*", "bin", "python"))[:1]


@pytest.mark.parametrize("argv, code", [
    ("--version", 0),
    ("completion bash", 0),
    ("demo", 0),
    ("bogus", 2),
    ("health -u http://127.0.0.1:1 --retries 0", 69),
])  # fmt: skip
def test_it_keeps_the_exit_codes(archive: str, argv: str, code: int, tmp_path: Path) -> None:
    for python in interpreters():
        done = subprocess.run(
            [python, "-I", archive] + argv.split(), stdout=subprocess.PIPE, cwd=str(tmp_path)
        )
        assert (done.returncode, bool(done.stdout)) == (code, code == 0), python


def test_tls_is_verified_with_the_certificates_inside(archive: str) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import certifi, requests.certs, ssl; "
        "context = ssl.create_default_context(cafile=requests.certs.where()); "
        "print(certifi.__version__ >= sys.argv[2], len(context.get_ca_certs()) > 50)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, archive, OLDEST_CERTIFI], stdout=subprocess.PIPE, check=True
    )
    assert done.stdout.split() == [b"True", b"True"]
