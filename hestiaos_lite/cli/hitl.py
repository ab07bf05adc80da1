"""hitl approve, reject, conclude, status, key: human decisions with exactly-once effect (AEGIS)."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, ContextManager, Dict, Optional

from .._redact import pasteable
from ..errors import HestiaError, InvalidInput
from .connect import json_object, open_aegis, open_outbox
from .exits import DONE, REFUSED, TRY_LATER, UNKNOWN
from .outbox import tell_of_dead
from .output import Output
from .parser import OUTPUT_OPTIONS, Arguments, Parser, seconds

if TYPE_CHECKING:
    from ..aegis.outbox import Outbox

_DECIDE = """\
The key names what is decided: put into it everything that must not change, such as the amount. A second decision under
the same key is a duplicate (exit 0) whatever its payload, and changes nothing. A decision that waits in the outbox may
miss the deadline: once the job has concluded the key, it is refused (1). Nobody is notified that there is something to
decide: send people the key. What has not been sent yet: hestiaos-lite outbox list."""
_CONCLUDE = """\
reject KEY unless somebody has decided by now, and say what was decided: exit 0 approved and committed, 75 approved and
still pending, 1 rejected, expired or failed, 3 unknown. It cannot look without deciding: once it has run, nobody can
approve that key any more. Running it again changes nothing; a key that it let expire is then reported as rejected.

Anyone with the tenant's API key may approve. Tenant and thread are part of the key: under a wrong one nobody has decided,
so it expires. An approval does not reserve the action for one job: two jobs that conclude one key both read "approved",
so the step that acts must itself be idempotent. With --outbox the decisions of this thread that wait there are sent
first; while one of this key cannot be sent, nothing is concluded (75). The conclusion itself is never queued."""
_KEY = """\
Each PART and VALUE is read as a string, so that 42 is not the integer 42 of idempotency_key("invoice", 42);
with --typed it is. How each was read is shown on standard error."""
_CONCLUSIONS = {
    "approved": DONE,
    "pending": TRY_LATER,
    "rejected": REFUSED,
    "expired": REFUSED,
    "failed": REFUSED,
    "unknown": UNKNOWN,
}
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", list: "list"}


def declare_approve(parser: Parser) -> None:
    """Declare ``hitl approve``."""
    _declare_decision(parser, "approve")


def declare_reject(parser: Parser) -> None:
    """Declare ``hitl reject``."""
    _declare_decision(parser, "reject")


def _declare_decision(parser: Parser, action: str) -> None:
    parser.description = "{}.\n{}".format(parser.description, _DECIDE)
    _add_sender(parser)
    help = "record it in this file before it is sent, so that it is queued while the service is down"
    parser.add_argument("--outbox", metavar="FILE", help=help)
    parser.set_defaults(execute=_decide, action=action)


def declare_conclude(parser: Parser) -> None:
    """Declare ``hitl conclude``."""
    parser.description = _CONCLUDE
    _add_sender(parser)
    help = "first send what waits in this file for the same thread"
    parser.add_argument("--outbox", metavar="FILE", help=help)
    parser.set_defaults(execute=_conclude)


def declare_status(parser: Parser) -> None:
    """Declare ``hitl status``."""
    parser.add_argument("request_id", metavar="ID", help="the request id of the decision")
    help = "ask every second until it is decided"
    parser.add_argument("--wait", type=seconds, metavar="SECONDS", help=help)
    hint = "an action is looked up by the request id that approve printed, not by its key"
    parser.set_defaults(execute=_status, if_not_found=hint)


def declare_key(parser: Parser) -> None:
    """Declare ``hitl key``."""
    parser.takes = OUTPUT_OPTIONS
    parser.description = "{}.\n{}".format(parser.description, _KEY)
    parser.add_argument("parts", nargs="*", metavar="PART", help="what the decision is about")
    help = "a named part; repeatable"
    parser.add_argument("--field", action="append", default=[], metavar="NAME=VALUE", help=help)
    help = 'read each PART and VALUE as JSON where it is JSON (42, 1.5, true, null, "42"), else as a string'
    parser.add_argument("--typed", action="store_true", help=help)
    parser.set_defaults(execute=_key)


def _add_sender(parser: Parser) -> None:
    parser.add_argument("key", metavar="KEY", help="the idempotency key; hitl key makes one")
    parser.add_argument("--payload", metavar="JSON", help="a JSON object, @FILE, or - for standard input")
    help = "tenant id, self-hosted (AEGIS_TENANT_ID)"
    parser.add_argument("--tenant", dest="tenant_id", metavar="T", help=help)
    parser.add_argument("--thread", dest="thread_id", metavar="T", help="thread id (AEGIS_THREAD_ID)")


def _decide(args: Arguments, output: Output) -> int:
    with _outbox_of(args) as outbox:
        result = _called(args, output, outbox, args.action)
        dead = 0 if outbox is None else tell_of_dead(outbox, output)
    outcome = "queued" if result.queued else "duplicate" if result.duplicate else "accepted"
    if output.json:
        output.document(result.to_dict())
    else:
        output.text("{} {}".format(outcome, result.request_id))
    if result.duplicate and result.confirmed:
        output.notice("duplicate: this key was already processed; nothing was done again")
    elif result.duplicate:
        output.notice(
            "duplicate: this key was already processed, and the service does not say whether to approve or to reject;"
            " nothing was done again"
        )
    if result.queued:
        words = ["hestiaos-lite", "outbox", "flush", "--outbox", args.outbox]
        for option, given in (("--base-url", args.base_url), ("--profile", args.profile)):
            words += [option, given] if given else []
        cure = " ".join(map(pasteable, words))
        reason = result.extra.get("reason") or "the service could not take it"
        output.notice(
            "queued: {}; thanks to its key it takes effect once, however often it is sent; to send it: {}".format(
                reason, cure
            )
        )
    return REFUSED if dead else TRY_LATER if result.queued else DONE


def _conclude(args: Arguments, output: Output) -> int:
    with _outbox_of(args) as outbox:
        conclusion = _called(args, output, outbox, "conclude")
        if outbox is not None:
            tell_of_dead(outbox, output)
    if output.json:
        output.document(conclusion.to_dict())
    else:
        output.text(" ".join(filter(None, (conclusion.outcome, conclusion.request_id))))
    output.notice(_describe(conclusion.outcome, in_outbox=outbox is not None and conclusion.status is None))
    return _CONCLUSIONS[conclusion.outcome]


def _describe(outcome: str, *, in_outbox: bool) -> str:
    if outcome == "pending" and in_outbox:
        return "pending: a decision of this key waits in the outbox and cannot be sent; nothing is concluded"
    return {
        "approved": "approved: somebody approved in time, and it is committed",
        "pending": "pending: somebody approved in time, and it is not committed yet; run it again later",
        "rejected": "rejected: it was rejected before, by somebody or by an earlier conclude",
        "expired": "expired: nobody had decided, and from now on nobody can",
        "failed": "failed: somebody approved in time, and the service could not commit it",
        "unknown": "unknown: somebody decided first, and the service does not say what; look in its log",
    }[outcome]


def _called(args: Arguments, output: Output, outbox: Optional[Outbox], method: str) -> Any:
    """Approve, reject or conclude the key of the arguments."""
    payload = json_object(args.payload, "--payload")
    with open_aegis(args, outbox) as client:
        try:
            return getattr(client, method)(args.key, payload=payload)
        except ValueError as error:  # a missing tenant or thread id; nothing was sent
            raise InvalidInput("{} (--thread, --tenant, --api-key)".format(error)) from error
        except HestiaError:
            if outbox is not None:
                tell_of_dead(outbox, output)
            raise


def _outbox_of(args: Arguments) -> ContextManager[Optional[Outbox]]:
    return contextlib.nullcontext() if args.outbox is None else open_outbox(args)


def _status(args: Arguments, output: Output) -> int:
    from ..models import is_refusal

    with open_aegis(args) as client:
        waited = args.wait is not None
        status = (
            client.wait(args.request_id, timeout=args.wait) if waited else client.get_status(args.request_id)
        )
    output.fields({name: getattr(status, name) for name in ("request_id", "status", "action", "data")})
    if status.approved:
        return DONE
    if status.committed:
        action = "an action without a name" if status.action is None else status.action
        output.complain("what was committed is not an approval: {}".format(action))
        return REFUSED
    if status.done or is_refusal(status.status):
        output.complain("the action is {}".format(status.status))
        return REFUSED
    output.notice("still {}: ask again later".format(status.status))
    return TRY_LATER


def _key(args: Arguments, output: Output) -> int:
    from ..aegis.keys import idempotency_key

    read = _typed if args.typed else str
    parts = [read(part) for part in args.parts]
    fields: Dict[str, Any] = {}
    for field in args.field:
        name, equals, value = field.partition("=")
        if not equals or not name or name in fields:
            raise InvalidInput("--field needs NAME=VALUE, each name once, not {!r}".format(field))
        fields[name] = read(value)
    try:
        key = idempotency_key(*parts, **fields)
    except TypeError as error:  # nothing given, or bytes that are no text
        raise InvalidInput(str(error)) from error
    types = [_type_of(value) for value in parts + list(fields.values())]
    if output.json:
        output.document({"idempotency_key": key, "types": types})
    else:
        output.text(key)
    numbers = [
        text
        for text in args.parts + [field.partition("=")[2] for field in args.field]
        if text.isdigit() and text.isascii()
    ]
    if args.typed or numbers:
        hint = (
            ""
            if args.typed
            else "; --typed reads {} as an integer, which makes another key".format(numbers[0])
        )
        output.notice("read as: {}{}".format(", ".join(types), hint))
    return DONE


def _typed(text: str) -> Any:
    """Read JSON where the text is JSON, else the text itself."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _type_of(value: Any) -> str:
    return _TYPES.get(type(value), "object")
