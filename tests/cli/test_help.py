"""Help: of the program, of each command, and the two pages that go with it; and the table of commands it is made from."""

from __future__ import annotations

import ast
import inspect
import os
import re
import runpy
import shlex
from pathlib import Path

import pytest

import hestiaos_lite
from hestiaos_lite.cli import commands, exits
from hestiaos_lite.cli.commands import COMMANDS
from hestiaos_lite.cli.help import ENVIRONMENT
from hestiaos_lite.cli.parser import EXIT_CODES, parse

from ..cli_call import ROOT, Called, call

SERVICE = "-u URL, -k KEY, --api-key-file FILE, -j, --get FIELD, --timeout SECONDS, --retries N, --profile NAME, -q, -v"
TAKES = {  # of the options of every command, those that mean something there
    "hitl key": "-j, --get FIELD, -q, -v",
    "outbox list": "-j, --get FIELD, --timeout SECONDS, -q, -v",
    "outbox requeue": "-j, --get FIELD, --timeout SECONDS, -q, -v",
    "outbox move": "-j, --get FIELD, --timeout SECONDS, -q, -v",
    "outbox drop": "-j, --get FIELD, --timeout SECONDS, -q, -v",
    "sandbox": "-k KEY, --api-key-file FILE, -q, -v",
    "demo": "-j, --get FIELD, -q, -v",
    "completion": "-j, --get FIELD, -q, -v",
    "help": "-j, --get FIELD, -q, -v",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str) -> None:
    """It names the options that mean something there in short form, and ends with examples that can be parsed."""
    called = call(*name.split(), "--help")
    assert (called.code, called.err) == (0, "")
    assert call("help", *name.split()) == called
    assert call("--help", *name.split()) == call("--help")
    assert called.out.startswith("usage: hestiaos-lite {} ".format(name))
    head, examples = called.out.split("\n\nexamples:\n")
    assert head.endswith("\n  " + TAKES.get(name, SERVICE))
    for line in examples.splitlines():
        words = shlex.split(line.partition(" < ")[0].partition(" > ")[0].partition(" && ")[0])
        assert words[0] == "hestiaos-lite"
        assert parse(words[1:]).execute


def test_help_alone_is_that_of_the_program() -> None:
    assert call("help") == call("--help")
    assert EXIT_CODES in call("help").out


@pytest.mark.parametrize("argv", ["help bogus", "help run more", "help hitl bogus"])
def test_help_for_what_is_no_command_is_2(argv: str) -> None:
    called = call(*argv.split())
    assert (called.code, called.out) == (2, "")
    assert "there is no command" in called.err


def test_help_pages() -> None:
    assert call("help", "exit-codes") == Called(0, EXIT_CODES, "")
    assert call("help", "environment") == Called(0, ENVIRONMENT, "")


def test_help_knows_every_environment_variable() -> None:
    """Those that the source reads by name, and the settings of both services."""
    source = "".join(
        path.read_text(encoding="utf-8") for path in Path(hestiaos_lite.__file__).parent.rglob("*.py")
    )
    read = set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", source))
    read |= {"HESTIAOS_" + name for name in ("BASE_URL", "API_KEY", "API_KEY_FILE", "TIMEOUT")}
    read |= {
        "AEGIS_" + name
        for name in ("BASE_URL", "API_KEY", "API_KEY_FILE", "TIMEOUT", "TENANT_ID", "THREAD_ID")
    }
    of_the_system = {"USERNAME", "LC_CTYPE", "CREDENTIALS_DIRECTORY"}  # asked for, but no setting of ours
    assert {name for name in read - of_the_system if name not in ENVIRONMENT} == set()


def test_help_and_the_shared_table_name_the_same_exit_codes() -> None:
    defined = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    named = {
        int(code)
        for code in re.findall(r"^ *(\d+)  |; (\d+) ", EXIT_CODES, re.MULTILINE)
        for code in code
        if code
    }
    assert named == defined | {130, 141, 143}


def test_the_modules_of_the_table_are_named_for_tools_that_look_for_imports() -> None:
    tree = ast.parse(inspect.getsource(commands))
    modules = next(
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_modules"
    )
    named = {
        alias.name for node in ast.walk(modules) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert named == {command.declared_by.partition(":")[0] for command in COMMANDS.values()} - {""}


def test_the_page_of_the_commands_is_made_from_the_parsers_of_today() -> None:
    """Else: ``python docs/make_cli.py > docs/cli.md``."""
    made = runpy.run_path(os.path.join(ROOT, "docs", "make_cli.py"))["page"]()
    page = Path(ROOT, "docs", "cli.md").read_text(encoding="utf-8")
    assert page == "\n".join(made) + "\n"
