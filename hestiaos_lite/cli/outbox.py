"""outbox list, flush, requeue, move, drop: what waits to be sent, and what was refused."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from .._redact import pasteable
from ..errors import HestiaError, InvalidInput
from .connect import open_aegis, open_outbox
from .exits import DONE, REFUSED, TRY_LATER
from .output import Output
from .parser import OUTPUT_OPTIONS, Arguments, Parser, count

if TYPE_CHECKING:
    from ..aegis.outbox import Outbox
    from ..aegis.rows import Entry

_FIRST = ("id", "state", "service", "action", "idempotency_key")
_PRIVATE = ("owner", "payload_digest")  # of no use outside the file


def declare_list(parser: Parser) -> None:
    """Declare ``outbox list``."""
    states = ("queued", "claimed", "settled", "dead")
    parser.add_argument("--state", choices=states, help="only these")
    _declare(parser, _list)


def declare_flush(parser: Parser) -> None:
    """Declare ``outbox flush``."""
    takes = parser.takes
    _declare(parser, _flush)
    parser.takes = takes


def declare_requeue(parser: Parser) -> None:
    """Declare ``outbox requeue``."""
    parser.add_argument("row_id", type=count, nargs="?", metavar="ID", help="its number in the list")
    parser.add_argument("--all", action="store_true", help="every dead one")
    _declare(parser, _requeue)


def declare_move(parser: Parser) -> None:
    """Declare ``outbox move``."""
    help = "the URL they were recorded for, as -u had it, or as the list shows it"
    parser.add_argument("--from", dest="old_url", metavar="URL", required=True, help=help)
    help = "the URL where the service is now, written likewise"
    parser.add_argument("--to", dest="new_url", metavar="URL", required=True, help=help)
    _declare(parser, _move)


def declare_drop(parser: Parser) -> None:
    """Declare ``outbox drop``."""
    parser.add_argument("row_id", type=count, metavar="ID", help="its number in the list")
    _declare(parser, _drop)


def _declare(parser: Parser, execute: Callable[[Arguments, Output], int]) -> None:
    """Declare what they have in common; but for flush they ask no service, and --timeout bounds the wait for a lock."""
    parser.takes = ("timeout",) + OUTPUT_OPTIONS
    parser.add_argument("--outbox", metavar="FILE", required=True, help="the outbox file")
    parser.set_defaults(execute=execute)


def tell_of_dead(outbox: Outbox, output: Output) -> int:
    """Complain of the dead decisions in an outbox, and return how many there are."""
    dead = outbox.counts()["dead"]
    if dead:
        output.complain(
            "{} dead in the outbox: not sent, and not tried again; see why: hestiaos-lite outbox list --state dead"
            " --outbox {}; once it is fixed: hestiaos-lite outbox requeue --all --outbox {}".format(
                dead, pasteable(outbox.path), pasteable(outbox.path)
            )
        )
    return dead


def _list(args: Arguments, output: Output) -> int:
    with _open_existing(args) as outbox:
        rows = outbox.list([args.state] if args.state else None)
    if output.json:
        output.document([_row_dict(row) for row in rows])
        return DONE
    for row in rows:
        output.text(
            "{}  {:<7}  {:<7}  {}  thread {}  {}  {}  attempts {}{}".format(
                row.id,
                row.state,
                row.action,
                row.idempotency_key,
                row.thread_id,
                _when(row.recorded_ms),
                row.service,
                row.attempts,
                "  " + " ".join(row.reason.split()) if row.reason else "",
            )
        )
    return DONE


def _flush(args: Arguments, output: Output) -> int:
    with _open_existing(args) as outbox:
        try:
            with open_aegis(args, outbox) as client:
                report = client.flush()
        except HestiaError:
            tell_of_dead(outbox, output)
            raise
        dead_in_all = tell_of_dead(outbox, output)
    counted = {name: getattr(report, name) for name in ("sent", "duplicate", "queued", "dead")}
    output.fields(dict(counted, elsewhere=report.elsewhere if report.elsewhere or output.json else None))
    if report.elsewhere:
        output.notice(
            "{} queued for another service, or under the other of tenant and API key, and left alone; see: "
            "hestiaos-lite outbox list --state queued --outbox {}".format(
                report.elsewhere, pasteable(outbox.path)
            )
        )
    if dead_in_all:
        return REFUSED
    return TRY_LATER if report.queued or report.elsewhere else DONE


def _requeue(args: Arguments, output: Output) -> int:
    if args.all is (args.row_id is not None):
        raise InvalidInput("name one ID, or --all")
    with _open_existing(args) as outbox:
        if args.all:
            number = outbox.requeue_all()
            if output.json:
                output.document({"requeued": number})
            else:
                output.notice("queued again: {}".format(number))
            return DONE
        if not outbox.requeue(args.row_id):
            output.complain("row {} is not dead".format(args.row_id))
            return REFUSED
        row = outbox.get(args.row_id)
    if output.json:
        output.document(_row_dict(row))
    else:
        output.notice("queued again: {} {}".format(row.action, row.idempotency_key))
    return DONE


def _move(args: Arguments, output: Output) -> int:
    from ..config import check_base_url

    old_url, new_url = check_base_url(args.old_url), check_base_url(args.new_url)
    with _open_existing(args) as outbox:
        number = outbox.move(old_url, new_url)
    if output.json:
        output.document({"moved": number})
    else:
        output.notice("moved {} from {} to {}".format(number, old_url, new_url))
    return DONE


def _open_existing(args: Arguments) -> Outbox:
    """Open an outbox that is there: to look must not make one, and a mistyped path would be silent for ever."""
    if not os.path.exists(args.outbox):
        raise HestiaError(
            "OUTBOX",
            "no such outbox: {}; the first decision with --outbox creates it".format(pasteable(args.outbox)),
            delivered=False,
        )
    return open_outbox(args)


def _drop(args: Arguments, output: Output) -> int:
    with _open_existing(args) as outbox:
        row = outbox.drop(args.row_id)
    if output.json:
        output.document({"id": args.row_id} if row is None else _row_dict(row))
    elif row is None:
        output.notice("dropped row {}, which was malformed".format(args.row_id))
    else:
        output.notice("dropped {} {} ({})".format(row.action, row.idempotency_key, row.state))
    return DONE


def _row_dict(row: Entry) -> Dict[str, Any]:
    names = _FIRST + tuple(name for name in vars(row) if name not in _FIRST + _PRIVATE)
    return {name: getattr(row, name) for name in names}


def _when(epoch_ms: Optional[int]) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((epoch_ms or 0) / 1000.0))
