"""What a batch has done, on disk: results in OUT and BAD, and a journal of what was sent, from which a run is resumed.

The journal, OUT.journal, is written before a row is sent: ``{"sent": id, "row": digest}``, on the disk itself before the
first byte goes out, so that neither a kill nor a loss of power can make a row that was sent look unsent. (One fdatasync for
all rows that go out together; results are synced once a second, since one that is lost leaves its row in doubt, never
unsent.) ``{"unsent": id}`` takes it back for a row that was certainly not executed. A row is

- finished when its result stands in OUT or BAD,
- in doubt when the journal's last word on it is ``sent`` and no result stands anywhere,
- unsent otherwise.

So no end mark is needed, and there is no order of writes whose interruption could contradict itself. The journal stays
beside OUT when the run is complete: a later ``--resume`` tells by its digests that the input still is the one that was sent
(with line numbers for ids, an input of another day would else pass for finished). Only a run that leaves nothing at all, no
result and no doubt, removes it.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from ..errors import HestiaError, InvalidInput
from .dispatch import Settled
from .files import BATCH_FILE, LineFile, are_same, has_content, is_regular
from .index import SENT, UNSENT, RowIndex
from .results import AGAIN, OK, REFUSED, UNKNOWN, BatchResult, error_facts, outcome_of
from .rows import BatchRow, id_key

JOURNAL_SUFFIX = ".journal"
OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
BAD_DATA = "BAD_DATA"
_VERSION = 1
_SYNC_RESULTS_SECONDS = 1.0


class Retry(NamedTuple):
    """Which finished rows a resumed run sends again."""

    failed: bool = False
    unknown: bool = False


class Ledger:
    """The files of one run; `open_ledger` makes it, and holds their locks until `close`.

    Args:
        out: results; None sends them to ``sink`` and keeps no journal.
        bad: results that are not ok; None puts them with the others.
        sink: takes one result line, without its end, where ``out`` is None.
    """

    def __init__(
        self,
        call: str,
        index: RowIndex,
        out: Optional[LineFile],
        bad: Optional[LineFile],
        journal: Optional[LineFile],
        sink: Callable[[str], None],
    ) -> None:
        self._call = call
        self._index = index
        self._out = out
        self._bad = bad
        self._journal = journal
        self._sink = sink
        self._synced_at = time.monotonic()
        self._strangers = 0  # rows in the journal that are not of this input
        self.notices: List[str] = []  # what the user should hear of resuming

    # -- while the run goes on

    def before_send(self, rows: Sequence[BatchRow]) -> None:
        """Record that these rows are about to be sent; returns when that is on the disk."""
        if self._journal is not None:
            lines = [_line({"sent": row.id, "row": self._index.digest(id_key(row.id))}) for row in rows]
            self._journal.append(b"".join(lines))
            self._journal.sync()
        for row in rows:
            self._index.mark(id_key(row.id), SENT)

    def turned_away(self, row: BatchRow) -> None:
        """Record that a row was certainly not executed, and will be sent again."""
        self._index.mark(id_key(row.id), UNSENT)
        if self._journal is not None:
            self._journal.append(_line({"unsent": row.id}))

    def settle(self, settled: Settled) -> None:
        """Record a row's result, or that it was not executed after all."""
        result = settled.result
        assert result.id is not None  # noqa: S101 - the input was checked: every row has its id
        if settled.unsent:
            self.turned_away(BatchRow(result.id, {}))
        else:
            self._write(result)

    def _write(self, result: BatchResult) -> None:
        assert result.id is not None  # noqa: S101 - as above
        file = self._out if result.ok or self._bad is None else self._bad
        line = _line(result.to_dict())
        if file is None:
            self._sink(line[:-1].decode("utf-8"))
        else:
            file.append(line)
        self._index.mark(id_key(result.id), result.outcome, None if file is None else file.path)
        if time.monotonic() - self._synced_at >= _SYNC_RESULTS_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Have all results survive a loss of power."""
        for file in (self._out, self._bad):
            if file is not None:
                file.sync()
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and unlock everything; a run that has left no result and no doubt removes its files."""
        files = [file for file in (self._out, self._bad, self._journal) if file is not None]
        try:
            self.sync()
            if self._journal is not None and self._has_left_nothing():
                for file in files:
                    file.remove()
        finally:
            for file in files:
                file.close()

    def _has_left_nothing(self) -> bool:
        if self._strangers or any(file.size for file in (self._out, self._bad) if file is not None):
            return False
        return set(self._index.counts()) <= {UNSENT}

    # -- when it begins

    def begin(self) -> None:
        """Begin the journal of a first run."""
        if self._journal is not None and not self._journal.size:
            self._journal.append(_line({"journal": _VERSION, "call": self._call}))

    def resume(self, retry: Retry) -> None:
        """Read what earlier runs have done into the index, mend the files, and make the rows to be repeated unsent.

        Raises:
            HestiaError: a file is not what a run has left.
            InvalidInput: the input is no longer what was sent.
        """
        if self._journal is None or self._out is None:
            raise InvalidInput("only a run whose results go to a file can be resumed")
        results = [file for file in (self._out, self._bad) if file is not None]
        if not self._journal.size:
            for file in results:
                if file.size:
                    raise HestiaError(
                        BATCH_FILE,
                        "{} is missing, so nobody can know which rows {} has answers of; name new files".format(
                            self._journal.path, file.path
                        ),
                        delivered=False,
                    )
        self._mend(self._journal, results)
        self._read_journal()
        for file in results:
            self._read_results(file)
        again = {AGAIN, REFUSED} if retry.failed else set()
        unknown = {UNKNOWN} if retry.unknown else set()
        for state in sorted(again):
            # first taken back in the journal, then removed from the results: interrupted between, it is still finished
            for key in self._index.in_state(state):
                self._journal.append(b'{"unsent": ' + key.encode("ascii") + b"}\n")
        self._journal.sync()
        for state in sorted(again | unknown):
            self._index.reopen(state)
        if again or unknown:
            for file in results:
                self._remove_reopened(file)
        if retry.unknown:
            self._index.reopen(SENT)
        self._refuse_changed_rows()
        self._report_doubts()

    def _mend(self, journal: LineFile, results: Sequence[LineFile]) -> None:
        for file in [journal] + list(results):
            cut = file.repair(_is_object)
            if cut:
                self.notices.append(
                    "{}: a half line of {} bytes, left by a crash, was cut off".format(file.path, cut)
                )

    def _read_journal(self) -> None:
        assert self._journal is not None  # noqa: S101 - resume has seen to it
        strangers = self._strangers
        for number, line in enumerate(self._journal.lines(), 1):
            entry = _object_in(line, self._journal.path, number)
            if number == 1:
                if entry.get("journal") != _VERSION:
                    raise _no_line_of_ours(self._journal.path, number)
            elif "sent" in entry:
                strangers += not self._index.mark_sent(id_key(entry["sent"]), entry.get("row"))
            elif "unsent" in entry:
                self._index.mark_sent(id_key(entry["unsent"]), None)
            else:
                raise _no_line_of_ours(self._journal.path, number)
        if strangers:
            self.notices.append(
                "{}: {} rows of it are not of this input".format(self._journal.path, strangers)
            )
        self._strangers = strangers
        self.begin()

    def _read_results(self, file: LineFile) -> None:
        for number, line in enumerate(file.lines(), 1):
            entry = _object_in(line, file.path, number)
            if "id" not in entry or "ok" not in entry:
                raise _no_line_of_ours(file.path, number)
            key = id_key(entry["id"])
            earlier = self._index.place(key)
            if earlier is not None:
                raise HestiaError(
                    BATCH_FILE,
                    "{} line {}: the id {} stands in {} already".format(file.path, number, key, earlier),
                    delivered=False,
                )
            outcome = OK if entry["ok"] is True else outcome_of(entry.get("error") or {})
            self._index.mark(key, outcome, file.path)

    def _remove_reopened(self, file: LineFile) -> None:
        def stays(line: bytes) -> bool:
            return self._index.state(id_key(json.loads(line)["id"])) != UNSENT

        if not all(stays(line) for line in file.lines()):
            file.keep_lines(stays)

    def _refuse_changed_rows(self) -> None:
        changed = self._index.changed(limit=20)
        if changed:
            shown = ", ".join("line {} (id {})".format(row.line, row.key) for row in changed)
            raise InvalidInput(
                "the input is no longer what was sent: {}; name new files for its results".format(shown),
                code=BAD_DATA,
            )

    def _report_doubts(self) -> None:
        """Write the rows that an earlier run sent without learning what became of them."""
        for key in self._index.in_state(SENT):
            error = HestiaError(
                OUTCOME_UNKNOWN,
                "an earlier run sent it and ended before its answer was recorded; it may have taken effect",
            )
            self._write(BatchResult(json.loads(key), False, error=error_facts(error), attempts=1))


def open_ledger(
    call: str,
    index: RowIndex,
    out: str,
    bad: Optional[str] = None,
    *,
    resume: Optional[Retry] = None,
    sink: Callable[[str], None] = print,
) -> Ledger:
    """Open and lock the files of a run, and read them where it is resumed.

    Args:
        out: path of the results; ``-`` hands them to ``sink``: such a run has no journal and cannot be resumed.
        bad: path for results that are not ok, or None.
        resume: go on from earlier runs, and which rows to repeat; None begins anew and refuses files that hold something.

    Raises:
        InvalidInput: the paths cannot be used like that.
        HestiaError: a file cannot be used; code ``BATCH_FILE``, or ``BATCH_BUSY`` where another run has it.
    """
    for path in (out, bad):
        if path is not None and (path == "-" and path is bad or not is_regular(path)):
            raise InvalidInput("{} takes no results: name a file".format(path))
    journal_path = "" if out == "-" else os.path.realpath(out) + JOURNAL_SUFFIX
    if out == "-":
        if resume is not None:
            raise InvalidInput("a run that writes to standard output cannot be resumed: name a file")
    elif bad is not None and (are_same(out, bad) or are_same(bad, journal_path)):
        raise InvalidInput("{} and {} must be two files".format(out, bad))
    named = [path for path in ("" if out == "-" else out, bad, journal_path) if path]
    if resume is None:
        _refuse_content(named)
    opened: List[LineFile] = []
    try:
        for path in reversed(named):  # the journal first: its lock guards OUT
            opened.append(_locked(path))
        if resume is None:
            _refuse_content(named)  # once more, now that nobody else can write
        files = {file.path: file for file in opened}
        ledger = Ledger(call, index, files.get(out), files.get(bad or ""), files.get(journal_path), sink)
        if resume is None:
            ledger.begin()
        else:
            ledger.resume(resume)
        return ledger
    except BaseException:
        for file in opened:
            file.close()
        raise


def _locked(path: str) -> LineFile:
    while True:
        file = LineFile(path)
        try:
            file.lock()
            if file.is_still_there():  # else the run that had it has just removed it
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _refuse_content(paths: Sequence[str]) -> None:
    for path in paths:
        if has_content(path):
            raise InvalidInput(
                "{} holds results of an earlier run: go on with --resume, or name a new file".format(path)
            )


def _line(value: Dict[str, Any]) -> bytes:
    """One JSON object on one line; what UTF-8 or JSON cannot hold of a service's answer is escaped, or null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value).encode("ascii") + b"\n"
    except ValueError:  # NaN or infinity
        return _line(_without_nan(value))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, (list, tuple)) else value


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False


def _object_in(line: bytes, path: str, number: int) -> Dict[str, Any]:
    if not _is_object(line):
        raise _no_line_of_ours(path, number)
    value: Dict[str, Any] = json.loads(line.decode("utf-8"))
    return value


def _no_line_of_ours(path: str, number: int) -> HestiaError:
    return HestiaError(
        BATCH_FILE,
        "{} line {} is not of a batch; repair it, or name a new file".format(path, number),
        delivered=False,
    )
