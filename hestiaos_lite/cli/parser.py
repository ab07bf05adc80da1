"""The parser, made of argparse alone: one table of commands, and the options that all of them take.

To add a command, add a line to `COMMANDS` (and its module to `_modules`) and give the module a function that declares the
arguments and says what runs: ``parser.set_defaults(execute=function)``. It is called as ``execute(args, output)`` and returns
the exit code. A command that asks no service sets ``parser.takes = OUTPUT_OPTIONS``, so that its help names no other option.
Hints for a mistake that many make are set beside ``execute``: ``if_more_words`` (than it takes) and ``if_not_found``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from typing import Any, Callable, Iterable, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple

from .._version import __version__

PROGRAM = "hestiaos-lite"
Arguments = argparse.Namespace


class Command(NamedTuple):
    """One row of the table: the name, where its arguments are declared (``module:function``), and a line of help."""

    name: str
    declared_by: str
    help: str


COMMANDS: Sequence[Command] = (
    Command("run", "run:declare_run", "run one input through governance (- reads standard input)"),
    Command("chat", "run:declare_chat", "send one chat message"),
    Command("agent", "run:declare_agent", "give a task to an agent"),
    Command("health", "health:declare", "ask for the service's health; --nagios for a monitoring check"),
    Command("trace", "look:declare_trace", "show what governance decided for one run"),
    Command("explain", "look:declare_explain", "ask what governance would decide; nothing is executed"),
    Command("guard", "guard:declare", "run a command once governance says that it may"),
    Command("stability", "look:declare_stability", "show the stability of governance"),
    Command("status", "look:declare_status", "show the service's status"),
    Command("config", "look:declare_config", "show the service's configuration"),
    Command("metrics", "look:declare_metrics", "show the service's metrics"),
    Command("secret", "secret:declare", "get, set or delete a secret of the service"),
    Command(
        "hitl", "hitl:declare", "approve, reject or conclude an action exactly once, or look at it (AEGIS)"
    ),
    Command("outbox", "outbox:declare", "list, send, move or drop what an outbox holds"),
    Command("batch", "batch:declare", "send a file of inputs, each once; resumable"),
    Command("sandbox", "sandbox:declare", "serve HestiaOS and AEGIS on this machine, for trying and testing"),
    Command("demo", "demo:declare", "see every call against a sandbox of its own"),
    Command("doctor", "doctor:declare", "check settings, network and service, with a cure for each finding"),
    Command("completion", "completion:declare", "print the completion script of a shell"),
    Command("help", "help:declare", "explain a command, the environment variables or the exit codes"),
)


def _modules() -> None:
    """Name the modules of the table for the tools that look for imports, such as PyInstaller; it is never called."""
    from . import batch, completion, demo, doctor, guard, health, help  # noqa: F401, I001
    from . import hitl, look, outbox, run, sandbox, secret  # noqa: F401


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
guard ends with its command's own code; its codes 125, 126 and 127 are explained by: hestiaos-lite help guard
"""

_EPILOG = (
    """\
results go to standard output, everything else to standard error; with --json the result is one JSON document
(of a stream: one object a line), and an error one JSON object on standard error

"""
    + EXIT_CODES
    + """
more: hestiaos-lite help COMMAND, help environment, help exit-codes
"""
)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Finds the width itself: argparse would import shutil for it, at a fifth of what ``--version`` costs."""

    def __init__(self, prog: str, **options: Any) -> None:
        try:
            columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size().columns
        except (OSError, ValueError):
            columns = 0  # no terminal
        options["width"] = min(columns or 100, 120) - 2
        super().__init__(prog, **options)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that complains in one line.

    One that is given ``declare`` is empty until it is first used: twenty commands cost their names, and one its arguments.
    """

    takes_command = False  # what follows ``--`` is a command, which is left as it is

    def __init__(self, *, declare: Optional[Callable[[Parser], None]] = None, **options: Any) -> None:
        self.takes: Iterable[str] = _SHORT  # of the options of every command, those that its help names
        self._declare = declare
        # Before 3.8 allow_abbrev=False also forbids -vv and -jq (https://bugs.python.org/issue26967).
        options.setdefault("allow_abbrev", sys.version_info < (3, 8))
        options.setdefault("formatter_class", _Formatter)
        self._options = options
        if declare is None:
            super().__init__(**options)

    def declare(self) -> None:
        """Learn the arguments, if that was put off."""
        declare, self._declare = self._declare, None
        if declare is not None:
            super().__init__(**self._options)
            declare(self)
            add_global_options(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; argparse calls this on the parser of the chosen command too."""
        self.declare()
        if not self.takes_command:
            return super().parse_known_args(args, namespace)
        options, command = _parted(args)
        if not command and not (options and set(options) <= {"-h", "--help"}):
            self.error("no command: it goes after --, as in guard -- COMMAND")
        namespace, unknown = super().parse_known_args(options, namespace)
        if unknown:
            self.error("unrecognized arguments: {}".format(" ".join(unknown)))
        namespace.argv = command
        return namespace, []

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help to standard output, where a failure counts (argparse hides it), or an error to standard error."""
        file = file or sys.stderr
        if message and file is not None:
            # of standard error there is nobody left to tell
            with contextlib.suppress(*() if file is sys.stdout else (OSError,)):
                file.write(message)

    def error(self, message: str) -> NoReturn:
        """End with 2; one line, the same on every Python."""
        from .._redact import harmless  # here: help does without it

        self.exit(2, "{}: error: {} (see {} --help)\n".format(PROGRAM, harmless(message), self.prog))


def parse(argv: Sequence[str]) -> Arguments:
    """Parse the arguments; raises SystemExit for ``--help``, ``--version`` and what cannot be parsed."""
    parser = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        if args.if_more_words and not any(word.startswith("-") for word in unknown):
            parser.error("too many arguments: " + args.if_more_words)  # not quoted: one may be a secret
        parser.error("unrecognized arguments: " + " ".join(unknown))
    return args  # type: ignore[no-any-return]


def build_parser() -> Parser:
    """Build the parser; a command's own arguments are declared when it is chosen."""
    parser = Parser(
        prog=PROGRAM,
        description="The synchronous client for HestiaOS and AEGIS that a cron job can trust.",
        epilog=_EPILOG,
    )
    _add_options(parser)
    parser.set_defaults(
        base_url=None,
        api_key=None,
        api_key_file=None,
        json=False,
        get=None,
        timeout=None,
        retries=None,
        profile=None,
        quiet=False,
        verbose=0,
        if_more_words="",
        if_not_found="",
    )
    parsers = add_commands(parser)
    for command in COMMANDS:
        parsers.add_parser(
            command.name, help=command.help, description=command.help, declare=_declared_by(command)
        )
    return parser


def _parted(argv: Sequence[str]) -> Tuple[Sequence[str], Sequence[str]]:
    """Part the arguments at the first ``--``: those before it, and those after it."""
    cut = argv.index("--") if "--" in argv else len(argv)
    return argv[:cut], argv[cut + 1 :]


def add_commands(parser: argparse.ArgumentParser, dest: str = "command") -> Any:
    """Give a parser commands of its own, one of which must be chosen."""
    commands = parser.add_subparsers(dest=dest, metavar="COMMAND", title="commands", parser_class=Parser)
    commands.required = True  # 3.6 had no such argument; 3.7 has, but prints it without the metavar
    return commands


_SHORT = {
    "base_url": "-u URL",
    "api_key": "-k KEY",
    "api_key_file": "--api-key-file FILE",
    "json": "-j",
    "get": "--get FIELD",
    "timeout": "--timeout SECONDS",
    "retries": "--retries N",
    "profile": "--profile NAME",
    "quiet": "-q",
    "verbose": "-v",
}
OUTPUT_OPTIONS = ("json", "get", "quiet", "verbose")  # what a command takes that asks no service


def add_global_options(command: Parser) -> None:
    """Let a command accept the options of every command after its name too, and name those that it takes in its help."""
    _add_options(command, explain=False)
    named = "options of every command (hestiaos-lite --help explains them):\n  {}\n".format(
        ", ".join(short for name, short in _SHORT.items() if name in command.takes)
    )
    command.epilog = "{}\n\n{}".format(command.epilog.rstrip("\n"), named) if command.epilog else named


def find_command(parser: Parser, words: Sequence[str]) -> Parser:
    """Return the parser of the command that the words name; a usage error where there is none."""
    for word in words:
        parser.declare()
        known = commands_of(parser)
        if word not in known:
            parser.error("there is no command {!r}; choose from {}".format(word, ", ".join(known) or "none"))
        parser = known[word]
    parser.declare()
    return parser


def commands_of(parser: Parser) -> Mapping[str, Parser]:
    """Return the parsers of a parser's own commands by name."""
    # argparse has no public way to them
    of_commands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return of_commands[0].choices if of_commands else {}


def _add_options(parser: argparse.ArgumentParser, *, explain: bool = True) -> None:
    """Add the options that are accepted before and after the command.

    Without a default, so that a command's parser does not overwrite what stood before the command.
    """
    group = parser.add_argument_group("options of every command")

    def add(*names: str, help: str, **options: Any) -> None:
        group.add_argument(
            *names, default=argparse.SUPPRESS, help=help if explain else argparse.SUPPRESS, **options
        )

    help = "URL of the service (default HESTIAOS_BASE_URL; hitl, outbox: AEGIS_BASE_URL)"
    add("-u", "--base-url", metavar="URL", help=help)
    help = "API key; others see it in ps, so better HESTIAOS_API_KEY (AEGIS_API_KEY) or a file"
    add("-k", "--api-key", metavar="KEY", help=help)
    add("--api-key-file", metavar="FILE", help="file to read the API key from")
    add("-j", "--json", action="store_true", help="print JSON")
    help = "print one field of the result and nothing else, such as trace_id or data.id; exit 76 where it is missing"
    add("--get", metavar="FIELD", help=help)
    help = "total deadline of a call (default 30; hitl, outbox: 10), or of a stream (default none)"
    add("--timeout", type=seconds, metavar="SECONDS", help=help)
    add("--retries", type=count, metavar="N", help="extra attempts where one is safe (default 3)")
    add("--profile", metavar="NAME", help="section of the configuration file")
    add("-q", "--quiet", action="store_true", help="no notices and warnings; errors are always shown")
    add(
        "-v",
        "--verbose",
        action="count",
        help="log retries (-v), and the heads of every request and answer (-vv)",
    )
    version = "{} {}".format(PROGRAM, __version__)
    add("--version", action="version", version=version, help="show the version and exit")


def seconds(text: str) -> float:
    """Read a number of seconds above 0; zero and infinity would let a call hang."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e8:
        raise argparse.ArgumentTypeError("must be a number of seconds above 0, not {!r}".format(text))
    return value


def count(text: str) -> int:
    """Read a whole number, 0 or more."""
    if not (text.isdigit() and text.isascii()) or len(text) > 18:
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more, not {!r}".format(text))
    return int(text)


def _declared_by(command: Command) -> Callable[[Parser], None]:
    def declare(parser: Parser) -> None:
        module, _, function = command.declared_by.partition(":")
        getattr(importlib.import_module("." + module, __package__), function)(parser)

    return declare
