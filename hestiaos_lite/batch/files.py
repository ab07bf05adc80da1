"""Files of whole lines: appended in one piece, repaired after a crash, rewritten without a moment of half a file."""

from __future__ import annotations

import os
import stat
from typing import Any, Callable, Iterator, List, Tuple

from ..errors import HestiaError

BATCH_FILE = "BATCH_FILE"  # the code of an error about one of the batch's own files
BATCH_BUSY = "BATCH_BUSY"  # another run has it
_READ_BYTES = 1024 * 1024


def trouble(path: str, doing: str, error: OSError) -> HestiaError:
    """The error of a file that cannot be read or written."""
    reason = error.strerror or str(error)
    message = "{} cannot be {}: {}".format(path, doing, reason[:1].lower() + reason[1:])
    return HestiaError(BATCH_FILE, message, delivered=False)


class LineFile:
    """An append-only file of lines.

    A line is written by one ``write`` call on a descriptor that appends, so after a crash at most the last line is half;
    what cannot be written whole is taken back. Made when missing; its folder must exist. Every failure is a HestiaError
    naming the path.

    Args:
        path: a regular file, or a name that is free. A link is followed, so that rewriting keeps it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._real = os.path.realpath(path)
        self._fd = -1
        self._unsynced = False
        self._locked = False
        is_new = not os.path.exists(self._real)
        self._open()
        if is_new:
            self._sync_folder()

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return os.fstat(self._fd).st_size

    def lock(self) -> None:
        """Keep every other run from the file until it is closed, or this process ends in whatever way."""
        try:
            _lock(self._fd)
        except OSError as error:
            raise HestiaError(
                BATCH_BUSY,
                "{} is in use by another run; wait for it to end, or name another file".format(self.path),
                delivered=False,
            ) from error
        self._locked = True

    def is_still_there(self) -> bool:
        """False when the path no longer leads to the file that was opened."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._real))
        except OSError:
            return False

    def append(self, data: bytes) -> None:
        """Append whole lines; all of them, or none."""
        before = self.size
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:] if written else data)
        except OSError as error:
            try:
                os.ftruncate(self._fd, before)
            except OSError:
                pass  # the half line is repaired when the batch is resumed
            raise trouble(self.path, "written", error) from error
        self._unsynced = True

    def sync(self) -> None:
        """Have what was appended survive a loss of power."""
        if self._unsynced:
            self._unsynced = False
            try:
                getattr(os, "fdatasync", os.fsync)(self._fd)
            except OSError as error:
                raise trouble(self.path, "written", error) from error

    def lines(self) -> Iterator[bytes]:
        """Read the whole lines, each without its end."""
        with open(self._real, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]

    def repair(self, is_whole: Callable[[bytes], bool]) -> int:
        """Mend a last line without its end: end it if ``is_whole`` says that nothing else is missing, else cut it off.

        Returns:
            How many bytes were cut off.
        """
        tail = self._tail()
        if not tail:
            return 0
        if is_whole(tail):
            self.append(b"\n")
            return 0
        try:
            os.ftruncate(self._fd, self.size - len(tail))
        except OSError as error:
            raise trouble(self.path, "repaired", error) from error
        self._unsynced = True
        return len(tail)

    def keep_lines(self, keep: Callable[[bytes], bool]) -> None:
        """Rewrite the file with the lines for which ``keep`` is true: beside it, then put in its place in one step."""
        draft = self._real + ".rewriting"
        try:
            with open(draft, "wb") as file:
                os.chmod(draft, stat.S_IMODE(os.fstat(self._fd).st_mode))
                for line in self.lines():
                    if keep(line):
                        file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._real)
        except OSError as error:
            raise trouble(self.path, "rewritten", error) from error
        self._sync_folder()
        os.close(self._fd)
        self._open()
        if self._locked:
            self.lock()

    def remove(self) -> None:
        """Remove the file."""
        try:
            os.unlink(self._real)
        except OSError as error:
            raise trouble(self.path, "removed", error) from error

    def close(self) -> None:
        """Close it, which unlocks it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        try:
            self._fd = os.open(
                self._real, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666
            )
        except OSError as error:
            raise trouble(self.path, "opened", error) from error

    def _tail(self) -> bytes:
        """What follows the last end of a line."""
        size = self.size
        pieces: List[bytes] = []
        with open(self._real, "rb") as file:
            while size:
                start = max(0, size - _READ_BYTES)
                file.seek(start)
                piece = file.read(size - start)
                pieces.insert(0, piece[piece.rfind(b"\n") + 1 :])
                if b"\n" in piece:
                    break
                size = start
        return b"".join(pieces)

    def _sync_folder(self) -> None:
        """Have a new name in the folder survive a loss of power, where folders can be synced."""
        try:
            fd = os.open(os.path.dirname(self._real) or ".", os.O_RDONLY)
        except OSError:
            return  # Windows does not open folders
        try:
            os.fsync(fd)
        except OSError:
            pass  # some network file systems do not sync folders
        finally:
            os.close(fd)


def is_regular(path: str) -> bool:
    """True for a regular file, for a name that is free, and for ``-``; False for a folder, a pipe, a device."""
    return not os.path.exists(path) or os.path.isfile(path)


def are_same(first: str, second: str) -> bool:
    """True when two paths lead to one file."""
    return os.path.realpath(first) == os.path.realpath(second) or (
        os.path.exists(first) and os.path.exists(second) and os.path.samefile(first, second)
    )


def has_content(path: str) -> bool:
    """True when the file exists and is not empty."""
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


def _lockers() -> Tuple[Any, Any]:
    try:
        import fcntl

        return fcntl, None
    except ImportError:  # Windows
        import msvcrt

        return None, msvcrt


def _lock(fd: int) -> None:
    unix, windows = _lockers()
    if unix is not None:
        unix.flock(fd, unix.LOCK_EX | unix.LOCK_NB)
    else:
        os.lseek(fd, 2**30, os.SEEK_SET)  # a byte beyond the content: a locked one cannot be read there
        windows.locking(fd, windows.LK_NBLCK, 1)
