"""outbox list, flush, requeue, drop: what waits to be sent, and what was refused."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Dict, Optional

from ..errors import HestiaError
from .exits import DONE, REFUSED, TRY_LATER
from .output import Output
from .parser import Arguments, Parser, add_commands, add_global_options, count

if TYPE_CHECKING:
    from ..aegis.outbox import Outbox
    from ..aegis.rows import Row

_PRIVATE = ("owner", "payload_digest")  # of no use outside the file


def declare(parser: Parser) -> None:
    """Declare ``outbox`` and its commands."""
    commands = add_commands(parser, "outbox_command")
    for name, execute, help in (
        ("list", _list, "list the decisions, oldest first"),
        (
            "flush",
            _flush,
            "send what is due; exit 1 when the service refused one, else 75 while any is queued, else 0",
        ),
        ("requeue", _requeue, "let the next flush send a dead decision again, after its cause was put right"),
        ("drop", _drop, "forget one decision for good"),
    ):
        command = commands.add_parser(name, help=help, description=help)
        if name in ("requeue", "drop"):
            command.add_argument("row_id", type=count, metavar="ID", help="its number in the list")
        if name == "list":
            command.add_argument(
                "--state", choices=("queued", "claimed", "settled", "dead"), help="only these"
            )
        command.add_argument("--outbox", metavar="FILE", required=True, help="the outbox file")
        add_global_options(command)
        command.set_defaults(execute=execute, changes=name != "list")


def _list(args: Arguments, output: Output) -> int:
    from .connect import open_outbox

    rows = []
    if _exists(args, output):
        with open_outbox(args) as outbox:
            rows = outbox.list([args.state] if args.state else None)
    if output.json:
        output.document([_row_dict(row) for row in rows])
        return DONE
    for row in rows:
        output.text(
            "{}  {:<7}  {:<7}  {}  thread {}  {}  {} tries{}".format(
                row.id,
                row.state,
                row.action,
                row.idempotency_key,
                row.thread_id,
                _when(row.recorded_ms),
                row.attempts,
                "  " + " ".join(row.reason.split()) if row.reason else "",
            )
        )
    return DONE


def _flush(args: Arguments, output: Output) -> int:
    from .connect import open_aegis, open_outbox

    counted = {"sent": 0, "duplicate": 0, "queued": 0, "dead": 0}
    dead_in_all = 0
    if _exists(args, output):
        with open_outbox(args) as outbox:
            with open_aegis(args, output, outbox) as client:
                report = client.flush()
            counted = {name: getattr(report, name) for name in counted}
            dead_in_all = outbox.counts()["dead"]
    output.fields(counted)
    if dead_in_all:
        message = "{} dead in the outbox; see: hestiaos-lite outbox list --state dead --outbox {}"
        (output.complain if counted["dead"] else output.notice)(message.format(dead_in_all, args.outbox))
    # A refusal is told in the flush that met it alone, while what is queued comes up again in the next.
    if counted["dead"]:
        return REFUSED
    return TRY_LATER if counted["queued"] else DONE


def _requeue(args: Arguments, output: Output) -> int:
    with _open_existing(args) as outbox:
        if not outbox.requeue(args.row_id):
            output.complain("row {} is not dead".format(args.row_id))
            return REFUSED
        row = outbox.get(args.row_id)
    if output.json:
        output.document(_row_dict(row))
    else:
        output.notice("queued again: {} {}".format(row.action, row.idempotency_key))
    return DONE


def _open_existing(args: Arguments) -> Outbox:
    from .connect import open_outbox

    if not os.path.exists(args.outbox):
        raise HestiaError("OUTBOX", "there is no outbox {}".format(args.outbox), delivered=False)
    return open_outbox(args)


def _drop(args: Arguments, output: Output) -> int:
    with _open_existing(args) as outbox:
        row = outbox.drop(args.row_id)
    if output.json:
        output.document(_row_dict(row))
    else:
        output.notice("dropped {} {} ({})".format(row.action, row.idempotency_key, row.state))
    return DONE


def _exists(args: Arguments, output: Output) -> bool:
    """Tell whether there is such a file; to look must not make one, and before the first decision there is none."""
    if os.path.exists(args.outbox):
        return True
    output.notice("no outbox {} yet: nothing is queued".format(args.outbox))
    return False


def _row_dict(row: Row) -> Dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name not in _PRIVATE}


def _when(epoch_ms: Optional[int]) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((epoch_ms or 0) / 1000.0))
