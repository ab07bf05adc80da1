"""Breaks the package at random places, one at a time, and says which breaks the tests do not notice.

    python -m tests.mutation --seconds 240        # a few places; the seed is printed
    python -m tests.mutation --seed 7 --places 50 hestiaos_lite/aegis

For each place first the tests beside it are run (``tests/aegis`` for ``hestiaos_lite/aegis``), then, where they pass, the whole
default suite; a run that does not end has noticed too. Ends with 1 when more than three of ten live, of ten or more: some breaks
change nothing that could be seen, and a person has to say which. Needs Python 3.9.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from glob import glob
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 300
TOO_MANY, OF_AT_LEAST = 0.3, 10

_PAIRS = [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)]
_PAIRS += [(ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub)]
_OPPOSITES: Dict[type, type] = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}


class Mutant(NamedTuple):
    """One break: a file of the package, its line, what it says and what it says instead."""

    path: str
    line: int
    before: str
    after: str
    text: str  # the whole file with the break in it

    def __str__(self) -> str:
        return "{}:{}: {} -> {}".format(self.path, self.line, self.before, self.after)


def broken(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    twin = copy.deepcopy(node)
    if isinstance(twin, ast.Compare) and type(twin.ops[0]) in _OPPOSITES:
        twin.ops[0] = _OPPOSITES[type(twin.ops[0])]()
        yield twin
    elif isinstance(twin, (ast.BoolOp, ast.BinOp)) and type(twin.op) in _OPPOSITES:
        twin.op = _OPPOSITES[type(twin.op)]()
        yield twin
    elif isinstance(twin, ast.UnaryOp) and isinstance(twin.op, ast.Not):
        yield twin.operand
    elif isinstance(twin, ast.Constant) and isinstance(twin.value, bool):
        yield ast.Constant(not twin.value)
    elif isinstance(twin, ast.Constant) and isinstance(twin.value, int):
        yield ast.Constant(twin.value + 1)
    elif isinstance(twin, ast.Return) and not isinstance(twin.value, (ast.Constant, type(None))):
        yield ast.Return(None)
    elif (isinstance(twin, ast.Expr) and isinstance(twin.value, ast.Call)) or isinstance(twin, ast.Raise):
        yield ast.Pass()


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every break of one file; annotations, and what is for type checkers alone, change nothing and are left out."""
    text = path.read_text(encoding="utf-8")
    lines = text.encode("utf-8").split(b"\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    waiting: List[ast.AST] = [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list"):
                children = value if isinstance(value, list) else [value]
                waiting += [child for child in children if isinstance(child, ast.AST)]
        for twin in broken(node):
            place: Any = node  # every node that can be broken has one
            begin = starts[place.lineno - 1] + place.col_offset
            end = starts[place.end_lineno - 1] + place.end_col_offset
            data = text.encode("utf-8")
            after = ast.unparse(twin)  # type: ignore[attr-defined]
            put = after if isinstance(node, ast.stmt) else "(" + after + ")"
            changed = (data[:begin] + put.encode("utf-8") + data[end:]).decode("utf-8")
            before = " ".join(data[begin:end].decode("utf-8").split())
            yield Mutant(str(path.relative_to(ROOT)), place.lineno, before[:90], after[:90], changed)


def beside(path: str) -> List[str]:
    """The tests of a file: its folder's, or those of its name."""
    parts = path.split("/")
    if len(parts) > 2:
        return glob("tests/{}/".format(parts[1]), root_dir=str(ROOT))  # type: ignore[call-arg]
    return glob("tests/test_{}*.py".format(parts[1][:-3].strip("_")), root_dir=str(ROOT))  # type: ignore[call-arg]


def noticed(folder: Path, tests: Sequence[str]) -> Optional[str]:
    """The test that failed, or None."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", "-p", "no:cacheprovider", "--no-header"]
    settings: Any = {"cwd": str(folder), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    settings["env"] = dict(os.environ, PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE="1")
    process = subprocess.Popen(command + list(tests), start_new_session=True, **settings)
    try:
        out, _ = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return "no end after {} seconds".format(LIMIT_SECONDS)
    if process.returncode == 0:
        return None
    lines = out.decode("utf-8", "replace").splitlines()
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return failures[0][:160] if failures else "exit status {}".format(process.returncode)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin no further place after so long"
    )
    parser.add_argument("--places", type=int, default=10**6)
    parser.add_argument("path", nargs="*", default=["hestiaos_lite"])
    options = parser.parse_args(argv)
    folders = [ROOT / path for path in options.path]
    files = [file for path in folders for file in ([path] if path.suffix else path.rglob("*.py"))]
    mutants = [mutant for file in sorted(files) for mutant in mutants_of(file)]
    random.Random(options.seed).shuffle(mutants)
    print("seed {}, {} places".format(options.seed, len(mutants)), flush=True)
    ends, tried, living = time.monotonic() + options.seconds, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkout"
        shutil.copytree(
            str(ROOT),
            str(folder),
            ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "*.egg-info"),
        )
        for mutant in mutants[: options.places]:
            if time.monotonic() > ends:
                break
            (folder / mutant.path).write_text(mutant.text, encoding="utf-8")
            found = (noticed(folder, beside(mutant.path)) if beside(mutant.path) else None) or noticed(
                folder, []
            )
            shutil.copy(str(ROOT / mutant.path), str(folder / mutant.path))
            tried, living = tried + 1, living + (found is None)
            print("{}\n    {}".format(mutant, found or "LIVES"), flush=True)
    print("{} of {} places noticed, seed {}".format(tried - living, tried, options.seed))
    return int(tried >= OF_AT_LEAST and living > TOO_MANY * tried)


if __name__ == "__main__":
    sys.exit(main())
