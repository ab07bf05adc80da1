"""The files of one run: a result is in the journal first (`store`), then in OUT or BAD, which people read.

OUT and BAD are made from the journal, and rebuilt where somebody has changed them. As JSON lines they grow as rows complete;
a table is written at the end of a run, in one step: the input's own lines and columns, and what became of each.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import stat
import tempfile
from typing import Any, BinaryIO, Callable, Deque, Iterator, List, Optional, Sequence, Tuple

from ..errors import HestiaError, InvalidInput
from .input import MAX_ROW_CHARS, BatchInput
from .rows import UNKNOWN, BatchResult, BatchRow, Sending
from .store import UNSENT, Store

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one where a cell begins with it
_OF_RESULT = ("outcome", "result", "trace_id", "request_id", "error")


class Files:
    """OUT, BAD and the journal of one run over one input, which is taken in (`Store.begin`).

    Args:
        out: path of the results; ``-`` hands them to ``sink``: such a run has no journal and cannot be resumed.
        bad: path for results that are not ok; None: with the others, or where an earlier run has put them.
        call: what the rows are given to.
        service: the base URL they are sent to.
        resume: go on from earlier runs, and the states of rows to repeat; None begins anew and refuses files that hold
            something.
        moved: the service is another than before, and has what was sent to that.
        sink: takes one result line, without its end.

    Raises:
        InvalidInput: the paths cannot be used like that.
        HestiaError: a file cannot be used; code ``RESULTS``, ``JOURNAL``, ``JOURNAL_BUSY`` (another run has it),
            ``JOURNAL_DISK``.
        FaultyInput, OSError: the input cannot be sent, or read.
    """

    def __init__(
        self,
        source: BatchInput,
        out: str,
        bad: Optional[str],
        *,
        call: str,
        service: str,
        resume: Optional[Sequence[str]],
        moved: bool,
        sink: Callable[[str], Any],
    ) -> None:
        self._source = source
        self._out = None if out == "-" else out
        self._delimiter = _DELIMITERS.get(os.path.splitext(out)[1].lower())  # None: OUT is no table
        self._sink = sink
        self._files: List[Tuple[Optional[bool], str, BinaryIO]] = []  # which results it has (`Store.results`)
        journal = None if out == "-" else os.path.realpath(out) + ".journal"
        _check_paths(out, bad, journal, resume is not None, self._delimiter is not None)
        for path in (journal, self._out, bad) if resume is None else ():
            if path and _has_content(path):
                what = "{} holds results of an earlier run: continue with --resume; only another input needs another file"
                raise InvalidInput(what.format(path))
        is_new = journal is None or not _has_content(journal)
        if is_new and self._out and _has_content(self._out):
            what = "{} is missing, so nobody can know which rows were sent besides those that {} has results for: put it back"
            raise HestiaError("JOURNAL", what.format(journal, out), delivered=False)
        self.store = Store(journal)
        if is_new and resume is not None:
            what = "there was nothing to resume: {} does not exist, so every row is sent"
            self.store.notices.append(what.format(journal))
        try:
            bad, in_folder = self._choose_bad(bad, os.path.dirname(journal or ""))
            self.store.begin(call, source, service, in_folder, repeat=resume or (), moved=moved)
            self._open(bad, is_told=not resume)
        except BaseException:
            self.close(complete=False)
            raise

    def _choose_bad(self, bad: Optional[str], folder: str) -> Tuple[Optional[str], Optional[bytes]]:
        """Where BAD is, and the same as seen from the journal's folder."""
        before = self.store.bad()
        if bad is None:
            if before is None:
                return None, None
            bad = os.path.join(folder, os.fsdecode(before))
            what = "results that are not ok still go to {}; --failed names another file"
            self.store.notices.append(what.format(bad))
        in_folder = os.fsencode(os.path.relpath(os.path.realpath(bad), folder or "."))
        if in_folder != before:
            _refuse_content_of_others(bad)
        return bad, in_folder

    def _open(self, bad: Optional[str], *, is_told: bool) -> None:
        """Make OUT and BAD say what the journal says."""
        if self._out and self._delimiter:
            with _trouble(self._out):  # that it can be written is to be sure before anything is sent
                _refuse_link_of_another(self._out)
                tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(self._out))).close()
        out = None if self._delimiter else self._out
        for which, path in ((True if bad else None, out), (False, bad)):
            if path is None:
                continue
            with contextlib.closing(self.store.results(which)) as lines:
                missing = _missing(path, lines)
                if missing is not None:
                    file = _opened(path)
                    self._files.append((which, path, file))
                    for line in missing:
                        _append(path, file, line)
                    continue
            with _replaced(path) as anew, contextlib.closing(self.store.results(which)) as lines:
                anew.writelines(line.encode("utf-8") + b"\n" for line in lines)
            self._files.append((which, path, _opened(path)))
            if is_told:
                self.store.notices.append("{} was rebuilt from the journal".format(path))

    # -- while it goes on

    def record(
        self, results: Deque[BatchResult], not_executed: List[BatchRow], sending: Sequence[Sending]
    ) -> None:
        """Record what is done, and that rows are about to be sent: in one step, since each waits for the disk."""
        done = list(results)
        lines = self.store.record(done, [row.id for row in not_executed], sending)
        results.clear()
        not_executed.clear()
        for result, line in zip(done, lines):
            if self._out is None and (result.ok or not self._files):
                self._sink(line)
            for which, path, file in self._files:
                if which is None or which is result.ok:
                    _append(path, file, line)
        if sending:
            self._check_still_there()

    def _check_still_there(self) -> None:
        """Raise where a file was moved or removed: what is written to it would not be found."""
        for _, path, file in self._files:
            with _trouble(path):
                if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    continue
            what = "{} was moved or removed during the run; --resume rebuilds it".format(path)
            raise HestiaError("RESULTS", what, delivered=False)

    # -- the end

    def close(self, *, complete: bool = True) -> None:
        """Finish OUT and BAD, on the disk; a run that has left no result and no doubt removes its files.

        Args:
            complete: False where the run could not begin: OUT and BAD stay as they are.
        """
        remove = False
        try:
            remove = self.store.has_left_nothing
            if complete and not remove:
                self._check_still_there()
                if self._out and self._delimiter:
                    self._write_table(self._out, self._delimiter)
                for _, path, file in self._files:
                    with _trouble(path):
                        os.fsync(file.fileno())
        finally:
            for _, path, file in self._files:
                file.close()
                if remove:
                    with _trouble(path), contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.realpath(path))
            self.store.close(remove=remove)

    def _write_table(self, out: str, delimiter: str) -> None:
        """Raises InvalidInput where the input is no longer what was checked."""
        source = self._source
        with _replaced(out) as binary, self.store.reading() as read:
            text = io.TextIOWrapper(
                binary, source.encoding, "backslashreplace", newline="", write_through=True
            )
            writer = csv.writer(_Lines(text, source.line_end), delimiter=source.delimiter or delimiter)
            writer.writerow([*source.columns, *_OF_RESULT])
            for line in source.lines():
                row, state, result = read(line)
                cells = line.cells or map(_cell, (row.id, *map(row.arguments.get, source.columns[1:])))
                writer.writerow([*cells, *_cells_of(state, result)])


class _Lines:
    """Takes the lines of a csv writer; before 3.13 it quotes a lone CR or LF only where its own lines end in CR LF."""

    def __init__(self, text: io.TextIOWrapper, line_end: str) -> None:
        self._text = text
        self._line_end = line_end

    def write(self, line: str) -> None:
        self._text.write(line[:-2] + self._line_end)


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _cells_of(state: str, line: Optional[str]) -> List[str]:
    if line is None:
        return ["" if state == UNSENT else UNKNOWN, *[""] * (len(_OF_RESULT) - 1)]
    result = json.loads(line)
    response, error = result.get("response") or {}, result.get("error") or {}
    answer = next(
        (response[name] for name in ("output", "response", "result") if response.get(name) is not None), ""
    )
    facts = (
        answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False),
        response.get("trace_id") or error.get("trace_id") or "",
        result.get("request_id") or "",
        "[{}] {}".format(error.get("code"), error.get("message")) if error else "",
    )
    return [state, *("'" + text if text.startswith(_FORMULA) else text for text in map(str, facts))]


# -- which paths may be used


def _check_paths(
    out: str, bad: Optional[str], journal: Optional[str], is_resumed: bool, is_table: bool
) -> None:
    for path in (out, bad):  # a folder, a pipe or a device will not do
        if path is not None and (
            path == "-" and path is bad or os.path.exists(path) and not os.path.isfile(path)
        ):
            raise InvalidInput("{} cannot hold results: give a file".format(path))
    if bad is not None and is_table:
        raise InvalidInput("{} is a table with a line for every row: leave out --failed".format(out))
    if journal is None:
        if is_resumed:
            raise InvalidInput("a run that writes to standard output cannot be resumed: give a file")
    elif bad is not None and (are_same(out, bad) or are_same(bad, journal)):
        raise InvalidInput("{} and {} must be different files".format(out, bad))


def are_same(first: str, second: str) -> bool:
    """True when two paths lead to one file."""
    return os.path.realpath(first) == os.path.realpath(second) or (
        os.path.exists(first) and os.path.exists(second) and os.path.samefile(first, second)
    )


def _has_content(path: str) -> bool:
    """True when the file exists and is not empty."""
    return os.path.exists(path) and os.path.getsize(path) > 0


def _refuse_content_of_others(path: str) -> None:
    """Refuse a file that does not begin with a result: it was named by mistake, and would be overwritten."""
    if _has_content(path):
        with _trouble(path), open(path, "rb") as file:
            line = file.readline(MAX_ROW_CHARS)
        if not (line.startswith(b'{"id": ') and b', "ok": ' in line):
            raise InvalidInput("{} holds something else: give another file".format(path))


def _refuse_link_of_another(path: str) -> None:
    """Refuse a link that is not this user's or root's: it would choose the file that we write to."""
    if hasattr(os, "geteuid") and os.path.islink(path) and os.lstat(path).st_uid not in (0, os.geteuid()):
        raise HestiaError("RESULTS", "{} is another user's link".format(path), delivered=False)


# -- writing


def _missing(path: str, lines: Iterator[str]) -> Optional[Iterator[str]]:
    """Which of these lines a file has yet to get; None where it holds anything else than what they begin with."""
    if not os.path.exists(path):
        return lines
    with _trouble(path), open(path, "rb") as file:
        for line in lines:
            expected = line.encode("utf-8") + b"\n"
            found = file.read(len(expected))
            if found != expected:
                return None if found else itertools.chain([line], lines)
        return None if file.read(1) else lines


@contextlib.contextmanager
def _replaced(path: str) -> Iterator[BinaryIO]:
    """Write a file beside ``path`` and put it in its place in one step, with owner and mode of what was there."""
    _refuse_link_of_another(path)
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    with _trouble(path):
        # 0600, follows no link
        fd, draft = tempfile.mkstemp(prefix=name + ".", suffix=".rewriting", dir=folder)
        try:
            with open(fd, "wb") as file:
                _keep_owner(fd, real)
                yield file
                file.flush()
                os.fsync(fd)
            os.replace(draft, real)
        except BaseException:
            os.unlink(draft)
            raise


def _keep_owner(fd: int, path: str) -> None:
    if not hasattr(os, "fchmod") or not os.path.exists(path):
        return
    before, now = os.stat(path), os.fstat(fd)
    if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
        os.fchown(fd, before.st_uid, before.st_gid)
    os.fchmod(fd, stat.S_IMODE(before.st_mode))


def _opened(path: str) -> BinaryIO:
    """Open a file to append to it, or make it: a new one is this user's alone, and no link planted in between is followed."""
    _refuse_link_of_another(path)
    real = os.path.realpath(path)
    flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    with _trouble(path):
        try:
            fd = os.open(real, flags)
        except FileNotFoundError:
            fd = os.open(real, flags | os.O_CREAT | os.O_EXCL, 0o600)
        return open(fd, "ab", buffering=0)


def _append(path: str, file: BinaryIO, line: str) -> None:
    """Append one line whole; what cannot be is taken back, as far as that can be done."""
    left = memoryview(line.encode("utf-8") + b"\n")
    before = os.fstat(file.fileno()).st_size
    with _trouble(path):
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), before)
            raise


@contextlib.contextmanager
def _trouble(path: str) -> Iterator[None]:
    """Within the block an OSError is said as the one of a result file that cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        message = "{} cannot be written: {}".format(path, reason[:1].lower() + reason[1:])
        raise HestiaError("RESULTS", message, delivered=False) from error
