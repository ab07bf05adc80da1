"""Print docs/cli.md, made from the parsers of the command line: ``python docs/make_cli.py > docs/cli.md``."""

from __future__ import annotations

import argparse
from typing import Iterator

from parts import block, head, row

from hestiaos_lite.cli.commands import COMMANDS, commands_of
from hestiaos_lite.cli.help import ENVIRONMENT
from hestiaos_lite.cli.parser import EXIT_CODES, OPTIONS, PROGRAM, Parser, build_parser

HEAD = """\
# The command line

Made from the parsers by `python docs/make_cli.py > docs/cli.md`; `hestiaos-lite help COMMAND` says the same.
"""


def page() -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD
    yield head("command", "what it does")
    for command in commands_of(""):
        yield row("[{0}](#{0})".format(command.name), command.help)
    yield "\n## Options of every command\n\nBefore or after the command's name. A command takes all of them, unless it says here which.\n"
    yield head("option", "what it does")
    options = {action.dest: action for action in build_parser().arguments}
    for dest in OPTIONS:
        yield argument(options[dest])
    for name in COMMANDS:
        yield from section(name)
    for title, text in (("Environment variables", ENVIRONMENT), ("Exit codes", EXIT_CODES)):
        yield "\n## {}\n".format(title)
        yield block(text) + "\n"


def section(name: str) -> Iterator[str]:
    """Yield what there is to say of a command."""
    command, parser = COMMANDS[name], build_parser(name)
    yield "\n{} {}\n".format("###" if " " in name else "##", name)
    if not command.declared_by:
        names = ["[{}](#{})".format(c.name, c.name.replace(" ", "-")) for c in commands_of(name)]
        yield "{}: {}.".format(sentence(command.help), ", ".join(names))
        return
    more = str(parser.description)
    yield sentence(command.help) + ".\n" if more == command.help else block(more) + "\n"
    yield block("{} {}{}".format(PROGRAM, name, usage(parser))) + "\n"
    own = [
        action for action in parser.arguments if action.help != argparse.SUPPRESS and action.dest != "help"
    ]
    if own:
        yield head("argument", "what it is")
        yield from map(argument, own)
        yield ""
    before, _, _ = str(parser.epilog).partition("options of every command")
    if before:
        yield block(before) + "\n"
    if set(parser.takes) < set(OPTIONS) - {"version"}:
        yield "Of the options of every command it takes {}.\n".format(
            ", ".join(map("`{}`".format, parser.taken))
        )
    yield "Examples:\n"
    yield block("".join("{} {}\n".format(PROGRAM, example) for example in command.examples))


def usage(parser: Parser) -> str:
    """Return what follows the name."""
    if parser.takes_command:
        return " [OPTION]... -- COMMAND [ARGUMENT]..."
    words = [" [OPTION]..."]
    for action in parser.arguments:
        if not action.option_strings:
            form = {None: " {}", "?": " [{}]", "*": " [{}]..."}[action.nargs]  # type: ignore[index]
            words.append(form.format(action.metavar))
    return "".join(words)


def argument(action: argparse.Action) -> str:
    """Return the row of an argument in its table."""
    metavar = action.metavar or ("|".join(action.choices) if action.choices else "")
    if action.option_strings and action.nargs is None and not metavar:
        metavar = action.dest.upper()
    names = [" ".join(filter(None, (name, str(metavar)))) for name in action.option_strings] or [str(metavar)]
    return row(", ".join("`{}`".format(name) for name in names), str(action.help))


def sentence(text: str) -> str:
    """Return a line of help as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    print("\n".join(page()))
