"""From words to arguments: find the command's name, then build the one ArgumentParser that is needed.

The options of every command are few and known, so the name is found without a parser; the words that stood before it are
given to the command's parser with the others. Only what argparse promises in public is used.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Callable, Iterable, List, Mapping, NoReturn, Sequence, Tuple

from .._version import __version__
from .commands import COMMANDS, commands_of

if TYPE_CHECKING:
    from .output import Output

PROGRAM = "hestiaos-lite"
Arguments = argparse.Namespace

EXIT_CODES = """\
exit codes                                             run it again?
  0  done
  1  the service said no, or is unhealthy              no
  2  usage, invalid input                              no
  3  sent, and the outcome is unknown                  look first; under an idempotency key: yes
 65  bad input data                                    no
 69  service unavailable, nothing was done             yes
 70  a bug of this program                             no: report it
 74  a result or a file could not be written           look first
 75  try again later, nothing was done                 yes
 76  the service broke the contract                    look first
 77  authentication or permission                      no
 78  configuration                                     no
130  interrupted (Ctrl-C); 143 terminated              look first
141  the reader of standard output went away           look first
guard ends with its command's own code; its codes 75, 125, 126 and 127 are explained by: hestiaos-lite help guard
"""
_DESCRIPTION = "The synchronous client for HestiaOS and AEGIS that a cron job can trust."
_EPILOG = """\
results go to standard output, everything else to standard error; with --json the result is one JSON document
(of a stream: one object per line), and an error one JSON object on standard error

{}
more: hestiaos-lite help COMMAND, help environment, help exit-codes
""".format(EXIT_CODES)
_EXAMPLES: Tuple[str, ...] = ("demo", 'run "create a weekly report" --base-url https://hestia.example')


class Answered(Exception):
    """``--help`` or ``--version`` was asked for; the message is the answer."""


class UsageError(Exception):
    """The words cannot be understood; the message says why, in the words of argparse where it found out."""

    def __init__(self, message: str, parser: Parser) -> None:
        super().__init__(message)
        self.parser = parser


class _Answer(argparse.Action):
    """Answers at once with ``const``, or with the help of the parser."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        raise Answered(self.const or parser.format_help())


def text(value: str) -> str:
    """Read the value of an option; an empty one is a variable that a script forgot to set."""
    if not value:
        raise argparse.ArgumentTypeError("must not be empty")
    return value


def seconds(value: str) -> float:
    """Read a number of seconds above 0; zero and infinity would let a call hang."""
    return number(value, 1e8 - 1, "a number of seconds above 0")


def number(value: str, most: float, what: str) -> float:
    """Read a number above 0 and at most ``most``, or say that it must be ``what``."""
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if not 0 < found <= most:
        raise argparse.ArgumentTypeError("must be {}, not {!r}".format(what, value))
    return found


def count(value: str) -> int:
    """Read a whole number, 0 or more."""
    if not (value.isdigit() and value.isascii()) or len(value) > 18:
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more, not {!r}".format(value))
    return int(value)


# fmt: off
# The options that are accepted before and after every command's name: by what argparse stores each as, its names, its help, and
# what add_argument is given besides.
OPTIONS: Mapping[str, Tuple[str, str, Mapping[str, Any]]] = {
    "base_url": ("-u --base-url", "URL of the service (default HESTIAOS_BASE_URL; hitl, outbox: AEGIS_BASE_URL)",
                 {"metavar": "URL", "type": text}),
    "api_key": ("-k --api-key", "API key; others see it in ps, so better HESTIAOS_API_KEY (AEGIS_API_KEY) or a file",
                {"metavar": "KEY", "type": text}),
    "api_key_file": ("--api-key-file", "file to read the API key from", {"metavar": "FILE", "type": text}),
    "json": ("-j --json", "print JSON", {"action": "store_true"}),
    "get": ("--get", "print only one field of the result, such as trace_id or data.id; exit 76 where it is missing",
            {"metavar": "FIELD", "type": text}),
    "timeout": ("--timeout", "total deadline of a call (default 30; hitl, outbox: 10), or of a stream (default none)",
                {"metavar": "SECONDS", "type": seconds}),
    "retries": ("--retries", "extra attempts, made only where safe (default 3)", {"metavar": "N", "type": count}),
    "profile": ("--profile", "section of the configuration file", {"metavar": "NAME", "type": text}),
    "quiet": ("-q --quiet", "no notices or warnings; errors are always shown", {"action": "store_true"}),
    "verbose": ("-v --verbose", "log retries (-v), and the heads of every request and answer (-vv)",
                {"action": "count", "default": 0}),
    "version": ("--version", "show the version and exit",
                {"action": _Answer, "nargs": 0, "const": "{} {}".format(PROGRAM, __version__)}),
}
# fmt: on
OUTPUT_OPTIONS = ("json", "get", "quiet", "verbose")  # what a command takes that asks no service
_ANSWERED = ("-h", "--help", "--version")
_WORDS = dict.fromkeys(_ANSWERED, 1)  # each of their names, and how many words it takes
_WORDS.update(
    (name, 1 + ("metavar" in kind)) for names, _, kind in OPTIONS.values() for name in names.split()
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that knows its own arguments, and prints nothing: it raises `Answered` and `UsageError`.

    A command's function of `commands.COMMANDS` may set `takes` (of the options of every command, those that its help
    names), `takes_command`, `on_usage_error`, and as defaults beside ``execute`` hints for a mistake that many make:
    ``if_more_words`` (than it takes) and ``if_not_found``.
    """

    def __init__(self, **options: Any) -> None:
        self.arguments: List[argparse.Action] = []
        self.takes: Iterable[str] = [name for name in OPTIONS if name != "version"]
        self.takes_command = False  # what follows ``--`` is a command, which is left as it is
        self.on_usage_error: Callable[[str, Sequence[str], Output], int] = report_usage_error
        if sys.version_info >= (3, 14):
            options["color"] = False  # the same on every Python, and harmless for `Output`
        # Before 3.8 allow_abbrev=False also forbids -vv and -jq (https://bugs.python.org/issue26967).
        super().__init__(
            add_help=False, allow_abbrev=sys.version_info < (3, 8), formatter_class=_formatter(), **options
        )
        self.set_defaults(if_more_words="", if_not_found="")
        help = "show this help and exit"
        self.add_argument("-h", "--help", action=_Answer, nargs=0, default=argparse.SUPPRESS, help=help)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument; an option that takes any text refuses the empty one."""
        if names[0].startswith("-") and options.get("action", "append") == "append":
            options.setdefault("type", text)
        action = super().add_argument(*names, **options)
        self.arguments.append(action)
        return action

    def add_options(self, *, explain: bool) -> None:
        """Add the options of every command, to be explained in the help or only named there."""
        group = self.add_argument_group("options of every command, before or after its name")
        for dest, (names, help, kind) in OPTIONS.items():
            shown = help if explain else argparse.SUPPRESS
            self.arguments.append(group.add_argument(*names.split(), dest=dest, help=shown, **kind))

    @property
    def taken(self) -> List[str]:
        """The options of every command that mean something here, in short form."""
        taken = [OPTIONS[dest] for dest in OPTIONS if dest in self.takes]
        return [" ".join([names.split()[0], kind.get("metavar", "")]).strip() for names, _, kind in taken]

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, where argparse would print and exit."""
        raise UsageError(message, self)


def report_usage_error(message: str, argv: Sequence[str], output: Output, exit_code: int = 2) -> int:
    """Report a usage error, as JSON where that is asked for, and return the exit code."""
    options, _ = _parted(list(argv))
    json = any(one == "--json" or one[:1] == "-" and {"j"} <= set(one[1:]) <= set("jqv") for one in options)
    output.configure(json=json, quiet=False)
    if output.json:
        from ..errors import InvalidInput  # here: help does without it

        output.report(InvalidInput(message), exit_code=exit_code)
    else:
        output.complain(message)
    return exit_code


def _formatter() -> Any:
    """Find the width ourselves: argparse would import shutil for it, at a fifth of what ``--version`` costs."""
    try:
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size().columns
    except (OSError, ValueError):
        columns = 0  # no terminal
    width = min(columns or 100, 120) - 2
    return lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=width)


def parse(argv: Sequence[str]) -> Arguments:
    """Parse the arguments; raises Answered for ``--help`` and ``--version``, and UsageError."""
    name, before, after = find_command(argv)
    parser = build_parser(name)
    given: List[str] = []
    if parser.takes_command:
        after, given = _parted(after)
        if not given and not (after and set(after) <= set(_ANSWERED)):
            parser.error("no command: put it after --, as in guard -- COMMAND")
    args, unknown = parser.parse_known_args(before + after)
    if unknown:
        if args.if_more_words and not any(word.startswith("-") for word in unknown):
            parser.error("too many arguments: " + args.if_more_words)  # not quoted: one may be a secret
        parser.error("unrecognized arguments: " + " ".join(unknown))
    if commands_of(name):
        parser.error("no command; choose from " + _names(name))
    if parser.takes_command:
        args.argv = given
    return args


def find_command(argv: Sequence[str]) -> Tuple[str, List[str], List[str]]:
    """Return the command's name, the options of every command before its end, and what follows.

    ``--help`` and ``--version`` end the search: they are of the program, or of what is found by then.
    """
    name, left = "", list(argv)
    before: List[str] = []
    foreign: List[str] = []
    while left and commands_of(name):
        if left[0] in _ANSWERED:
            return name, left[:1], []
        if left[0].startswith("-") and left[0] != "-":
            words = _words_of(left[0])
            (before if words else foreign).extend(left[: words or 1])
            del left[: words or 1]
        else:
            name = command_in(name, left.pop(0))
    if foreign:
        build_parser(name).error("unrecognized arguments: " + " ".join(foreign))
    return name, before, left


def _words_of(option: str) -> int:
    """Count the words of an option of every command, its value included; 0 where it is none of them."""
    if option.startswith("--"):
        name, equals, _ = option.partition("=")
        words = _WORDS.get(name, 0)
        return min(words, 1) if equals else words
    for end, letter in enumerate(option[1:], 2):  # -qv, -uURL, -qu URL
        words = _WORDS.get("-" + letter, 0)
        if words != 1:
            return min(words, 1) if option[end:] else words
    return 1


def command_in(name: str, word: str) -> str:
    """Return the full name of a command's command; a usage error where there is none."""
    full_name = "{} {}".format(name, word).lstrip()
    if full_name not in COMMANDS:
        choices = _names(name)
        known = "; choose from " + choices if choices else ""
        build_parser(name).error("there is no command {!r}{}".format(full_name, known))
    return full_name


def build_parser(name: str = "") -> Parser:
    """Build the parser of a command, or with ``""`` that of the program."""
    command = COMMANDS.get(name)
    parser = Parser(
        prog="{} {}".format(PROGRAM, name).rstrip(),
        description=_DESCRIPTION if command is None else command.help,
    )
    if command is not None and command.declared_by:
        module, _, function = command.declared_by.partition(":")
        getattr(importlib.import_module("." + module, __package__), function)(parser)
    else:
        parser.usage = "%(prog)s [OPTION]... COMMAND ..."
        rows = ["  {:<19} {}".format(c.word, c.help) for c in commands_of(name)]
        parser.description = "\n".join([str(parser.description), "", "commands:"] + rows)
    parser.add_options(explain=command is None)
    if command is None:
        parts, examples = [_EPILOG], _EXAMPLES
    else:
        named = "options of every command (hestiaos-lite --help explains them):\n  {}\n"
        parts, examples = [parser.epilog or "", named.format(", ".join(parser.taken))], command.examples
    parts.append("examples:\n" + "".join("  {} {}\n".format(PROGRAM, example) for example in examples))
    parser.epilog = "\n".join(filter(None, parts))
    return parser


def _names(name: str) -> str:
    return ", ".join(command.word for command in commands_of(name))


def _parted(words: List[str]) -> Tuple[List[str], List[str]]:
    """Part the words at the first ``--``: those before it, and those after it."""
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut + 1 :]
