"""The files of one run, in step: a result is in the journal first (`store`), then in OUT or BAD (`output`)."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple, Union

from ..errors import HestiaError, InvalidInput
from .dispatch import Finished
from .input import MAX_ROW_CHARS, BatchInput
from .output import JsonLines, Table
from .rows import BatchRow
from .store import JOURNAL_SUFFIX, Retry, Store, Terms

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Files:
    """OUT, BAD and the journal of one run over one input.

    Args:
        out: path of the results; ``-`` hands them to ``sink``: such a run has no journal and cannot be resumed.
        bad: path for results that are not ok; None: with the others, or where an earlier run has put them.
        resume: go on from earlier runs, and which rows to repeat; None begins anew and refuses files that hold something.
        sink: takes one result line, without its end.

    Raises:
        InvalidInput: the paths cannot be used like that.
        HestiaError: a file cannot be used; code ``JOURNAL``, ``JOURNAL_BUSY`` (another run has it), ``JOURNAL_DISK``.
    """

    def __init__(
        self,
        source: BatchInput,
        out: str,
        bad: Optional[str],
        *,
        resume: Optional[Retry] = None,
        sink: Callable[[str], Any] = print,
    ) -> None:
        self._source = source
        self._resume = resume
        delimiter = _DELIMITERS.get(os.path.splitext(out)[1].lower())
        journal = None if out == "-" else os.path.realpath(out) + JOURNAL_SUFFIX
        _check_paths(out, bad, journal, resume is not None, delimiter is not None)
        named = [path for path in (journal, None if out == "-" else out, bad) if path]
        if resume is None:
            _refuse_content(named)
        elif journal and not _has_content(journal) and _has_content(out):
            raise HestiaError(
                "JOURNAL",
                "{} is missing, so nobody can know which rows were sent besides those that {} has results for: put it back".format(
                    journal, out
                ),
                delivered=False,
            )
        self.notices: List[str] = []
        self._done: List[Finished] = []  # not yet recorded
        self._rejected: List[Any] = []  # likewise
        if resume is not None and journal and not _has_content(journal):
            self.notices.append(
                "there was nothing to resume: {} does not exist, so every row is sent".format(journal)
            )
        self.store = Store(journal)
        try:
            folder = os.path.dirname(journal or "")
            before = self.store.bad()
            if before is not None and bad is None:
                bad = os.path.join(folder, os.fsdecode(before))
                self.notices.append(
                    "results that are not ok still go to {}; --failed names another file".format(bad)
                )
            self._bad = (
                None if bad is None else os.fsencode(os.path.relpath(os.path.realpath(bad), folder or "."))
            )
            if bad is not None and self._bad != before:
                _refuse_content_of_others(bad)
            self._output: Union[JsonLines, Table] = (
                Table(out, delimiter) if delimiter else JsonLines(None if out == "-" else out, bad, sink)
            )
        except BaseException:
            self.store.close()
            raise

    def begin(self, call: str, service: str, *, moved: bool = False) -> Tuple[int, List[str]]:
        """Take in the input (`Store.begin`) and make OUT and BAD say what the journal says."""
        try:
            terms = Terms(call, service, self._bad)
            found = self.store.begin(terms, self._source, retry=self._resume or Retry(), moved=moved)
            if not found[0]:
                anew = self._output.open(self.store)
                self.notices += [*self.store.notices, *([] if any(self._resume or ()) else anew)]
        except BaseException:
            self._close()
            raise
        if found[0]:
            self._close()
        return found

    def before_send(self, rows: Sequence[BatchRow]) -> None:
        """Record what is done, and that these rows are about to be sent: in one step, since each waits for the disk."""
        if rows:
            try:
                self._output.check_still_there()
            except HestiaError:
                self.before_send([])
                raise
        if rows or self._done or self._rejected:
            done = [one.result for one in self._done if not one.unsent]
            unsent = [one.result.id for one in self._done if one.unsent]
            lines = self.store.record(done, unsent + self._rejected, rows)
            self._done, self._rejected = [], []
            for result, line in zip(done, lines):
                self._output.write(result.ok, line)

    def rejected(self, row: BatchRow) -> None:
        """Note that a row was certainly not executed: `before_send` records it."""
        self._rejected.append(row.id)

    def unsent(self) -> Iterator[BatchRow]:
        """The rows to send."""
        return self.store.unsent(self._source)

    def finish(self, finished: Sequence[Finished]) -> None:
        """Note results: `before_send` records them, which follows at once."""
        self._done.extend(finished)

    def close(self) -> None:
        """Finish OUT and BAD; a run that has left no result and no doubt removes its files."""
        try:
            self.before_send([])
            if not self.store.has_left_nothing:
                self._output.check_still_there()
                self._output.close(self.store, self._source)
        finally:
            self._close()

    def _close(self) -> None:
        remove = False
        try:
            remove = self.store.has_left_nothing
        finally:
            self._output.abandon(remove=remove)
            self.store.close(remove=remove)


def _check_paths(
    out: str, bad: Optional[str], journal: Optional[str], is_resumed: bool, is_table: bool
) -> None:
    for path in (out, bad):
        if path is not None and (path == "-" and path is bad or not _is_regular(path)):
            raise InvalidInput("{} cannot hold results: give a file".format(path))
    if bad is not None and is_table:
        raise InvalidInput("{} is a table with a line for every row: leave out --failed".format(out))
    if journal is None:
        if is_resumed:
            raise InvalidInput("a run that writes to standard output cannot be resumed: give a file")
    elif bad is not None and (are_same(out, bad) or are_same(bad, journal)):
        raise InvalidInput("{} and {} must be different files".format(out, bad))


def _is_regular(path: str) -> bool:
    """True for a regular file, for a name that is free, and for ``-``; False for a folder, a pipe, a device."""
    return not os.path.exists(path) or os.path.isfile(path)


def are_same(first: str, second: str) -> bool:
    """True when two paths lead to one file."""
    return os.path.realpath(first) == os.path.realpath(second) or (
        os.path.exists(first) and os.path.exists(second) and os.path.samefile(first, second)
    )


def _has_content(path: str) -> bool:
    """True when the file exists and is not empty."""
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


def _refuse_content_of_others(path: str) -> None:
    """Refuse a file that does not begin with a result: it was named by mistake, and would be overwritten."""
    if _has_content(path):
        with open(path, "rb") as file:
            line = file.readline(MAX_ROW_CHARS)
        if not (line.startswith(b'{"id": ') and b', "ok": ' in line):
            raise InvalidInput("{} holds something else: give another file".format(path))


def _refuse_content(paths: Sequence[str]) -> None:
    for path in paths:
        if _has_content(path):
            raise InvalidInput(
                "{} holds results of an earlier run: continue with --resume; only another input needs another file".format(
                    path
                )
            )
