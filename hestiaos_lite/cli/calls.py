"""The commands that make one call of HestiaOS: run, chat, agent; secret get, set, delete; health; and those that only read.

A secret's value is never an argument, where other users would see it in ps.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from .._redact import one_line
from .._stdio import read_stdin
from ..errors import ConnectionFailed, HestiaError, InvalidInput, RequestTimeout, ServerError
from .connect import json_object, open_client, text_or_stdin
from .exits import DONE, REFUSED
from .output import Output
from .parser import Arguments, Parser, count, report_usage_error, seconds

if TYPE_CHECKING:
    from ..client import Client
    from ..models.event import StreamEvent

    Call = Callable[[Client, Arguments], Mapping[str, Any]]

_IN_QUOTES = "put text of several words in quotes"


# -- what only reads


def _read(call: Call, *arguments: Tuple[str, str, str]) -> Callable[[Parser], None]:
    """Return the function that declares a command: its arguments (name, metavar, help), and the call that it shows."""

    def execute(args: Arguments, output: Output) -> int:
        with open_client(args) as client:
            output.fields(call(client, args))
        return DONE

    def declare(parser: Parser) -> None:
        for name, metavar, help in arguments:
            parser.add_argument(name, metavar=metavar, help=help)
        parser.set_defaults(execute=execute)

    return declare


declare_trace = _read(
    lambda client, args: client.trace(args.trace_id).to_dict(), ("trace_id", "ID", "the trace id of a run")
)
declare_explain = _read(
    lambda client, args: client.governance.explain(args.command_type, json_object(args.input, "--input")),
    ("command_type", "TYPE", "the type of command, such as shell"),
    ("--input", "JSON", "the command: a JSON object, @FILE, or - for standard input"),
)
declare_stability = _read(lambda client, args: client.governance.status())
declare_status = _read(lambda client, args: client.system.status().to_dict())
declare_config = _read(lambda client, args: client.system.config())
declare_metrics = _read(lambda client, args: client.system.metrics().metrics)


# -- what is done under governance


def declare_run(parser: Parser) -> None:
    parser.add_argument("input", metavar="TEXT", help="the input; - reads it from standard input")
    parser.add_argument("--stream", action="store_true", help="print the tokens as they come")
    parser.add_argument("--session-id", metavar="ID", help="the session the run belongs to")
    parser.add_argument("--agent-id", metavar="ID", help="the agent that runs it")
    parser.add_argument("--mode-hint", metavar="MODE", help="the mode asked for")
    help = "milliseconds that the service may take (default 30000, but no more than --timeout)"
    parser.add_argument("--timeout-ms", type=count, metavar="MS", help=help)
    parser.set_defaults(execute=_run, if_more_words=_IN_QUOTES)


def declare_chat(parser: Parser) -> None:
    parser.add_argument("message", metavar="MESSAGE", help="the message; - reads it from standard input")
    parser.add_argument("--session-id", metavar="ID", help="the conversation to continue")
    parser.set_defaults(execute=_chat, if_more_words=_IN_QUOTES)


def declare_agent(parser: Parser) -> None:
    parser.add_argument("agent_id", metavar="ID", help="the agent")
    parser.add_argument("task", metavar="TASK", help="the task; - reads it from standard input")
    parser.add_argument("--config", metavar="JSON", help="the agent's configuration: a JSON object, or @FILE")
    parser.set_defaults(execute=_agent, if_more_words=_IN_QUOTES)


def _run(args: Arguments, output: Output) -> int:
    text = text_or_stdin(args.input, "the input")
    with open_client(args) as client:
        options = {
            name: getattr(args, name) for name in ("session_id", "agent_id", "mode_hint", "timeout_ms")
        }
        if args.timeout_ms is None:
            # no more time for the service than the caller has, unless told to: else the deadline would follow it
            options["timeout_ms"] = min(30000, int(client.timeout * 1000) or 1)
        if args.stream:
            return _stream(client, text, options, args.timeout, output)
        response = client.run(text, **options)
    return _show(output, "run", response, response.text, mode=response.mode)


def _chat(args: Arguments, output: Output) -> int:
    message = text_or_stdin(args.message, "the message")
    with open_client(args) as client:
        response = client.chat.run(message, session_id=args.session_id)
    return _show(output, "chat", response, response.result, session_id=response.session_id)


def _agent(args: Arguments, output: Output) -> int:
    config = json_object(args.config, "--config")
    task = text_or_stdin(args.task, "the task")
    with open_client(args) as client:
        result = client.agents.run(args.agent_id, task, config=config)
    return _show(output, "agent", result, result.result, status=result.status)


def _show(output: Output, call: str, answer: Any, text: Optional[str], **facts: Optional[str]) -> int:
    """Print an answer as the document that it is, or its text and the facts that may be needed next; return the exit code."""
    whole = answer.to_dict()
    if output.json:
        output.document(whole)
    else:
        if text is not None:
            output.text(text)
        _notice(output, trace_id=answer.trace_id, **facts)
    return _exit_code(output, call, whole)


def _notice(output: Output, **facts: Optional[str]) -> None:
    known = ["{} {}".format(name.replace("_", " "), value) for name, value in facts.items() if value]
    if known:
        output.notice(", ".join(known))


def _exit_code(output: Output, call: str, answer: Mapping[str, Any]) -> int:
    """Return the exit code of a whole answer, and say where it says no or the work is not done."""
    from ..models import objection

    error = objection(call, answer)
    if error is None:
        return DONE
    output.complain("{} (trace id {})".format(error.message, error.trace_id or "unknown"))
    return error.exit_code


def _stream(
    client: Client, text: str, options: Mapping[str, Any], timeout_seconds: Optional[float], output: Output
) -> int:
    """Print a stream as it comes. ``--timeout`` bounds the whole of it; without, only silence is bounded."""
    last: Dict[str, StreamEvent] = {}  # of each type
    has_text = False
    with client.run_stream(text, timeout=timeout_seconds, **options) as stream:
        for event in stream:
            last[event.type] = event
            if output.json:
                output.document(event.to_dict(), on_one_line=True)
            elif event.text:
                output.piece(event.text)
                has_text = True
            elif event.type == "tool_call":
                output.notice("tool call: {}".format(event.data.get("name", event.data.get("tool", "?"))))
            elif event.type == "final" and not has_text:
                output.piece(_final_text(event.data))
        output.end_line()
        if not output.json:
            _notice(output, trace_id=stream.trace_id)
    if "error" in last:
        failed = last["error"]
        reasons = filter(None, map(failed.data.get, ("message", "error", "reason", "code")))
        fault = "the stream ended in an error: {} (trace id {})"
        output.complain(fault.format(next(reasons, "it gives no reason"), failed.trace_id or "unknown"))
        return REFUSED
    # what the start said holds where the final event is silent about it, or there is none
    answer: Dict[str, Any] = {}
    for kind in ("start", "final"):
        answer.update(last[kind].data if kind in last else {})
    return _exit_code(output, "run", dict(answer, trace_id=stream.trace_id))


def _final_text(data: Mapping[str, Any]) -> str:
    """Return the whole text that a final event holds, for a service that sent no tokens before."""
    texts = [data.get(name) for name in ("output", "text", "content", "result")]
    return next((text for text in texts if isinstance(text, str)), "")


# -- secrets


def _secret(parser: Parser, call: Call) -> None:
    """Declare a command that says of one key what the call returns."""

    def execute(args: Arguments, output: Output) -> int:
        with open_client(args) as client:
            facts = call(client, args)
        text = facts["value"] + "\n" if "value" in facts else None
        output.result(dict({"key": args.key}, **facts), text=text, notice="{} {}".format(*facts, args.key))
        return DONE

    parser.add_argument("key", metavar="KEY", help="the secret's name")
    parser.set_defaults(execute=execute)


def declare_get(parser: Parser) -> None:
    _secret(parser, lambda client, args: {"value": client.secrets.get(args.key)})


def declare_set(parser: Parser) -> None:

    def store(client: Client, args: Arguments) -> Mapping[str, Any]:
        client.secrets.set(args.key, _read_value(), provider=args.provider)
        return {"stored": True}

    _secret(parser, store)
    help = "where it belongs (default custom)"
    parser.add_argument("--provider", metavar="NAME", default="custom", help=help)
    parser.set_defaults(if_more_words="the value is read from standard input: secret set KEY < FILE")


def declare_delete(parser: Parser) -> None:

    def delete(client: Client, args: Arguments) -> Mapping[str, Any]:
        client.secrets.delete(args.key)
        return {"deleted": True}

    _secret(parser, delete)


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


# -- health, for people and, with --nagios, for a monitoring system

_OK, _WARNING, _CRITICAL, _UNKNOWN = range(4)  # the exit codes of the Monitoring Plugins guidelines
_NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_LONGEST_UPTIME_SECONDS = 1e12  # more is no uptime, but NaN, infinity or a number that no float holds
_STATES = {
    **dict.fromkeys(("ok", "healthy"), _OK),
    **dict.fromkeys(("degraded", "warning"), _WARNING),
    **dict.fromkeys(("error", "critical", "unhealthy", "down", "failed"), _CRITICAL),
}


def declare_health(parser: Parser) -> None:
    help = "one status line with performance data; exit 0 ok, 1 warning, 2 critical or unreachable, 3 unknown"
    parser.add_argument("--nagios", action="store_true", help=help)
    for level in ("warning", "critical"):
        help = "with --nagios: an answer as slow as this is {}".format(level)
        parser.add_argument("--" + level, type=seconds, metavar="SECONDS", help=help)
    parser.on_usage_error = _health_usage_error
    parser.set_defaults(execute=_health)


def _health_usage_error(message: str, argv: Sequence[str], output: Output) -> int:
    """Report a usage error; to a monitoring system in one line of its own, as a check that could not look."""
    if "--nagios" in argv:
        output.text("HESTIAOS UNKNOWN - {}".format(_plain(message)))
        return _UNKNOWN
    return report_usage_error(message, argv, output)


def _health(args: Arguments, output: Output) -> int:
    if args.nagios:
        return _nagios(args, output)
    if args.warning or args.critical:
        raise InvalidInput("--warning and --critical need --nagios")
    with open_client(args) as client:
        health = client.health()
    output.fields(health.to_dict())
    if not health.ok:
        output.complain("the service reports its status as {}".format(health.status))
        return REFUSED
    return DONE


def _nagios(args: Arguments, output: Output) -> int:
    data = ""
    started = time.monotonic()
    try:
        with open_client(args) as client:
            started = time.monotonic()
            health = client.health()
    except Exception as error:  # noqa: BLE001 - whatever keeps the check from looking says nothing about health
        took_seconds = time.monotonic() - started
        is_down = isinstance(error, (ConnectionFailed, RequestTimeout, ServerError))
        state = _CRITICAL if is_down else _UNKNOWN
        text = str(error) if isinstance(error, HestiaError) else repr(error)
    else:
        took_seconds = time.monotonic() - started
        state, text = _STATES.get(health.status.lower(), _UNKNOWN), "status {}".format(health.status)
        if health.version:
            text += ", version {}".format(health.version)
        for limit, worse in ((args.critical, _CRITICAL), (args.warning, _WARNING)):
            if limit is not None and took_seconds >= limit and state < worse:
                text += ", answered in {:.3f} s (limit {:g} s)".format(took_seconds, limit)
                state = worse
        if health.uptime_seconds is not None and 0 <= health.uptime_seconds < _LONGEST_UPTIME_SECONDS:
            data = " uptime={:.0f}s;;;0".format(health.uptime_seconds)
    limits = ["" if limit is None else "{:g}".format(limit) for limit in (args.warning, args.critical)]
    data = "time={:.3f}s;{};{};0".format(took_seconds, *limits) + data
    output.text("HESTIAOS {} - {} | {}".format(_NAMES[state], _plain(text), data))
    return state


def _plain(text: str) -> str:
    """Return the text as it may be before the performance data."""
    return one_line(text.replace("|", "/"), limit=1000)
