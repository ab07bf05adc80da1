"""secret get, set, delete. A value is never an argument, where other users would see it in ps."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable, Mapping

from .._stdio import read_stdin
from ..errors import InvalidInput
from .exits import DONE
from .output import Output
from .parser import Arguments, Parser

if TYPE_CHECKING:
    from ..client import Client


def declare_get(parser: Parser) -> None:
    """Declare ``secret get``."""
    _declare(parser, lambda client, args: {"value": client.secrets.get(args.key)})


def declare_set(parser: Parser) -> None:
    """Declare ``secret set``."""
    _declare(parser, _set)
    help = "where it belongs (default custom)"
    parser.add_argument("--provider", metavar="NAME", default="custom", help=help)
    parser.set_defaults(if_more_words="the value is read from standard input: secret set KEY < FILE")


def declare_delete(parser: Parser) -> None:
    """Declare ``secret delete``."""
    _declare(parser, _delete)


def _declare(parser: Parser, call: Callable[[Client, Arguments], Mapping[str, Any]]) -> None:
    """Declare a command that says of one key what the call returns."""

    def execute(args: Arguments, output: Output) -> int:
        from .connect import open_client

        with open_client(args) as client:
            facts = call(client, args)
        if output.json:
            output.document(dict({"key": args.key}, **facts))
        elif "value" in facts:
            output.text(facts["value"] + "\n")
        else:
            output.notice("{} {}".format(*facts, args.key))
        return DONE

    parser.add_argument("key", metavar="KEY", help="the secret's name")
    parser.set_defaults(execute=execute)


def _set(client: Client, args: Arguments) -> Mapping[str, Any]:
    client.secrets.set(args.key, _read_value(), provider=args.provider)
    return {"stored": True}


def _delete(client: Client, args: Arguments) -> Mapping[str, Any]:
    client.secrets.delete(args.key)
    return {"deleted": True}


def _read_value() -> str:
    """Read the value from a prompt, or from standard input without the one line break at its end."""
    if sys.stdin is not None and sys.stdin.isatty():
        from getpass import getpass

        try:
            value = getpass("value (not shown): ")
        except EOFError:  # Ctrl-D
            raise InvalidInput("no value was given") from None
    else:
        try:
            value = b"".join(read_stdin()).decode("utf-8")
        except UnicodeDecodeError:
            # without its cause, which would quote the value
            raise InvalidInput("the value on standard input is not UTF-8") from None
        if value.endswith("\n"):
            value = value[:-2] if value.endswith("\r\n") else value[:-1]
    if not value:
        raise InvalidInput("the value on standard input is empty")
    return value
