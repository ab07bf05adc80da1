"""What may come next on a command line: the answer to ``hestiaos-lite __complete WORD...``, which the shells' scripts ask.

The last word is the one to be completed, perhaps empty. Each line of the answer is a word and, after a tab, its explanation;
the line `FILES` asks the shell for file names, after the part of the word that follows its tab (``--out=``, ``@``).
"""

from __future__ import annotations

import argparse
from typing import Iterator, List, Optional, Sequence

from .commands import COMMANDS, commands_of
from .help import PAGES
from .parser import OPTIONS, Parser, build_parser

FILES = ":files"
_FILE = ("FILE", "IN", "OUT", "BAD")  # the metavars of arguments that name a file
_FILE_AFTER_AT = "JSON"  # JSON as it is, or @FILE


def complete(words: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the answer."""
    if words[:1] == ["help"] and len(words) > 1:
        words = words[1:]  # a command, as anywhere, or a page
        yield from (page for page in PAGES if len(words) == 1 and page.startswith(words[0]))
    name = ""
    parser = build_parser(name)
    current = words[-1] if words else ""
    awaiting: Optional[argparse.Action] = None  # an option that wants the next word as its value
    places = _places(parser)
    only_places = False  # after "--"
    for word in words[:-1]:
        if awaiting is not None:
            awaiting = None
        elif word == "--" and not only_places:
            only_places = True
        elif word.startswith("-") and word != "-" and not only_places:
            option = _option(parser, word)
            awaiting = option if option is not None and option.nargs is None and "=" not in word else None
        elif commands_of(name):
            name = "{} {}".format(name, word).lstrip()
            if name not in COMMANDS:
                return
            parser = build_parser(name)
            places = _places(parser)
        elif places and places[0].nargs is None:
            places.pop(0)
    option_name, equals, value = current.partition("=")
    if awaiting is not None:
        yield from _values(awaiting, current, "")
    elif current.startswith("-") and not only_places:
        option = _option(parser, option_name) if equals else None
        if option is not None:
            yield from _values(option, value, option_name + equals)
        elif not equals:
            yield from _options(parser, current)
    elif places:
        yield from _values(places[0], current, "")
    elif only_places and parser.takes_command:
        yield FILES + "\t"
    else:
        for command in commands_of(name):
            word = command.name.rpartition(" ")[2]
            if word.startswith(current):
                yield _line(word, command.help)


def _places(parser: Parser) -> List[argparse.Action]:
    return [action for action in parser.arguments if not action.option_strings]


def _option(parser: Parser, word: str) -> Optional[argparse.Action]:
    name = word.partition("=")[0]
    return next((action for action in parser.arguments if name in action.option_strings), None)


def _options(parser: Parser, current: str) -> Iterator[str]:
    """Yield the options that begin so, in long form."""
    for action in parser.arguments:
        help = OPTIONS[action.dest].help if action.help == argparse.SUPPRESS else action.help
        for name in action.option_strings:
            if name.startswith(current) and (name.startswith("--") or name == current):
                yield _line(name, help)


def _values(action: argparse.Action, current: str, prefix: str) -> Iterator[str]:
    """Yield what the argument may be; ``prefix`` is the part of the word before ``current``."""
    for choice in action.choices or ():
        if str(choice).startswith(current):
            yield prefix + str(choice)
    if action.metavar in _FILE:
        yield "{}\t{}".format(FILES, prefix)
    elif action.metavar == _FILE_AFTER_AT and current.startswith("@"):
        yield "{}\t{}@".format(FILES, prefix)


def _line(word: str, help: Optional[str]) -> str:
    return "{}\t{}".format(word, " ".join(help.split())) if help else word
