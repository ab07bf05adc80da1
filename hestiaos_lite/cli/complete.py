"""What may come next on a command line: the answer to ``hestiaos-lite __complete WORD...``, which the shells' scripts ask.

The last word is the one to be completed, perhaps empty. Each line of the answer is a word and, after a tab, its explanation;
the line `FILES` asks the shell for file names, after the part of the word that follows its tab (``--out=``, ``@``).
"""

from __future__ import annotations

import argparse
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from .help import PAGES
from .parser import Parser, build_parser, commands_of

FILES = ":files"
_FILE = ("FILE", "IN", "OUT", "BAD")  # the metavars of arguments that name a file
_FILE_AFTER_AT = "JSON"  # JSON as it is, or @FILE

# argparse has no public way to a parser's arguments (`_actions`); shtab and argcomplete go the same.


def complete(words: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the answer."""
    if words[:1] == ["help"] and len(words) > 1:
        words = words[1:]  # a command, as anywhere, or a page
        yield from (page for page in PAGES if len(words) == 1 and page.startswith(words[0]))
    root = parser = build_parser()
    parser.declare()
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
            awaiting = option if option is not None and _wants_value(option) and "=" not in word else None
        elif commands_of(parser):
            known = commands_of(parser)
            if word not in known:
                return
            parser = known[word]
            parser.declare()
            places = _places(parser)
        elif places and places[0].nargs is None:
            places.pop(0)
    name, equals, value = current.partition("=")
    if awaiting is not None:
        yield from _values(awaiting, current, "")
    elif current.startswith("-") and not only_places:
        option = _option(parser, name) if equals else None
        if option is not None:
            yield from _values(option, value, name + equals)
        elif not equals:
            yield from _options(parser, root, current)
    elif places:
        yield from _values(places[0], current, "")
    elif only_places and parser.takes_command:
        yield FILES + "\t"


def _places(parser: argparse.ArgumentParser) -> List[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _option(parser: argparse.ArgumentParser, word: str) -> Optional[argparse.Action]:
    return parser._option_string_actions.get(word.partition("=")[0])


def _wants_value(option: argparse.Action) -> bool:
    return option.nargs is None


def _options(parser: Parser, root: Parser, current: str) -> Iterator[str]:
    """Yield the options that begin so, in long form; the program's own help explains those of every command."""
    for action in parser._actions:
        explained = action
        if action.help == argparse.SUPPRESS:
            explained = _option(root, action.option_strings[-1]) or action
        for name in action.option_strings:
            if name.startswith(current) and (name.startswith("--") or name == current):
                yield _line(name, explained.help)


def _values(action: argparse.Action, current: str, prefix: str) -> Iterator[str]:
    """Yield what the argument may be; ``prefix`` is the part of the word before ``current``."""
    if isinstance(action, argparse._SubParsersAction):
        explained: Dict[str, Optional[str]] = {pseudo.dest: pseudo.help for pseudo in action._choices_actions}
        choices: Sequence[Tuple[str, Optional[str]]] = [
            (name, explained.get(name)) for name in action.choices
        ]
    else:
        choices = [(str(choice), None) for choice in action.choices or ()]
    for name, help in choices:
        if name.startswith(current):
            yield _line(prefix + name, help)
    if action.metavar in _FILE:
        yield "{}\t{}".format(FILES, prefix)
    elif action.metavar == _FILE_AFTER_AT and current.startswith("@"):
        yield "{}\t{}@".format(FILES, prefix)


def _line(word: str, help: Optional[str]) -> str:
    return "{}\t{}".format(word, " ".join(help.split())) if help else word
