"""Help: of the program, of each command, and the pages that go with it; the table of commands; hints for common mistakes."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

import hestiaos_lite
from hestiaos_lite.cli import commands, exits
from hestiaos_lite.cli.commands import COMMANDS
from hestiaos_lite.cli.help import ENVIRONMENT
from hestiaos_lite.cli.parser import EXIT_CODES, build_parser, parse

from ..cli_call import ROOT, Called, call
from ..faultserver import FaultServer, answer, reply

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


@pytest.mark.parametrize("argv", ["help bogus", "help run more", "help hitl bogus", "-kx bogus"])
def test_what_is_no_command_is_2(argv: str) -> None:
    called = call(*argv.split())
    assert (called.code, called.out) == (2, "")
    assert "there is no command" in called.err


@pytest.mark.parametrize("columns, width", [("70", 68), ("500", 118), ("x", 98)])
def test_help_is_as_wide_as_columns_says_and_no_text_is_too_wide_to_read(
    monkeypatch: Any, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    parser = build_parser("batch")
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=width)
    assert call("batch", "--help").out == parser.format_help()


def test_help_pages() -> None:
    assert call("help", "exit-codes") == Called(0, EXIT_CODES, "")
    assert call("help", "environment") == Called(0, ENVIRONMENT, "")
    as_json = {"topic": "hitl key", "text": call("hitl", "key", "-h").out}
    assert call("help", "hitl", "key", "-j").json == as_json


def test_help_knows_every_environment_variable() -> None:
    """Those that the source reads by name, and the settings of both services."""
    source = "".join(
        path.read_text(encoding="utf-8") for path in Path(hestiaos_lite.__file__).parent.rglob("*.py")
    )
    read = set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", source))
    settings = ("BASE_URL", "API_KEY", "API_KEY_FILE", "TIMEOUT")
    read |= {"HESTIAOS_" + name for name in settings}
    read |= {"AEGIS_" + name for name in (*settings, "TENANT_ID", "THREAD_ID")}
    of_the_system = {"USERNAME", "LC_CTYPE", "CREDENTIALS_DIRECTORY"}  # asked for, but no setting of ours
    assert {name for name in read - of_the_system if name not in ENVIRONMENT} == set()


def test_help_and_the_shared_table_name_the_same_exit_codes() -> None:
    defined = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    found = re.findall(r"^ *(\d+)  |; (\d+) ", EXIT_CODES, re.MULTILINE)
    named = {int(first or second) for first, second in found}
    assert named == defined | {130, 141, 143}


def test_the_modules_of_the_table_are_named_for_tools_that_look_for_imports() -> None:
    modules = {command.declared_by.partition(":")[0] for command in COMMANDS.values()} | {""}
    assert set(commands._modules.__code__.co_names) == modules


def test_the_page_of_the_commands_is_made_from_the_parsers_of_today(monkeypatch: Any) -> None:
    """Else: ``python docs/make_cli.py > docs/cli.md``."""
    monkeypatch.syspath_prepend(os.path.join(ROOT, "docs"))
    made = runpy.run_path(os.path.join(ROOT, "docs", "make_cli.py"))["page"]()
    page = Path(ROOT, "docs", "cli.md").read_text(encoding="utf-8")
    assert page == "\n".join(made) + "\n"


# -- mistakes that many make are met with what cures them

IN_QUOTES = "put text of several words in quotes"
PREFIXED = "the base URL {{url}}{0} ends in {0}, which is added anyway: try -u {{url}}"
FROM_STDIN = "the value is read from standard input: secret set KEY < FILE"


@pytest.mark.parametrize("argv, message", [
    ("run create a report", "too many arguments: " + IN_QUOTES),
    ("chat hello there", "too many arguments: " + IN_QUOTES),
    ("agent a do this", "too many arguments: " + IN_QUOTES),
    ("secret set foo bar", "too many arguments: " + FROM_STDIN),
    ("run create a --bogus", "unrecognized arguments: a --bogus"),
    ("health now", "unrecognized arguments: now"),
])  # fmt: skip
def test_too_many_words(box: Any, argv: str, message: str) -> None:
    name = " ".join(argv.split()[: 2 if argv.startswith("secret") else 1])
    line = "hestiaos-lite: error: {} (see hestiaos-lite {} --help)\n".format(message, name)
    assert call(*argv.split(), "-u", box.url) == Called(2, "", line)
    assert box.requests == []


def test_a_usage_error_is_one_line_without_control_characters() -> None:
    line = "hestiaos-lite: error: unrecognized arguments: a b \\x1b[2J (see hestiaos-lite health --help)\n"
    assert call("health", "a\nb", "\x1b[2J") == Called(2, "", line)


@pytest.mark.parametrize(
    "argv, code",
    [("health x -j", 2), ("-qj bogus", 2), ("guard x --json", 125), ("--json guard x -- y", 125)],
)
def test_a_usage_error_is_json_where_that_is_asked_for(argv: str, code: int) -> None:
    called = call(*argv.split())
    assert (called.code, called.out, len(called.err.splitlines())) == (code, "", 1)
    assert (called.error["code"], called.error["exit_code"]) == ("INVALID_INPUT", code)
    assert "error: " in called.error["message"]
    assert call("guard", "x", "--", "y", "-j").err.startswith("hestiaos-lite: error: ")


@pytest.mark.parametrize("argv, path, hint", [
    ("health", "/api/v1", PREFIXED.format("/api/v1")),
    ("status", "/api", PREFIXED.format("/api")),
    ("hitl status k", "/api/v1/", PREFIXED.format("/api/v1")),
    ("hitl status k", "", "an action is looked up by the request id that approve printed, not by its key"),
    ("secret get k", "", None),
])  # fmt: skip
def test_what_was_not_found(box: Any, argv: str, path: str, hint: Any) -> None:
    called = call(*argv.split(), "-u", box.url + path)
    assert called.code == 1
    assert called.err.splitlines()[:-1] == ([] if hint is None else [hint.format(url=box.url)])
    assert called.err.splitlines()[-1].startswith("hestiaos-lite: [NOT_FOUND]")
    as_json = call(*argv.split(), "-j", "-u", box.url + path)
    assert as_json.error["code"] == "NOT_FOUND"
    assert len(call(*argv.split(), "-q", "-u", box.url + path).err.splitlines()) == 1


def test_a_path_that_takes_no_such_method_is_not_the_services_either() -> None:
    with FaultServer(answer(reply(405))) as server:
        called = call("health", "-u", server.url + "/api")
    assert called.err.splitlines()[0] == PREFIXED.format("/api").format(url=server.url)
