"""``batch``: a file of inputs through one call, each sent once; killed, it is resumed."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional

from .. import errors
from .exits import BAD_DATA, CONFIGURATION, DENIED, DONE, NOT_WRITTEN, REFUSED, TRY_LATER, UNKNOWN, BadData
from .output import Output
from .parser import Arguments, Parser, count, seconds, text

if TYPE_CHECKING:
    from ..batch.dispatch import Dispatcher, Finished
    from ..batch.input import BatchInput
    from ..batch.output import Files
    from ..batch.rows import BatchRow
    from ..client import Client
    from .progress import Progress

_ONE_SIGNAL_SECONDS = 0.5
_SHOWN = 10

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
    parser.add_argument("input", metavar="IN", help="JSON lines, plain text, CSV or TSV; - is standard input")
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
        ("--jobs", {"type": _jobs, "default": 8, "metavar": "N"}, "most rows in flight (default 8)"),
        ("--rate", {"type": _rate, "metavar": "RATE"}, "most rows sent, such as 20/s, 90/min, 500/h"),
        ("--resume", flag, "continue from OUT: skip finished rows, send unsent ones"),
        ("--retry-failed", flag, "resume, and repeat rows that failed or were refused without effect"),
        ("--retry-unknown", flag, "resume, and repeat rows whose outcome is unknown"),
        ("--moved", flag, "resume at another base URL: the service has moved there"),
        ("--max-failures", {"type": _jobs, "metavar": "N"}, "stop after N failures (a block is not one)"),
        ("--deadline", {"type": seconds, "metavar": "SECONDS"}, "send nothing after this time"),
        ("--patience", {"type": seconds, "default": 900.0, "metavar": "SECONDS"},
         "end when the service has refused everything for this long (default 900)"),
    ):
        parser.add_argument(option, help=help, **settings)
    # fmt: on


def _batch(args: Arguments, output: Output) -> int:
    from .connect import open_client

    if args.out is None and not args.check:
        raise errors.InvalidInput("give a file for the results: --out OUT (or --check, which sends nothing)")
    with contextlib.closing(_open_input(args)) as source:
        if args.check:
            return _report_checked(args, source, output)
        # the batch repeats what may be repeated, so that a refusal pauses all workers at once
        client = open_client(argparse.Namespace(**dict(vars(args), retries=0)))
        args.asked_url = client.base_url
        return _Run(args, _open_files(args, source, client.base_url, output), client, output).go()


class _Run:
    """One run over a checked input, with open files."""

    def __init__(self, args: Arguments, files: Files, client: Client, output: Output) -> None:
        self._args = args
        self._files = files
        self._tally = files.store.tally
        self._client = client
        self._output = output
        self._stop = threading.Event()
        self._signal: Optional[int] = None
        self._failures = 0
        self._unknown: List[str] = []  # what is to be looked up: the first of them
        self._progress: Optional[Progress] = None

    def go(self) -> int:
        """Send what is unsent, and return the exit code."""
        from .progress import Progress

        failure: Optional[Exception] = None
        try:
            dispatcher = self._dispatcher()
            self._progress = Progress(self._tally, dispatcher.backoff, quiet=self._output.quiet)
            with self._signals(), self._progress:
                for finished in dispatcher.finished():
                    self._note(finished)  # before anything further is sent
        except Exception as error:  # noqa: BLE001 - what ended the run is reported after the tally
            failure = error
        try:
            self._files.close()
        except errors.HestiaError as error:
            failure = failure or error
        code = self._exit_code(failure)
        self._report(failure, code)
        return code

    def _dispatcher(self) -> Dispatcher:
        from ..batch.dispatch import Dispatcher
        from ..batch.rate import TokenBucket
        from ..batch.run import SharedClient, work

        args = self._args
        granted_ms = None if args.timeout is None else max(1, min(30000, int(args.timeout * 1000)))
        return Dispatcher(
            functools.partial(work, args.call, SharedClient(self._client), b"", None),
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
        for row in self._files.unsent():
            if granted_ms is not None and self._args.call == "run":
                row.arguments.setdefault("timeout_ms", granted_ms)
            yield row

    def _note(self, finished: Finished) -> None:
        result = finished.result
        if finished.unsent:
            return
        if result.outcome == "unknown" and len(self._unknown) < _SHOWN:
            self._unknown.append("{} (request id {})".format(result.id, result.request_id))
        self._failures += result.outcome not in ("ok", "blocked")
        if self._args.max_failures is not None and self._failures >= self._args.max_failures:
            self._stop.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Within the block the first Ctrl-C or SIGTERM ends the sending, and a second one the process.

        What follows at once is the first one again: timeout(1) signals its command, and then the group the command is in.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        first_at = 0.0

        def end(number: int, frame: Any) -> None:
            nonlocal first_at
            if self._signal is not None:
                if time.monotonic() < first_at + _ONE_SIGNAL_SECONDS:
                    return
                # At once: leaving by an exception would wait for the calls in flight. The journal has them.
                # Whatever was interrupted, to end matters more than to tell.
                with contextlib.suppress(Exception):
                    if self._progress is not None:
                        self._progress.close()
                    self._report(None, 128 + number)
                os._exit(128 + number)
            self._signal, first_at = number, time.monotonic()
            self._stop.set()
            self._output.notice("finishing what is in flight; interrupt again to stop now")

        heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, end) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _exit_code(self, failure: Optional[Exception]) -> int:
        counts = self._tally
        if self._signal is not None:
            return 128 + self._signal
        code = failure.exit_code if isinstance(failure, errors.HestiaError) else DONE
        if code in (BAD_DATA, DENIED, CONFIGURATION):
            return code
        if counts.get("unknown") or counts.get("sent"):
            return UNKNOWN
        if code == NOT_WRITTEN:
            return code
        if counts.get("again") or counts.get("unsent"):
            return TRY_LATER
        return REFUSED if counts.get("blocked") or counts.get("refused") else DONE

    def _report(self, failure: Optional[Exception], code: int) -> None:
        output, counts = self._output, self._tally
        if failure is not None and not isinstance(failure, errors.HestiaError):
            raise failure  # standard output is closed, or a bug: the caller's to report
        if output.json and self._args.out != "-":
            output.document(dict(_tally(counts), exit_code=code))
        else:
            tally = ", ".join("{} {}".format(name, number) for name, number in _tally(counts).items())
            # the one line of a run that has not gone well, for cron's mail; a failure has its own
            is_all = output.quiet and failure is None and code != DONE
            (output.complain if is_all else output.notice)(tally)
        if self._unknown and not output.json:
            more = " and more" if counts.get("unknown", 0) > len(self._unknown) else ""
            output.notice("unknown: {}{}".format(", ".join(self._unknown), more))
        for advice in _advice(counts, self._args):
            output.notice(advice)
        if failure is not None:
            output.report(failure, exit_code=code)


def _open_input(args: Arguments) -> BatchInput:
    from ..batch.input import BatchInput, Shape
    from ..batch.output import are_same

    for path in (args.out, args.failed):
        if args.input != "-" and path not in (None, "-") and are_same(path, args.input):
            raise errors.InvalidInput("{} is the input: give another file for the results".format(path))
    shape = Shape(args.format, args.column, args.id_column, args.delimiter, args.encoding)
    try:
        return BatchInput(args.input, args.call, shape)
    except OSError as error:
        raise BadData("{} cannot be read: {}".format(args.input, error.strerror or error)) from error


def _open_files(args: Arguments, source: BatchInput, service: str, output: Output) -> Files:
    """Check the input, take it into the journal, and open OUT and BAD."""
    from ..batch.output import Files
    from ..batch.store import RETRY_FAILED, RETRY_UNKNOWN

    repeat = (RETRY_FAILED if args.retry_failed else ()) + (RETRY_UNKNOWN if args.retry_unknown else ())
    resume = repeat if args.resume or args.moved or repeat else None
    files = Files(source, args.out, args.failed, resume=resume, sink=output.text)
    with _reading(source, output):
        files.begin(args.call, service, moved=args.moved)
    for notice in files.notices:
        output.notice(notice)
    return files


@contextlib.contextmanager
def _reading(source: BatchInput, output: Output) -> Iterator[None]:
    """Within the block, refuse an input that cannot be read, or that has faulty lines, naming them."""
    from ..batch.store import FaultyInput

    try:
        yield
    except OSError as error:
        raise BadData("{} cannot be read: {}".format(source.name, error.strerror or error)) from error
    except FaultyInput as error:
        for fault in error.shown:
            output.complain(fault)
        raise


def _report_checked(args: Arguments, source: BatchInput, output: Output) -> int:
    from ..batch.store import Store

    with contextlib.closing(Store(None)) as store, _reading(source, output):
        store.begin(args.call, source)
    rows = sum(store.tally.values())
    if output.json:
        facts = {"rows": rows, "call": args.call, "format": source.format, "read_as": source.describe()}
        output.document(facts)
    else:
        output.text("{}: {} rows for {} ({})".format(source.name, rows, args.call, source.describe()))
    return DONE


def _tally(counts: Mapping[str, int]) -> Dict[str, int]:
    tally = {"rows": sum(counts.values())}
    for name in ("ok", "blocked", "refused", "again", "unknown", "unsent"):
        tally[name] = counts.get(name, 0)
    tally["unknown"] += counts.get("sent", 0)  # in flight when the results could no longer be written
    return tally


def _advice(counts: Mapping[str, int], args: Arguments) -> Iterator[str]:
    if args.out == "-":
        return
    if counts.get("unsent"):
        yield "--resume sends the {} that are unsent".format(counts["unsent"])
    if counts.get("again"):
        yield "--retry-failed repeats the {} that failed without effect".format(counts["again"])
    if counts.get("unknown") or counts.get("sent"):
        yield "first look up what became of the unknown ones; --retry-unknown repeats them, executed or not"
    if counts.get("sent"):
        yield "keep {0}.journal and {0}.journal-wal together until then".format(args.out)


def _delimiter(text: str) -> str:
    char = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(char) != 1 or char in '\r\n"':
        raise argparse.ArgumentTypeError("must be one character, or tab, not {!r}".format(text))
    return char


def _jobs(text: str) -> int:
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
