"""What is shipped: built, checked and listed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Tuple

import pytest

from .cli_call import environment

ROOT = Path(__file__).resolve().parent.parent


def test_the_wheel_holds_the_package_and_no_tests(tmp_path: Path) -> None:
    # its submodule: a folder build/, which pip leaves in a checkout, passes for the package itself
    pytest.importorskip("build.util", reason="packages are built on the newest Python alone")
    source = (
        tmp_path / "source"
    )  # a copy: setuptools would also ship what an earlier build left in the checkout
    left_out = shutil.ignore_patterns("build", "dist", "*.egg-info", ".git", ".tox", "__pycache__")
    shutil.copytree(str(ROOT), str(source), ignore=left_out)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)],
        stdout=subprocess.PIPE,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(str(wheel)).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "hestiaos_lite").rglob("*.py")}
    shipped = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert shipped == sources | {"hestiaos_lite/py.typed"}
    assert any(name.endswith("LICENSE") for name in names)


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("")], ids=["gone", "another"])
def test_the_suite_judges_no_copy_but_this_checkout(change: Any, tmp_path: Path) -> None:
    installed = tmp_path / "hestiaos_lite"
    shutil.copytree(str(ROOT / "hestiaos_lite"), str(installed))
    pytest_elsewhere = "import sys; del sys.path[0]; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    arguments = ["-q", "-n", "0", "-p", "no:cacheprovider", "--collect-only", "tests/test_package.py"]

    def collect() -> Tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", pytest_elsewhere] + arguments,
            cwd=str(ROOT),
            env=environment(PYTHONPATH=str(tmp_path)),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        return done.returncode, done.stderr.decode("utf-8")

    assert collect() == (0, "")
    change(installed / "errors.py")
    assert collect() == (
        4,
        "ERROR: {} is not this checkout's: 1 of its files differ, errors.py the first; once 'pip install -e .', "
        "or 'pip install .' after each change\n\n".format(installed),
    )
