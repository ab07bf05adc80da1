"""docs/design.md lists every hook of the libraries below that is not a public promise, each with a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import List, Set

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
WIRE = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "hestiaos_lite" / "wire").glob("*.py"))]
ROWS = [row.split("|")[1:5] for row in DESIGN.partition("| Of | Hook |")[2].splitlines() if "::" in row]


def quoted(cell: str) -> List[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[1].strip()))
def test_a_hook_is_used_and_its_test_exists(row: List[str]) -> None:
    assert all(any(name in source for source in WIRE) for name in quoted(row[1]))
    path, _, function = quoted(row[3])[0].partition("::")
    assert re.search(r"def {}\(".format(function), (ROOT / "tests" / path).read_text(encoding="utf-8"))


def test_every_private_name_of_another_s_object_is_listed() -> None:
    used: Set[str] = set()
    ours: Set[str] = set()
    for tree in map(ast.parse, WIRE):
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) or (
                isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            ):
                ours.add(node.attr if isinstance(node, ast.Attribute) else node.name)
            if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Name):
                used.add(node.attr)  # super()._tunnel
            elif isinstance(node, ast.Attribute) and node.value.id not in ("self", "_current"):  # type: ignore[attr-defined]
                used.add(node.attr)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
                name = node.args[
                    1
                ]  # in Python 3.7 a Str, whose text is s; from 3.12 on to ask for that is deprecated
                used.add(str(name.value if hasattr(name, "value") else getattr(name, "s", "")))
    private = {name for name in used if re.match(r"_[a-z]", str(name))}
    listed = {name for row in ROWS for name in quoted(row[1])}
    assert (
        private - listed - (ours - {"_new_conn", "_tunnel", "_get_conn", "_put_conn", "_read_status"})
        == set()
    )
    assert len(ROWS) > 15
