"""``batch``: a file of inputs through one call, each sent once; killed, it is resumed."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional

from .. import errors
from . import exits
from .output import Output
from .parser import Arguments, Parser, count, seconds, text

if TYPE_CHECKING:
    from ..batch.dispatch import Dispatcher
    from ..batch.input import BatchInput
    from ..batch.output import Files
    from ..batch.rows import BatchResult, BatchRow
    from ..client import Client
    from .progress import Progress

_ONE_SIGNAL_SECONDS = 0.5
_SHOWN = 10
_COUNTED = ("ok", "blocked", "refused", "again", "unknown", "unsent")
_LOOK_UP = "first look up what became of the unknown ones; --retry-unknown repeats them, executed or not"

_EPILOG = """\
a row is {"id": ..., "input": ...} with any of the call's other arguments (session_id, agent_id, mode_hint, timeout_ms;
chat: message; agent: agent_id, task, config); in plain text each line is an input, and its number is its id; in CSV and
TSV the header names the columns: --column is the input (default: the one named input), the others by their names

a row is journalled in OUT.journal before it is sent, so that a run that was killed is resumed without sending twice what
may have been executed; keep the journal (after a kill also its -wal file) beside OUT as long as you may resume

429, 503 and a service that is down pause all workers; such a row is sent again, --retries times (default 5)

exit codes: 0 all ok; 1 some were blocked or refused; 75 some are to be tried again, or were not sent; 3 the outcome of
some is unknown (the most serious wins: 3, 75, 1); 65 bad input, nothing was sent; 77 credentials; 130 interrupted (--resume)
"""


def declare(parser: Parser) -> None:
    """Declare ``batch``."""
    parser.epilog = _EPILOG
    parser.set_defaults(execute=_batch)
    parser.add_argument(
        "input", type=text, metavar="IN", help="JSON lines, plain text, CSV or TSV; - is standard input"
    )
    name: Dict[str, Any] = {"type": text, "metavar": "NAME"}
    flag: Dict[str, Any] = {"action": "store_true"}
    # fmt: off
    for option, settings, help in (
        ("--out", {"type": text, "metavar": "OUT"},
         "results, one JSON object per line, or a table (.csv, .tsv); - is standard output"),
        ("--failed", {"type": text, "metavar": "BAD"}, "file for results that are not ok, instead of OUT"),
        ("--call", {"choices": ("run", "chat", "agent"), "default": "run"}, "the call that each row is given to"),
        ("--format", {"choices": ("jsonl", "text", "csv", "tsv")}, "of IN; default by its name or its first line"),
        ("--column", name, "the column of a CSV or TSV that is the input"),
        ("--id-column", name, "the column that is the id (default id, else the line)"),
        ("--delimiter", {"type": _delimiter, "metavar": "CHAR"},
         "of a CSV; default the one of , ; tab | that fits its header"),
        ("--encoding", name, "of IN (default UTF-8); a byte order mark takes precedence"),
        ("--check", flag, "read and check IN, say what it holds, send nothing"),
        ("--jobs", {"type": _jobs, "default": 8, "metavar": "N"}, "most rows in flight (default 8, at most 10000)"),
        ("--rate", {"type": _rate, "metavar": "RATE"}, "most rows sent, such as 20/s, 90/min, 500/h"),
        ("--resume", flag, "continue from OUT: skip finished rows, send unsent ones"),
        ("--retry-failed", flag, "resume, and repeat rows that failed or were refused without effect"),
        ("--retry-unknown", flag, "resume, and repeat rows whose outcome is unknown"),
        ("--moved", flag, "resume at another base URL: the service has moved there"),
        ("--max-failures", {"type": _above_0, "metavar": "N"}, "stop after N failures (a block is not one)"),
        ("--deadline", {"type": seconds, "metavar": "SECONDS"}, "send nothing after this time"),
        ("--patience", {"type": seconds, "default": 900.0, "metavar": "SECONDS"},
         "end when the service has refused everything for this long (default 900)"),
    ):
        parser.add_argument(option, help=help, **settings)
    # fmt: on


def _batch(args: Arguments, output: Output) -> int:
    from ..batch.input import BatchInput
    from ..batch.output import are_same
    from .connect import open_client

    if args.out is None and not args.check:
        raise errors.InvalidInput("give a file for the results: --out OUT (or --check, which sends nothing)")
    for path in (args.out, args.failed):
        if args.input != "-" and path not in (None, "-") and are_same(path, args.input):
            raise errors.InvalidInput("{} is the input: give another file for the results".format(path))
    with _reading(args.input, output):
        source = BatchInput(
            args.input, args.call, args.format, args.column, args.id_column, args.delimiter, args.encoding
        )
    with contextlib.closing(source):
        if args.check:
            return _report_checked(args, source, output)
        # the batch repeats what may be repeated, so that a refusal pauses all workers at once
        client = open_client(argparse.Namespace(**dict(vars(args), retries=0)))
        args.asked_url = client.base_url
        return _Run(args, _open_files(args, source, client.base_url, output), client, output).go()


class _Run:
    """One run over a checked input, with open files."""

    _progress: Progress  # while it goes on

    def __init__(self, args: Arguments, files: Files, client: Client, output: Output) -> None:
        self._args = args
        self._files = files
        self._client = client
        self._output = output
        self._stop = threading.Event()
        self._signal: Optional[int] = None
        self._signal_at = 0.0
        self._failures = 0
        self._unknown: List[str] = []  # what is to be looked up: the first of them

    def go(self) -> int:
        """Send what is unsent, and return the exit code."""
        from .progress import Progress

        failure: Optional[Exception] = None
        try:
            dispatcher = self._dispatcher()
            self._progress = Progress(self._files.store.tally, dispatcher.backoff, quiet=self._output.quiet)
            with exits.handling(self._interrupt, "SIGINT", "SIGTERM"), contextlib.closing(self._progress):
                for result in dispatcher.results():
                    self._note(result)  # before anything further is sent
        except Exception as error:  # noqa: BLE001 - what ended the run is reported after the tally
            failure = error
        try:
            self._files.close()
        except errors.HestiaError as error:
            failure = failure or error
        if failure is not None and not isinstance(failure, errors.HestiaError):
            raise failure  # standard output is closed, or a bug: the caller's to report
        return self._report(failure)

    def _dispatcher(self) -> Dispatcher:
        from ..batch.dispatch import Dispatcher
        from ..batch.rate import TokenBucket
        from ..batch.run import work

        args = self._args
        granted_ms = None if args.timeout is None else max(1, min(30000, int(args.timeout * 1000)))
        return Dispatcher(
            functools.partial(work, args.call, lambda: self._client, b"", None),
            self._unsent_rows(granted_ms),
            jobs=args.jobs,
            retries=5 if args.retries is None else args.retries,
            patience_seconds=args.patience,
            deadline_seconds=args.deadline,
            bucket=None if args.rate is None else TokenBucket(args.rate),
            stop=self._stop,
            record=self._files.record,
            is_journal=True,
        )

    def _unsent_rows(self, granted_ms: Optional[int]) -> Iterator[BatchRow]:
        """The rows to send; the service is granted no more time for one than ``--timeout``, as with ``run``."""
        for row in self._files.store.unsent():
            if granted_ms is not None and self._args.call == "run":
                row.arguments.setdefault("timeout_ms", granted_ms)
            yield row

    def _note(self, result: BatchResult) -> None:
        if result.outcome == "unknown" and len(self._unknown) < _SHOWN:
            self._unknown.append("{} (request id {})".format(result.id, result.request_id))
        self._failures += result.outcome not in ("ok", "blocked")
        if self._args.max_failures is not None and self._failures >= self._args.max_failures:
            self._stop.set()

    def _interrupt(self, number: int, frame: Any) -> None:
        """End the sending with the first Ctrl-C or SIGTERM, and the process with a second one.

        What follows at once is the first one again: timeout(1) signals its command, and then the group the command is in.
        """
        if self._signal is None:
            self._signal, self._signal_at = number, time.monotonic()
            self._stop.set()
            self._output.notice("finishing what is in flight; interrupt again to stop now")
        elif time.monotonic() >= self._signal_at + _ONE_SIGNAL_SECONDS:
            # At once: leaving by an exception would wait for the calls in flight. The journal has them.
            # Whatever was interrupted, to end matters more than to tell.
            self._signal = number
            with contextlib.suppress(Exception):
                self._progress.close()
                self._report(None)
            os._exit(128 + number)

    def _report(self, failure: Optional[errors.HestiaError]) -> int:
        """Say how the run has ended, and return the exit code."""
        output, tally = self._output, self._files.store.tally
        counts = {"rows": sum(tally.values())}
        counts.update((name, tally.get(name, 0)) for name in _COUNTED)
        in_doubt = tally.get("sent", 0)  # in flight when the results could no longer be written
        counts["unknown"] += in_doubt
        code = _exit_code(counts, failure) if self._signal is None else 128 + self._signal
        if output.json and self._args.out != "-":
            output.document(dict(counts, exit_code=code))
        else:
            # the one line of a run that has not gone well, for cron's mail; a failure has its own
            is_all = output.quiet and failure is None and code != exits.DONE
            say = output.complain if is_all else output.notice
            say(", ".join("{} {}".format(name, number) for name, number in counts.items()))
        if self._unknown and not output.json:
            more = " and more" if counts["unknown"] > len(self._unknown) else ""
            output.notice("unknown: {}{}".format(", ".join(self._unknown), more))
        if self._args.out != "-":
            for number, advice in (
                (counts["unsent"], "--resume sends the {0} that are unsent"),
                (counts["again"], "--retry-failed repeats the {0} that failed without effect"),
                (counts["unknown"], _LOOK_UP),
                (in_doubt, "keep {1}.journal and {1}.journal-wal together until then"),
            ):
                if number:
                    output.notice(advice.format(number, self._args.out))
        if failure is not None:
            output.report(failure, exit_code=code)
        return code


def _exit_code(counts: Mapping[str, int], failure: Optional[errors.HestiaError]) -> int:
    code = exits.DONE if failure is None else failure.exit_code
    by_gravity = (
        (code in (exits.BAD_DATA, exits.DENIED, exits.CONFIGURATION), code),
        (counts["unknown"], exits.UNKNOWN),
        (code == exits.NOT_WRITTEN, code),
        (counts["again"] or counts["unsent"], exits.TRY_LATER),
        (counts["blocked"] or counts["refused"], exits.REFUSED),
    )
    return next((code for is_so, code in by_gravity if is_so), exits.DONE)


def _open_files(args: Arguments, source: BatchInput, service: str, output: Output) -> Files:
    """Check the input, take it into the journal, and open OUT and BAD."""
    from ..batch.output import Files
    from ..batch.store import RETRY_FAILED, RETRY_UNKNOWN

    repeat = (RETRY_FAILED if args.retry_failed else ()) + (RETRY_UNKNOWN if args.retry_unknown else ())
    resume = repeat if args.resume or args.moved or repeat else None
    with _reading(source.name, output):
        files = Files(
            source,
            args.out,
            args.failed,
            call=args.call,
            service=service,
            resume=resume,
            moved=args.moved,
            sink=output.text,
        )
    for notice in files.store.notices:
        output.notice(notice)
    return files


@contextlib.contextmanager
def _reading(name: str, output: Output) -> Iterator[None]:
    """Within the block, refuse an input that cannot be read, or that has faulty lines, naming them."""
    from ..batch.store import FaultyInput

    try:
        yield
    except OSError as error:
        what = "{} cannot be read: {}".format(name, error.strerror or error)
        raise errors.InvalidInput(what, code="BAD_DATA") from error
    except FaultyInput as error:
        for fault in error.shown:
            output.complain(fault)
        raise


def _report_checked(args: Arguments, source: BatchInput, output: Output) -> int:
    from ..batch.store import Store

    with contextlib.closing(Store(None)) as store, _reading(source.name, output):
        store.begin(args.call, source)
    rows = sum(store.tally.values())
    facts = {"rows": rows, "call": args.call, "format": source.format, "read_as": source.describe()}
    text = "{}: {} rows for {} ({})".format(source.name, rows, args.call, facts["read_as"])
    output.result(facts, text=text)
    return exits.DONE


def _delimiter(text: str) -> str:
    char = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(char) != 1 or char in '\r\n"':
        raise argparse.ArgumentTypeError("must be one character, or tab, not {!r}".format(text))
    return char


def _jobs(text: str) -> int:
    from ..batch.rows import MOST_JOBS

    value = _above_0(text)
    if value > MOST_JOBS:
        raise argparse.ArgumentTypeError("must be {} or less, not {}".format(MOST_JOBS, text))
    return value


def _above_0(text: str) -> int:
    value = count(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more, not {}".format(text))
    return value


def _rate(text: str) -> float:
    from ..batch.rate import parse_rate

    try:
        return parse_rate(text)
    except errors.InvalidInput as error:
        raise argparse.ArgumentTypeError(error.message) from error
