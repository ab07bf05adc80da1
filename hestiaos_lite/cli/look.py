"""The commands that only look: trace, explain, stability, status, config, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping

from .exits import DONE
from .output import Output
from .parser import Arguments, Parser

if TYPE_CHECKING:
    from ..client import Client


def declare_trace(parser: Parser) -> None:
    """Declare ``trace``."""
    parser.add_argument("trace_id", metavar="ID", help="the trace id of a run")
    _look(parser, lambda client, args: client.trace(args.trace_id).to_dict())


def declare_explain(parser: Parser) -> None:
    """Declare ``explain``."""
    parser.add_argument("command_type", metavar="TYPE", help="the type of command, such as shell")
    parser.add_argument(
        "--input", metavar="JSON", help="the command: a JSON object, @FILE, or - for standard input"
    )

    def explain(client: Client, args: Arguments) -> Mapping[str, Any]:
        from .arguments import json_object

        return client.governance.explain(args.command_type, json_object(args.input, "--input"))

    _look(parser, explain)


def declare_stability(parser: Parser) -> None:
    """Declare ``stability``."""
    _look(parser, lambda client, args: client.governance.status())


def declare_status(parser: Parser) -> None:
    """Declare ``status``."""
    _look(parser, lambda client, args: client.system.status().to_dict())


def declare_config(parser: Parser) -> None:
    """Declare ``config``."""
    _look(parser, lambda client, args: client.system.config())


def declare_metrics(parser: Parser) -> None:
    """Declare ``metrics``."""
    _look(parser, lambda client, args: client.system.metrics().metrics)


def _look(parser: Parser, ask: Callable[[Client, Arguments], Mapping[str, Any]]) -> None:
    """Let the command show what one call returns."""

    def execute(args: Arguments, output: Output) -> int:
        from .connect import open_client

        with open_client(args, output) as client:
            output.fields(ask(client, args))
        return DONE

    parser.set_defaults(execute=execute)
