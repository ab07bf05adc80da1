"""The layers of docs/design.md: a file imports only from the rows above it, and each keeps to one idea and to Python 3.7."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib.util
import os
import re
import sqlite3
import sys
from concurrent import futures
from typing import Dict, Iterator, NamedTuple, Set

import pytest

import hestiaos_lite

from ..markdown import ROOT

PACKAGE = os.path.dirname(os.path.abspath(hestiaos_lite.__file__))

# Row by row; a file or folder may import from the rows above its own, and from itself.
ROWS = [
    ["_version", "_redact", "_lazy", "_json"], ["deadline", "errors", "sse"], ["_check", "_stdio"],
    ["models", "config", "_sqlite"], ["wire"], ["stream", "namespaces", "aegis"], ["client", "batch"], ["cli"],
]  # fmt: skip
# An outbox opens without requests.
WITHOUT_WIRE = {"aegis/__init__", "aegis/keys", "aegis/rows", "aegis/outbox"}
APART = {"sandbox"}  # imports nothing of ours, so that it catches a wrong model instead of agreeing with it
DOORS = {"__init__", "__main__"}
# Beyond the standard library.
PACKAGES = {
    "sse": {"sseclient"},
    "wire": {"requests", "urllib3"},
    "sandbox/pytest_plugin": {"pytest"},
    # they look at them, and send nothing of a client's
    "cli/doctor": {"requests", "urllib3"},
}


class Import(NamedTuple):
    """One import: a module of ours below the package, or a package of others; and when it takes place."""

    name: str
    ours: bool
    when: str  # "load", "later" (inside a function), "types" (for type checkers alone)


def read() -> Iterator:
    """Every Python file of the package: its path below it without the ending, and its text."""
    for folder, _, names in os.walk(PACKAGE):
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                with open(path, encoding="utf-8") as file:
                    yield os.path.relpath(path, PACKAGE).replace(os.sep, "/")[:-3], file.read()


FILES: Dict[str, str] = dict(read())
_AS_3_7 = {"feature_version": (3, 7)} if sys.version_info >= (3, 8) else {}
tree_of = functools.lru_cache(None)(lambda path: ast.parse(FILES[path], path, **_AS_3_7))
# A public name that is imported from the package itself comes from there.
HOME_OF = {name: home.split(".")[0] for home, names in hestiaos_lite._HOMES.items() for name in names.split()}


def module_of(path: str) -> str:
    """The name in the rows: a file's own at the top, its folder's below."""
    return path.split("/")[0]


def import_statements(node: ast.AST, when: str = "load") -> Iterator:
    """Every import below a node, and when it takes place."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, when
        elif when == "types" or isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from import_statements(child, "types")
        else:
            is_function = isinstance(child, (ast.FunctionDef, ast.Lambda))
            yield from import_statements(child, "later" if is_function else when)


@functools.lru_cache(None)
def imports_of(path: str) -> Set[Import]:
    """What a file imports."""
    folders = path.split("/")[:-1]
    found = set()
    for node, moment in import_statements(tree_of(path)):
        if isinstance(node, ast.Import):
            paths = [alias.name.split(".") for alias in node.names]
        else:
            base = ["hestiaos_lite"] + folders[: len(folders) + 1 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            whole = base == ["hestiaos_lite"] or not node.module
            paths = [base + [alias.name] for alias in node.names] if whole else [base]
        for parts in paths:
            ours = parts[0] == "hestiaos_lite"
            name = (parts[1:] or ["__init__"])[0] if ours else parts[0]
            found.add(Import(HOME_OF.get(name, name) if ours else name, ours, moment))
    return found


def allowed(path: str) -> Set[str]:
    """The files and folders of ours that a file may import."""
    module = module_of(path)
    if module in APART:
        return APART
    row = next(number for number, names in enumerate(ROWS) if module in names)
    above = {name for names in ROWS[:row] for name in names} | {module}
    if path in WITHOUT_WIRE:
        above -= {"wire"}
    return above | APART | DOORS if module == "cli" else above


def test_every_file_has_its_row():
    modules = {module_of(path) for path in FILES}
    assert modules - {name for names in ROWS for name in names} == APART | DOORS


def test_the_imports_are_seen():
    """So that the tests below cannot pass by seeing nothing."""
    assert Import("errors", True, "load") in imports_of("models/_base")
    assert Import("_version", True, "load") in imports_of("cli/parser")
    assert Import("errors", True, "load") in imports_of("wire/transport")
    assert Import("requests", False, "types") in imports_of("client")
    assert Import("configparser", False, "later") in imports_of("config")
    assert Import("stream", True, "later") in imports_of("client")
    assert Import("sandbox", True, "types") in imports_of("sandbox/__init__")


def test_a_file_imports_only_from_the_rows_above():
    wrong = {
        path: found
        for path in FILES
        if module_of(path) not in DOORS
        for found in [
            {item.name for item in imports_of(path) if item.ours and item.when != "types"} - allowed(path)
        ]
        if found
    }
    assert wrong == {}


@pytest.mark.skipif(sys.version_info < (3, 10), reason="older Pythons cannot list their standard library")
def test_beyond_the_standard_library_only_what_is_named_here():
    wrong = {
        path: found
        for path in FILES
        for found in [
            {item.name for item in imports_of(path) if not item.ours and item.when != "types"}
            - set(sys.stdlib_module_names)
            - PACKAGES.get(path, PACKAGES.get(module_of(path), set()))
        ]
        if found
    }
    assert wrong == {}


def test_only_the_wire_imports_http_client():
    importers = {
        module_of(path) for path, text in FILES.items() if "http.client" in text and "import" in text
    }
    assert importers <= {"wire"} | APART


def test_the_sandbox_speaks_through_the_standard_library_alone():
    found = {item for path in FILES if module_of(path) == "sandbox" for item in imports_of(path)}
    assert {item.name for item in found if item.ours} == {"sandbox"}
    assert {item.name for item in found} & {"requests", "urllib3", "sseclient", "hestiaos_lite"} == set()


def test_the_command_line_loads_neither_client_nor_sandbox_before_a_command_needs_it():
    seen, queue = set(), ["cli/__init__"]
    while queue:
        path = queue.pop()
        seen.add(path)
        loaded = {item.name for item in imports_of(path) if item.ours and item.when == "load"}
        assert loaded <= {"cli", "_version", "_redact", "_stdio", "errors"}, path
        for node in tree_of(path).body:
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                queue.extend({"cli/" + node.module} - seen)
    assert {"cli/__init__", "cli/parser"} <= seen


def test_a_file_is_python_3_7_short_and_says_what_it_is_for():
    for path, text in FILES.items():
        tree = tree_of(path)
        assert text.count("\n") <= 450, path
        assert ast.get_docstring(tree) or path == "_version", path
        code = [node for node in tree.body if not isinstance(node, ast.Expr)]
        if len(code) > 1:
            assert isinstance(code[0], ast.ImportFrom), path
            assert code[0].module == "__future__", path


@pytest.mark.skipif(sys.version_info < (3, 8), reason="older Pythons do not say where a function ends")
def test_a_function_has_sixty_lines_of_code_at_most():
    long = []
    for path, text in FILES.items():
        lines = text.splitlines()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[ast.get_docstring(node) is not None :][:1]
                body = lines[first[0].lineno - 1 : node.end_lineno] if first else []
                code = [line for line in body if line.strip() and not line.strip().startswith("#")]
                if len(code) > 60:
                    long.append((path, node.name, len(code)))
    assert long == []


@pytest.mark.parametrize(("module", "owners"), [
    ("argparse", (argparse.ArgumentParser, argparse.Namespace, argparse._SubParsersAction, argparse)),
    ("importlib", (importlib, importlib.util)),
    ("concurrent.futures", (futures.ThreadPoolExecutor, futures.Future, futures.thread, futures)),
    ("sqlite3", (sqlite3.Connection, sqlite3.Cursor, sqlite3)),
])  # fmt: skip
def test_no_private_name_of_these_libraries(module, owners):
    """They were changed under us (3.14 calls into a parser that add_parser has just made): only what is public is promised."""
    private = {
        name for owner in owners for name in dir(owner) if name[0] == "_" and not name.startswith("__")
    }
    importers = 0
    for path, text in FILES.items():
        if not re.search(r"^ *(import|from) {}\b".format(re.escape(module)), text, re.MULTILINE):
            continue
        importers += 1
        nodes = list(ast.walk(tree_of(path)))
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        used |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        used |= {
            inner.name
            for node in nodes
            if isinstance(node, ast.ClassDef) and any("argparse" in ast.dump(base) for base in node.bases)
            for inner in node.body
            if isinstance(inner, ast.FunctionDef)
        }
        assert used & private == set(), path
    assert importers


def test_no_event_loop():
    for path in FILES:
        assert "asyncio" not in {item.name for item in imports_of(path)}, path
        asynchronous = (ast.AsyncFunctionDef, ast.Await)
        assert not [node for node in ast.walk(tree_of(path)) if isinstance(node, asynchronous)], path


def test_the_version_is_written_in_one_place():
    version = '"{}"'.format(hestiaos_lite.__version__)
    assert [path for path, text in FILES.items() if version in text] == ["_version"]


def test_the_design_shows_the_house_as_it_is() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    house = re.findall(r"^  ([\w.]+/?) ", text.partition("```text")[2].partition("```")[0], re.MULTILINE)
    found = [path.name + "/" * path.is_dir() for path in (ROOT / "hestiaos_lite").iterdir()]
    assert sorted(house) == sorted(name for name in found if name != "__pycache__/")
    rows = re.findall(r"^\| \d \| ([^|]+) \|", text, re.MULTILINE)
    assert [re.findall(r"`(\w+)`", row) for row in rows] == ROWS
