"""Write the completion scripts from the parser: ``python -m hestiaos_lite.cli.make_completions`` (needs shtab).

A development tool; the scripts are package data, so that a user needs no shtab.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Iterator

from .completion import SHELLS
from .parser import PROGRAM, Parser, build_parser

_MODULE = "hestiaos_lite.cli.make_completions"  # __name__ is __main__ when it runs
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "completions")


def make(shell: str) -> str:
    """Return the completion script of one shell."""
    import shtab  # type: ignore[import-not-found, unused-ignore]

    parser = build_parser()
    for command in walk(parser):
        for action in command._actions:  # argparse has no public way to its arguments; shtab goes the same
            if action.metavar == "FILE":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    script = re.sub(r"[ \t]+$", "", shtab.complete(parser, shell=shell), flags=re.MULTILINE)
    return "{}\n\n# made by python -m {} with shtab {}\n".format(
        script.strip("\n"), _MODULE, shtab.__version__
    )


def walk(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of all its commands, each with its arguments declared."""
    if isinstance(parser, Parser):
        parser.declare()
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from walk(command)


def main() -> int:
    """Write them all."""
    os.environ["COLUMNS"] = "80"
    for shell in SHELLS:
        path = os.path.join(FOLDER, "{}.{}".format(PROGRAM, shell))
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(make(shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
