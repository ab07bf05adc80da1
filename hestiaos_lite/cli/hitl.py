"""hitl approve, reject, status, key: human decisions with exactly-once effect (AEGIS)."""

from __future__ import annotations

from typing import Any, Dict

from ..errors import InvalidInput
from .exits import DONE, REFUSED, TRY_LATER
from .output import Output
from .parser import Arguments, Parser, add_commands, add_global_options, seconds


def declare(parser: Parser) -> None:
    """Declare ``hitl`` and its commands."""
    commands = add_commands(parser, "hitl_command")
    for name in ("approve", "reject"):
        help = "{} the action that a key stands for; a duplicate is exit 0, queued in the outbox 75".format(
            name
        )
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument("key", metavar="KEY", help="the idempotency key; hitl key makes one")
        command.add_argument(
            "--payload", metavar="JSON", help="a JSON object, @FILE, or - for standard input"
        )
        _add_sender(command)
        help = "record it in this file before it is sent, so that it is queued while the service is away"
        command.add_argument("--outbox", metavar="FILE", help=help)
        add_global_options(command)
        command.set_defaults(execute=_decide, action=name, changes=True)

    help = "show where an action stands: exit 0 committed, 1 failed, 75 still pending"
    command = commands.add_parser("status", help=help, description=help)
    command.add_argument("request_id", metavar="ID", help="the request id of the decision")
    command.add_argument(
        "--wait", type=seconds, metavar="SECONDS", help="look every second until it is decided"
    )
    add_global_options(command)
    command.set_defaults(execute=_status)

    help = "make an idempotency key: the same parts and fields give the same key, everywhere"
    command = commands.add_parser("key", help=help, description=help)
    command.add_argument("parts", nargs="*", metavar="PART", help="what the decision is about, each a string")
    command.add_argument(
        "--field", action="append", default=[], metavar="NAME=VALUE", help="a named string; repeatable"
    )
    add_global_options(command)
    command.set_defaults(execute=_key)


def _add_sender(command: Parser) -> None:
    command.add_argument(
        "--tenant", dest="tenant_id", metavar="T", help="tenant id, self-hosted (AEGIS_TENANT_ID)"
    )
    command.add_argument("--thread", dest="thread_id", metavar="T", help="thread id (AEGIS_THREAD_ID)")


def _decide(args: Arguments, output: Output) -> int:
    from .arguments import json_object
    from .connect import open_aegis, open_outbox

    payload = json_object(args.payload, "--payload")
    outbox = None if args.outbox is None else open_outbox(args)
    try:
        with open_aegis(args, output, outbox) as client:
            result = client.execute(args.action, args.key, payload=payload)
    except ValueError as error:  # a missing tenant or thread id; nothing was sent
        raise InvalidInput("{} (--thread, --tenant, --api-key)".format(error)) from error
    finally:
        if outbox is not None:
            outbox.close()
    outcome = "queued" if result.queued else "duplicate" if result.duplicate else "accepted"
    if output.json:
        output.document(result.to_dict())
    else:
        output.text("{} {}".format(outcome, result.request_id))
    if result.duplicate:
        output.notice("duplicate: this key was already processed; nothing was done again")
    if result.queued:
        cure = "hestiaos-lite outbox flush --outbox {}".format(args.outbox)
        reason = (
            result.extra.get("reason")
            or "the service could not take it, or older decisions of its thread wait"
        )
        output.notice("queued: {}; to send it: {}".format(reason, cure))
        return TRY_LATER
    return DONE


def _status(args: Arguments, output: Output) -> int:
    from .connect import open_aegis

    with open_aegis(args, output) as client:
        waited = args.wait is not None
        status = (
            client.wait(args.request_id, timeout=args.wait) if waited else client.get_status(args.request_id)
        )
    output.fields({name: getattr(status, name) for name in ("request_id", "status", "action", "data")})
    if status.committed and status.action != "reject":
        return DONE
    if status.done or status.status == "REJECTED":
        output.complain("the action is {}".format("rejected" if status.committed else status.status))
        return REFUSED
    output.notice("still {}: look again later".format(status.status))
    return TRY_LATER


def _key(args: Arguments, output: Output) -> int:
    from ..aegis.keys import idempotency_key

    fields: Dict[str, Any] = {}
    for field in args.field:
        name, equals, value = field.partition("=")
        if not equals or not name or name in fields:
            raise InvalidInput("--field wants NAME=VALUE, each name once, not {!r}".format(field))
        fields[name] = value
    try:
        key = idempotency_key(*args.parts, **fields)
    except TypeError as error:  # nothing given, or bytes that are no text
        raise InvalidInput(str(error)) from error
    if output.json:
        output.document({"idempotency_key": key})
    else:
        output.text(key)
    return DONE
