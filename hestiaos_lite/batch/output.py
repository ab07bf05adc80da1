"""OUT and BAD: what people read of a batch, made from its `Store`, and rebuilt where somebody has changed them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import stat
import tempfile
from typing import Any, BinaryIO, Callable, Iterator, List, Optional, Sequence, Tuple

from ..errors import HestiaError
from .input import BatchInput
from .rows import UNKNOWN
from .store import UNSENT, Store

# what a spreadsheet takes for a formula where a cell begins with it
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_OF_RESULT = ("outcome", "result", "trace_id", "request_id", "error")


class JsonLines:
    """Result lines in OUT, or those that are not ok in BAD: appended as rows complete.

    Args:
        out: path of the results; None hands each line to ``sink``.
        bad: path for results that are not ok; None puts them with the others.
        sink: takes one line, without its end.
    """

    def __init__(
        self, out: Optional[str], bad: Optional[str], sink: Callable[[str], Any], ours: Sequence[str] = ()
    ) -> None:
        self._sink = sink
        self._ours = ours
        self._files: List[Tuple[Optional[bool], str, BinaryIO]] = []  # which results it has (`Store.results`)
        self._has_out = out is not None
        self._paths: List[Tuple[Optional[bool], str]] = [] if out is None else [(True if bad else None, out)]
        if bad is not None:
            self._paths.append((False, bad))

    def open(self, store: Store) -> List[str]:
        """Make the files say what the journal says; return what the user should hear of that."""
        notices = []
        for which, path in self._paths:
            length, rest = _common_length(path, store.results(which))
            with contextlib.closing(rest):
                if length is not None:
                    file = _opened(path)
                    self._files.append((which, path, file))
                    for line in rest:
                        _append(path, file, line)
                    continue
            with replaced(path) as anew, contextlib.closing(store.results(which)) as lines:
                anew.writelines(line.encode("utf-8") + b"\n" for line in lines)
            notices.append("{} was rebuilt from the journal".format(path))
            self._files.append((which, path, _opened(path)))
        return notices

    def write(self, ok: bool, line: str) -> None:
        """Append a result."""
        if not self._has_out and (ok or not self._files):
            self._sink(line)
            return
        for which, path, file in self._files:
            if which is None or which is ok:
                _append(path, file, line)

    def check_still_there(self) -> None:
        """Raise where a file was moved or removed: what is written to it would not be found."""
        for _, path, file in self._files:
            try:
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    continue
            except OSError:
                pass
            raise HestiaError(
                "RESULTS",
                "{} was moved or removed during the run; --resume rebuilds it".format(path),
                delivered=False,
            )

    def close(self, store: Store, source: BatchInput) -> None:
        """Have all of it survive a loss of power."""
        for _, path, file in self._files:
            with _trouble(path):
                os.fsync(file.fileno())

    def abandon(self, *, remove: bool) -> None:
        """Close the files, and remove them where there is nothing that anybody may want."""
        for _, path, file in self._files:
            file.close()
            if remove:
                with _trouble(path), contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.realpath(path))
        self._files = []


class Table:
    """OUT as a table: the input's own lines and columns, and what became of each; written at the end of a run, in one step.

    Args:
        out: its path.
        delimiter: where the input is no table; else as the input's.
    """

    def __init__(self, out: str, delimiter: str) -> None:
        self._out = out
        self._delimiter = delimiter

    def open(self, store: Store) -> List[str]:
        """Make sure, before anything is sent, that it can be written."""
        with _trouble(self._out):
            _refuse_link_of_another(self._out)
            with tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(self._out))):
                return []

    def write(self, ok: bool, line: str) -> None:
        """Nothing is written before the end."""

    def check_still_there(self) -> None:
        """Nothing is there yet."""

    def abandon(self, *, remove: bool) -> None:
        """Nothing is open."""

    def close(self, store: Store, source: BatchInput) -> None:
        """Write it; raises InvalidInput where the input is no longer what was checked."""
        with replaced(self._out) as binary, store.reading() as read:
            text = io.TextIOWrapper(
                binary, source.encoding, "backslashreplace", newline="", write_through=True
            )
            delimiter = source.delimiter or self._delimiter
            writer = csv.writer(_Lines(text, source.line_end), delimiter=delimiter)
            writer.writerow([*source.columns, *_OF_RESULT])
            for line in source.lines():
                if isinstance(line.row, str):
                    raise source.has_changed(line.number)
                found = read(line.row)
                if found is None:
                    raise source.has_changed(line.number)
                writer.writerow([*line.cells, *_cells_of(*found)])
            text.detach()


class _Lines:
    """Takes the lines of a csv writer; before 3.13 it quotes a lone CR or LF only where its own lines end in CR LF."""

    def __init__(self, text: io.TextIOWrapper, line_end: str) -> None:
        self._text = text
        self._line_end = line_end

    def write(self, line: str) -> None:
        self._text.write(line[:-2] + self._line_end)


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


def _common_length(path: str, lines: Iterator[str]) -> Tuple[Optional[int], Any]:
    """How much of a file is what these lines begin with, and the lines that follow; None where it holds anything else."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return 0, lines
    except OSError as error:
        raise trouble(path, error) from error
    length = 0
    with file:
        for line in lines:
            expected = line.encode("utf-8") + b"\n"
            found = file.read(len(expected))
            if not found:
                return length, _chained(line, lines)
            if found != expected:
                return None, lines
            length += len(expected)
        return (None if file.read(1) else length), lines


def _chained(line: str, lines: Iterator[str]) -> Iterator[str]:
    try:
        yield line
        yield from lines
    finally:
        lines.close()  # type: ignore[attr-defined]


@contextlib.contextmanager
def replaced(path: str) -> Iterator[BinaryIO]:
    """Write a file beside ``path`` and put it in its place in one step, with owner and mode of what was there."""
    _refuse_link_of_another(path)
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    with _trouble(path):
        fd, draft = tempfile.mkstemp(
            prefix=name + ".", suffix=".rewriting", dir=folder
        )  # 0600, follows no link
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
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), before)
        raise trouble(path, error) from error


def _refuse_link_of_another(path: str) -> None:
    """Refuse a link that is not this user's or root's: it would choose the file that we write to."""
    try:
        found = os.lstat(path)
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode) and hasattr(os, "geteuid") and found.st_uid not in (0, os.geteuid()):
        raise HestiaError("RESULTS", "{} is another user's link".format(path), delivered=False)


def trouble(path: str, error: OSError) -> HestiaError:
    """The error of a result file that cannot be written."""
    reason = error.strerror or str(error)
    message = "{} cannot be written: {}".format(path, reason[:1].lower() + reason[1:])
    return HestiaError("RESULTS", message, delivered=False)


@contextlib.contextmanager
def _trouble(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise trouble(path, error) from error
