"""The commands that make the service do something under governance: run, chat, agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional

from .exits import DONE, REFUSED
from .output import Output
from .parser import Arguments, Parser, count

if TYPE_CHECKING:
    from ..client import Client
    from ..models.event import StreamEvent


_IN_QUOTES = "put text of several words in quotes"


def declare_run(parser: Parser) -> None:
    """Declare ``run``."""
    parser.add_argument("input", metavar="TEXT", help="the input; - reads it from standard input")
    parser.add_argument("--stream", action="store_true", help="print the tokens as they come")
    parser.add_argument("--session-id", metavar="ID", help="the session the run belongs to")
    parser.add_argument("--agent-id", metavar="ID", help="the agent that runs it")
    parser.add_argument("--mode-hint", metavar="MODE", help="the mode asked for")
    help = "milliseconds that the service may take (default 30000, but no more than --timeout)"
    parser.add_argument("--timeout-ms", type=count, metavar="MS", help=help)
    parser.set_defaults(execute=_run, if_more_words=_IN_QUOTES)


def declare_chat(parser: Parser) -> None:
    """Declare ``chat``."""
    parser.add_argument("message", metavar="MESSAGE", help="the message; - reads it from standard input")
    parser.add_argument("--session-id", metavar="ID", help="the conversation to continue")
    parser.set_defaults(execute=_chat, if_more_words=_IN_QUOTES)


def declare_agent(parser: Parser) -> None:
    """Declare ``agent``."""
    parser.add_argument("agent_id", metavar="ID", help="the agent")
    parser.add_argument("task", metavar="TASK", help="the task; - reads it from standard input")
    parser.add_argument("--config", metavar="JSON", help="the agent's configuration: a JSON object, or @FILE")
    parser.set_defaults(execute=_agent, if_more_words=_IN_QUOTES)


def _run(args: Arguments, output: Output) -> int:
    from .arguments import text_or_stdin
    from .connect import open_client

    text = text_or_stdin(args.input, "the input")
    with open_client(args) as client:
        options = {
            "session_id": args.session_id,
            "agent_id": args.agent_id,
            "mode_hint": args.mode_hint,
            # no more time for the service than the caller has, unless told to: else the deadline would follow it
            "timeout_ms": min(30000, int(client.timeout * 1000) or 1)
            if args.timeout_ms is None
            else args.timeout_ms,
        }
        if args.stream:
            return _stream(client, text, options, args.timeout, output)
        response = client.run(text, **options)
    _show(output, response, response.text, trace_id=response.trace_id, mode=response.mode)
    return _exit_code(output, "run", response.to_dict())


def _show(output: Output, response: Any, text: Optional[str], **facts: Optional[str]) -> None:
    """Print a whole answer as the document that it is, or its text, with the facts that a caller may need next."""
    if output.json:
        output.document(response.to_dict())
        return
    if text is not None:
        output.text(text)
    _notice(output, **facts)


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
    failed: Optional[StreamEvent] = None
    start: Mapping[str, Any] = {}
    final: Mapping[str, Any] = {}
    with client.run_stream(text, timeout=timeout_seconds, **options) as stream:
        has_text = False
        for event in stream:
            if output.json:
                output.object_line(event.to_dict())
            elif event.text:
                output.piece(event.text)
                has_text = True
            elif event.type == "tool_call":
                output.notice("tool call: {}".format(event.data.get("name", event.data.get("tool", "?"))))
            elif event.type == "final" and not has_text:
                output.piece(_final_text(event.data))
            if event.type == "error":
                failed = event
            elif event.type == "start":
                start = event.data
            elif event.type == "final":
                final = event.data
        output.end_line()
        if not output.json:
            _notice(output, trace_id=stream.trace_id)
    if failed is not None:
        reasons = [failed.data.get(name) for name in ("message", "error", "reason", "code")]
        reason = next((reason for reason in reasons if reason), "it gives no reason")
        output.complain(
            "the stream ended in an error: {} (trace id {})".format(reason, failed.trace_id or "unknown")
        )
        return REFUSED
    # what the start said holds where the final event is silent about it, or there is none
    return _exit_code(output, "run", {**start, **final, "trace_id": stream.trace_id})


def _final_text(data: Mapping[str, Any]) -> str:
    """Return the whole text that a final event holds, for a service that sent no tokens before."""
    texts = [data.get(name) for name in ("output", "text", "content", "result")]
    return next((text for text in texts if isinstance(text, str)), "")


def _chat(args: Arguments, output: Output) -> int:
    from .arguments import text_or_stdin
    from .connect import open_client

    message = text_or_stdin(args.message, "the message")
    with open_client(args) as client:
        response = client.chat.run(message, session_id=args.session_id)
    _show(output, response, response.result, trace_id=response.trace_id, session_id=response.session_id)
    return _exit_code(output, "chat", response.to_dict())


def _agent(args: Arguments, output: Output) -> int:
    from .arguments import json_object, text_or_stdin
    from .connect import open_client

    config = json_object(args.config, "--config")
    task = text_or_stdin(args.task, "the task")
    with open_client(args) as client:
        result = client.agents.run(args.agent_id, task, config=config)
    _show(output, result, result.result, trace_id=result.trace_id, status=result.status)
    return _exit_code(output, "agent", result.to_dict())
