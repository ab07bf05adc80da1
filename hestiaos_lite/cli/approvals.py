"""hitl and outbox: human decisions with exactly-once effect (AEGIS), and what waits to be sent or was refused."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, Mapping, Optional, Tuple

from .._redact import pasteable
from ..errors import HestiaError, InvalidInput
from .connect import json_object, open_aegis, open_outbox
from .exits import DONE, REFUSED, TRY_LATER, UNKNOWN
from .output import Output
from .parser import OUTPUT_OPTIONS, Arguments, Parser, count, seconds

if TYPE_CHECKING:
    from ..aegis.client import AegisClient
    from ..aegis.outbox import Outbox
    from ..aegis.rows import Entry

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
# What each outcome of conclude ends with and means.
_CONCLUSIONS = {
    "approved": (DONE, "somebody approved in time, and it is committed"),
    "pending": (TRY_LATER, "somebody approved in time, and it is not committed yet; run it again later"),
    "rejected": (REFUSED, "it was rejected before, by somebody or by an earlier conclude"),
    "expired": (REFUSED, "nobody had decided, and from now on nobody can"),
    "failed": (REFUSED, "somebody approved in time, and the service could not commit it"),
    "unknown": (UNKNOWN, "somebody decided first, and the service does not say what; look in its log"),
}
_IN_OUTBOX = "a decision of this key waits in the outbox and cannot be sent; nothing is concluded"
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", list: "list"}
_FIRST = ("id", "state", "service", "action", "idempotency_key")
_PRIVATE = ("owner", "payload_digest")  # of no use outside the file


# -- hitl


def declare_decision(parser: Parser) -> None:
    """Declare approve or reject, whichever the last word of the command's name is."""
    parser.description = "{}.\n{}".format(parser.description, _DECIDE)
    _add_sender(
        parser, "record it in this file before it is sent, so that it is queued while the service is down"
    )
    parser.set_defaults(execute=_decide, action=parser.prog.split()[-1])


def declare_conclude(parser: Parser) -> None:
    parser.description = _CONCLUDE
    _add_sender(parser, "first send what waits in this file for the same thread")
    parser.set_defaults(execute=_conclude)


def _add_sender(parser: Parser, outbox_help: str) -> None:
    parser.add_argument("key", metavar="KEY", help="the idempotency key; hitl key makes one")
    parser.add_argument("--payload", metavar="JSON", help="a JSON object, @FILE, or - for standard input")
    help = "tenant id, self-hosted (AEGIS_TENANT_ID)"
    parser.add_argument("--tenant", dest="tenant_id", metavar="T", help=help)
    parser.add_argument("--thread", dest="thread_id", metavar="T", help="thread id (AEGIS_THREAD_ID)")
    parser.add_argument("--outbox", metavar="FILE", help=outbox_help)


def declare_status(parser: Parser) -> None:
    parser.add_argument("request_id", metavar="ID", help="the request id of the decision")
    help = "ask every second until it is decided"
    parser.add_argument("--wait", type=seconds, metavar="SECONDS", help=help)
    hint = "an action is looked up by the request id that approve printed, not by its key"
    parser.set_defaults(execute=_status, if_not_found=hint)


def declare_key(parser: Parser) -> None:
    parser.takes = OUTPUT_OPTIONS
    parser.description = "{}.\n{}".format(parser.description, _KEY)
    parser.add_argument("parts", nargs="*", metavar="PART", help="what the decision is about")
    help = "a named part; repeatable"
    parser.add_argument("--field", action="append", default=[], metavar="NAME=VALUE", help=help)
    help = 'read each PART and VALUE as JSON where it is JSON (42, 1.5, true, null, "42"), else as a string'
    parser.add_argument("--typed", action="store_true", help=help)
    parser.set_defaults(execute=_key)


def _decide(args: Arguments, output: Output) -> int:
    result, dead = _send(args, output, args.action)
    outcome = "queued" if result.queued else "duplicate" if result.duplicate else "accepted"
    output.result(result.to_dict(), text="{} {}".format(outcome, result.request_id))
    if result.duplicate:
        doubt = "" if result.confirmed else ", and the service does not say whether to approve or to reject"
        output.notice("duplicate: this key was already processed{}; nothing was done again".format(doubt))
    if result.queued:
        words = [_command("flush", args.outbox)]
        for option, given in (("--base-url", args.base_url), ("--profile", args.profile)):
            words += [option, pasteable(given)] if given else []
        reason = result.extra.get("reason") or "the service could not take it"
        text = "queued: {}; thanks to its key it takes effect once, however often it is sent; to send it: {}"
        output.notice(text.format(reason, " ".join(words)))
    return REFUSED if dead else TRY_LATER if result.queued else DONE


def _conclude(args: Arguments, output: Output) -> int:
    conclusion, _ = _send(args, output, "conclude")
    outcome = conclusion.outcome
    output.result(conclusion.to_dict(), text=" ".join(filter(None, (outcome, conclusion.request_id))))
    code, meaning = _CONCLUSIONS[outcome]
    is_in_outbox = outcome == "pending" and args.outbox is not None and conclusion.status is None
    output.notice("{}: {}".format(outcome, _IN_OUTBOX if is_in_outbox else meaning))
    return code


def _send(args: Arguments, output: Output, method: str) -> Tuple[Any, int]:
    """Approve, reject or conclude the key of the arguments; return the result, and how many are dead in the outbox."""
    payload = json_object(args.payload, "--payload")
    with contextlib.nullcontext() if args.outbox is None else open_outbox(args) as outbox:
        with _sender(args, output, outbox) as client:
            try:
                result = getattr(client, method)(args.key, payload=payload)
            except ValueError as error:  # a missing tenant or thread id; nothing was sent
                raise InvalidInput("{} (--thread, --tenant, --api-key)".format(error)) from error
        return result, _report_dead(outbox, output)


@contextlib.contextmanager
def _sender(args: Arguments, output: Output, outbox: Optional[Outbox]) -> Iterator[AegisClient]:
    """Open the client; where what is asked of it fails, the dead decisions in its outbox are complained of too."""
    try:
        with open_aegis(args, outbox) as client:
            yield client
    except HestiaError:
        _report_dead(outbox, output)
        raise


def _report_dead(outbox: Optional[Outbox], output: Output) -> int:
    """Complain of the dead decisions in an outbox, and return how many there are.

    That they cannot be counted takes the place neither of an answer in hand nor of the error that ended the command.
    """
    if outbox is None:
        return 0
    try:
        dead = outbox.counts()["dead"]
    except HestiaError as error:
        output.complain("the dead in the outbox cannot be counted: {}".format(error))
        return 0
    if dead:
        fault = "{} dead in the outbox: not sent, and not tried again; see why: {}; once it is fixed: {}"
        cures = (_command("list --state dead", outbox.path), _command("requeue --all", outbox.path))
        output.complain(fault.format(dead, *cures))
    return dead


def _command(words: str, path: str) -> str:
    """Return a command of an outbox, to be pasted into a shell."""
    return "hestiaos-lite outbox {} --outbox {}".format(words, pasteable(path))


def _status(args: Arguments, output: Output) -> int:
    from ..models import is_refusal

    with open_aegis(args) as client:
        if args.wait is None:
            status = client.get_status(args.request_id)
        else:
            status = client.wait(args.request_id, timeout=args.wait)
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
    values = parts + list(fields.values())
    types = [_TYPES.get(type(value), "object") for value in values]
    output.result({"idempotency_key": key, "types": types}, text=key)
    if args.typed:
        output.notice("read as: " + ", ".join(types))
        return DONE
    number = next((text for text in values if text.isdigit() and text.isascii()), None)
    if number is not None:
        hint = "read as: {}; --typed reads {} as an integer, which makes another key"
        output.notice(hint.format(", ".join(types), number))
    return DONE


def _typed(text: str) -> Any:
    """Read JSON where the text is JSON, else the text itself."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON


# -- outbox


def _declare(
    do: Callable[[Arguments, Output, Outbox], int],
    *arguments: Tuple[str, Mapping[str, Any]],
    asks_a_service: bool = False,
) -> Callable[[Parser], None]:
    """Return the function that declares a command of an outbox that is there, and its arguments.

    To look must not make an outbox, and a mistyped path would be silent for ever.
    """

    def execute(args: Arguments, output: Output) -> int:
        if not os.path.exists(args.outbox):
            fault = "no such outbox: {}; the first decision with --outbox creates it"
            raise HestiaError("OUTBOX", fault.format(pasteable(args.outbox)), delivered=False)
        with open_outbox(args) as outbox:
            return do(args, output, outbox)

    def declare(parser: Parser) -> None:
        if not asks_a_service:
            parser.takes = ("timeout",) + OUTPUT_OPTIONS  # it bounds the wait for a lock
        for name, options in arguments:
            parser.add_argument(name, **options)
        parser.add_argument("--outbox", metavar="FILE", required=True, help="the outbox file")
        parser.set_defaults(execute=execute)

    return declare


def _list(args: Arguments, output: Output, outbox: Outbox) -> int:
    rows = outbox.list([args.state] if args.state else None)
    if output.json:
        output.document([_row_dict(row) for row in rows])
        return DONE
    line = (
        "{0.id}  {0.state:<7}  {0.action:<7}  {0.idempotency_key}  thread {0.thread_id}"
        "  {1}  {0.service}  attempts {0.attempts}{2}"
    )
    for row in rows:
        recorded = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((row.recorded_ms or 0) / 1000.0))
        output.text(line.format(row, recorded, "  " + " ".join(row.reason.split()) if row.reason else ""))
    return DONE


def _flush(args: Arguments, output: Output, outbox: Outbox) -> int:
    with _sender(args, output, outbox) as client:
        report = client.flush()
    dead_in_all = _report_dead(outbox, output)
    counted = {name: getattr(report, name) for name in ("sent", "duplicate", "queued", "dead")}
    output.fields(dict(counted, elsewhere=report.elsewhere if report.elsewhere or output.json else None))
    if report.elsewhere:
        text = (
            "{} queued for another service, or under the other of tenant and API key, and left alone; see: {}"
        )
        output.notice(text.format(report.elsewhere, _command("list --state queued", outbox.path)))
    if dead_in_all or report.dead:
        return REFUSED
    return TRY_LATER if report.queued or report.elsewhere else DONE


def _requeue(args: Arguments, output: Output, outbox: Outbox) -> int:
    if args.all is (args.row_id is not None):
        raise InvalidInput("name one ID, or --all")
    if args.all:
        number = outbox.requeue_all()
        output.result({"requeued": number}, notice="queued again: {}".format(number))
        return DONE
    if not outbox.requeue(args.row_id):
        output.complain("row {} is not dead".format(args.row_id))
        return REFUSED
    row = outbox.get(args.row_id)
    output.result(_row_dict(row), notice="queued again: {0.action} {0.idempotency_key}".format(row))
    return DONE


def _move(args: Arguments, output: Output, outbox: Outbox) -> int:
    from ..config import check_base_url

    old_url, new_url = check_base_url(args.old_url), check_base_url(args.new_url)
    number = outbox.move(old_url, new_url)
    output.result({"moved": number}, notice="moved {} from {} to {}".format(number, old_url, new_url))
    return DONE


def _drop(args: Arguments, output: Output, outbox: Outbox) -> int:
    row = outbox.drop(args.row_id)
    if row is None:
        notice = "dropped row {}, which was malformed".format(args.row_id)
    else:
        notice = "dropped {0.action} {0.idempotency_key} ({0.state})".format(row)
    output.result({"id": args.row_id} if row is None else _row_dict(row), notice=notice)
    return DONE


def _row_dict(row: Entry) -> Dict[str, Any]:
    names = _FIRST + tuple(name for name in vars(row) if name not in _FIRST + _PRIVATE)
    return {name: getattr(row, name) for name in names}


# fmt: off
_ID = {"type": count, "metavar": "ID", "help": "its number in the list"}
declare_list = _declare(
    _list, ("--state", {"choices": ("queued", "claimed", "settled", "dead"), "help": "only these"}))
declare_flush = _declare(_flush, asks_a_service=True)
declare_requeue = _declare(
    _requeue, ("row_id", dict(_ID, nargs="?")), ("--all", {"action": "store_true", "help": "every dead one"}))
declare_move = _declare(
    _move,
    ("--from", {"dest": "old_url", "metavar": "URL", "required": True,
                "help": "the URL they were recorded for, as -u had it, or as the list shows it"}),
    ("--to", {"dest": "new_url", "metavar": "URL", "required": True,
              "help": "the URL where the service is now, written likewise"}))
declare_drop = _declare(_drop, ("row_id", _ID))
# fmt: on
