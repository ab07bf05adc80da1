"""What is shipped: built, checked and listed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import hestiaos_lite

from .conftest import judge_one_copy
from .markdown import ROOT


@pytest.mark.slow  # CI's part "package" runs it
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
def test_the_suite_judges_no_copy_but_this_checkout(
    change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "hestiaos_lite"
    shutil.copytree(str(ROOT / "hestiaos_lite"), str(installed))
    monkeypatch.setattr(hestiaos_lite, "__file__", str(installed / "__init__.py"))
    judge_one_copy()
    change(installed / "errors.py")
    with pytest.raises(pytest.UsageError) as caught:
        judge_one_copy()
    assert str(caught.value) == (
        "{} is not this checkout's: 1 of its files differ, errors.py the first; once 'pip install -e .', "
        "or 'pip install .' after each change".format(installed)
    )
