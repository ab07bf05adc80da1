"""The commands that only read: each shows what one call of the client returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping

from .exits import DONE
from .output import Output
from .parser import Arguments, Parser

if TYPE_CHECKING:
    from ..client import Client

    Call = Callable[[Client, Arguments], Mapping[str, Any]]


def _read(call: Call, *arguments: Mapping[str, str]) -> Callable[[Parser], None]:
    """Return the function that declares a command: its arguments, and the call whose result it shows."""

    def execute(args: Arguments, output: Output) -> int:
        from .connect import open_client

        with open_client(args) as client:
            output.fields(call(client, args))
        return DONE

    def declare(parser: Parser) -> None:
        for argument in arguments:
            parser.add_argument(argument["name"], metavar=argument["metavar"], help=argument["help"])
        parser.set_defaults(execute=execute)

    return declare


def _explain(client: Client, args: Arguments) -> Mapping[str, Any]:
    from .arguments import json_object

    return client.governance.explain(args.command_type, json_object(args.input, "--input"))


_TRACE_ID = {"name": "trace_id", "metavar": "ID", "help": "the trace id of a run"}
_TYPE = {"name": "command_type", "metavar": "TYPE", "help": "the type of command, such as shell"}
_INPUT = {
    "name": "--input",
    "metavar": "JSON",
    "help": "the command: a JSON object, @FILE, or - for standard input",
}

declare_trace = _read(lambda client, args: client.trace(args.trace_id).to_dict(), _TRACE_ID)
declare_explain = _read(_explain, _TYPE, _INPUT)
declare_stability = _read(lambda client, args: client.governance.status())
declare_status = _read(lambda client, args: client.system.status().to_dict())
declare_config = _read(lambda client, args: client.system.config())
declare_metrics = _read(lambda client, args: client.system.metrics().metrics)
