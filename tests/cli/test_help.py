"""Help: of the program, of each command, and the two pages that go with it; and the table of commands it is made from."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import hestiaos_lite
from hestiaos_lite.cli import exits, parser
from hestiaos_lite.cli.help import ENVIRONMENT
from hestiaos_lite.cli.parser import COMMANDS, EXIT_CODES, build_parser

from ..cli_call import Called, call

NAMES = [command.name for command in COMMANDS]
NESTED = ["hitl approve", "hitl status", "hitl key", "secret get", "secret set", "outbox list", "outbox drop"]


@pytest.mark.parametrize("name", NAMES + NESTED)
def test_help_of_a_command(name: str) -> None:
    called = call(*name.split(), "--help")
    assert (called.code, called.err) == (0, "")
    assert called.out.startswith("usage: hestiaos-lite {} ".format(name))
    assert call("help", *name.split()) == called
    assert called.out.count("--verbose") == 0  # the options of every command are named in short form
    assert ", -q, -v\n" in called.out or name in ("hitl", "secret", "outbox")


@pytest.mark.parametrize(
    "name, takes",
    [
        (
            "run",
            "-u URL, -k KEY, --api-key-file FILE, -j, --get FIELD, --timeout SECONDS, --retries N, --profile NAME, -q, -v",
        ),
        (
            "secret get",
            "-u URL, -k KEY, --api-key-file FILE, -j, --get FIELD, --timeout SECONDS, --retries N, --profile NAME, -q, -v",
        ),
        ("hitl key", "-j, --get FIELD, -q, -v"),
        ("outbox drop", "-j, --get FIELD, --timeout SECONDS, -q, -v"),
        ("sandbox", "-k KEY, --api-key-file FILE, -q, -v"),
        ("completion", "-j, --get FIELD, -q, -v"),
        ("help", "-j, --get FIELD, -q, -v"),
    ],
)
def test_help_names_only_the_options_that_mean_something_there(name: str, takes: str) -> None:
    assert call("help", *name.split()).out.endswith(
        "options of every command (hestiaos-lite --help explains them):\n  {}\n".format(takes)
    )


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
    tree = ast.parse(inspect.getsource(parser))
    modules = next(
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_modules"
    )
    named = {
        alias.name for node in ast.walk(modules) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert named == {command.declared_by.partition(":")[0] for command in COMMANDS}


def test_the_table_names_no_command_twice() -> None:
    names = [command.name for command in COMMANDS]
    assert len(names) == len(set(names))
    assert build_parser().parse_args(["run", "x"]).command == "run"
