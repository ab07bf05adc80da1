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
from typing import Any, Callable, Collection, Dict, Iterator, List, NamedTuple, Optional, Sequence

from .._json import dumps
from ..errors import HestiaError, InvalidInput
from .dispatch import Settled
from .files import BATCH_FILE, LineFile, are_same, has_content, is_regular
from .index import SENT, UNSENT, RowIndex
from .results import AGAIN, OK, REFUSED, UNKNOWN, BatchResult, error_facts, outcome_of
from .rows import BatchRow, id_key, is_row_id

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
        self._files = [file for file in (out, bad, journal) if file is not None]
        self._line = 0  # the one that is being read
        self._damage: Dict[str, List[int]] = {}  # path -> the lengths of its damaged lines
        self._strangers = 0  # rows in the journal that are not of this input
        self.notices: List[str] = []  # what the user should hear of resuming

    # -- while the run goes on

    def before_send(self, rows: Sequence[BatchRow]) -> None:
        """Record that these rows are about to be sent; returns when that is on the disk."""
        self._check_still_there()
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
        try:
            self.sync()
            self._check_still_there()
            if self._journal is not None and self._has_left_nothing():
                for file in self._files:
                    file.remove()
        finally:
            for file in self._files:
                file.close()

    def _check_still_there(self) -> None:
        for file in self._files:
            file.check_still_there()

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
        """Read what earlier runs have done into the index, then mend the files and make the rows to be repeated unsent.

        Whatever a loss of power has left can be resumed: a line that is no JSON object costs its own row, which is in doubt
        by the journal; in the journal it can only be of rows that were never sent, since what was sent is on the disk.

        Raises:
            HestiaError: a file is not what a run has left. Nothing was changed.
            InvalidInput: the input is no longer what was sent. Nothing was changed.
        """
        if self._journal is None or self._out is None:
            raise InvalidInput("only a run whose results go to a file can be resumed")
        results = [file for file in (self._out, self._bad) if file is not None]
        for file in results:
            if file.size and not self._journal.size:
                raise HestiaError(
                    BATCH_FILE,
                    "{} is missing, so nobody can know what was sent beside the rows that {} has results of: put it"
                    " back".format(self._journal.path, file.path),
                    delivered=False,
                )
        for entry in self._entries(self._journal):
            self._read_journal(entry)
        for file in results:
            for entry in self._entries(file):
                self._read_result(entry, file)
        repeated = {AGAIN, REFUSED} if retry.failed else set()
        in_doubt = {UNKNOWN, SENT} if retry.unknown else set()
        self._refuse_changed_rows(repeated | in_doubt)

        self._rewrite(self._journal, _is_object)
        self.begin()
        for state in sorted(repeated):
            # first taken back in the journal, then removed from the results: interrupted between, it is still finished
            for key in self._index.in_state(state):
                self._journal.append(b'{"unsent": ' + key.encode("ascii") + b"}\n")
        self._journal.sync()
        for state in repeated | in_doubt:
            self._index.reopen(state)
        for file in results:
            self._rewrite(file, self._stays)
        if self._strangers:
            self.notices.append(
                "{}: {} rows of it are not of this input".format(self._journal.path, self._strangers)
            )
        self._report_doubts()

    def _entries(self, file: LineFile) -> Iterator[Dict[str, Any]]:
        """Read the objects of a file, leaving out lines that are damaged."""
        for self._line, line in enumerate(file.lines(), 1):
            entry = _object_in(line)
            if entry is not None:
                yield entry
            else:
                self._damage.setdefault(file.path, []).append(len(line))

    def _read_journal(self, entry: Dict[str, Any]) -> None:
        assert self._journal is not None  # noqa: S101 - resume has seen to it
        if is_row_id(entry.get("sent")):
            self._strangers += not self._index.mark_sent(id_key(entry["sent"]), str(entry.get("row")))
        elif is_row_id(entry.get("unsent")):
            self._index.mark_sent(id_key(entry["unsent"]), None)
        elif entry.get("journal") != _VERSION:
            raise self._no_line_of_ours(self._journal)

    def _read_result(self, entry: Dict[str, Any], file: LineFile) -> None:
        if not is_row_id(entry.get("id")) or "ok" not in entry:
            raise self._no_line_of_ours(file)
        key = id_key(entry["id"])
        earlier = self._index.place(key)
        if earlier is not None:
            raise HestiaError(
                BATCH_FILE,
                "{} line {}: the id {} has a result in {} already".format(
                    file.path, self._line, key, earlier
                ),
                delivered=False,
            )
        self._index.mark(key, OK if entry["ok"] is True else outcome_of(entry.get("error") or {}), file.path)

    def _no_line_of_ours(self, file: LineFile) -> HestiaError:
        message = "{} line {} is not of a batch: is it the right file?".format(file.path, self._line)
        return HestiaError(BATCH_FILE, message, delivered=False)

    def _stays(self, line: bytes) -> bool:
        entry = _object_in(line)
        return entry is not None and self._index.state(id_key(entry["id"])) != UNSENT

    def _rewrite(self, file: LineFile, keep: Callable[[bytes], bool]) -> None:
        """Leave in the file only what is to be kept, and say what of it was damaged."""
        damage = self._damage.get(file.path)
        if damage:
            self.notices.append(
                "{}: {} damaged lines ({} bytes), left by a crash, were cut out".format(
                    file.path, len(damage), sum(damage)
                )
            )
        if not file.ends_in_a_line() or not all(map(keep, file.lines())):
            file.keep_lines(keep)

    def _refuse_changed_rows(self, sent_anew: Collection[str]) -> None:
        changed = self._index.changed(sent_anew, limit=20)
        if changed:
            shown = ", ".join("line {} (id {})".format(row.line, row.key) for row in changed)
            raise InvalidInput(
                "the input is no longer what was sent: {}; put it back as it was, and give a row that is to be sent in its"
                " new form an id of its own".format(shown),
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
                "{} holds results of an earlier run: go on with --resume; only another input needs another file".format(
                    path
                )
            )


def _line(value: Dict[str, Any]) -> bytes:
    """One JSON object on one line; what UTF-8 or JSON cannot hold of a service's answer is escaped, or null."""
    try:
        return dumps(value).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return dumps(value, ascii=True).encode("ascii") + b"\n"


def _object_in(line: bytes) -> Optional[Dict[str, Any]]:
    """The JSON object that a line is, or None."""
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_object(line: bytes) -> bool:
    return _object_in(line) is not None
