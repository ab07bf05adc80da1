"""Files of whole lines: appended in one piece, repaired after a crash, rewritten without a moment of half a file."""

from __future__ import annotations

import os
import stat
import tempfile
from typing import Any, Callable, Iterator, Tuple

from ..errors import HestiaError

BATCH_FILE = "BATCH_FILE"  # the code of an error about one of the batch's own files
BATCH_BUSY = "BATCH_BUSY"  # another run has it


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
        path: a regular file, or a name that is free. This user's own link is followed, so that rewriting keeps it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        _refuse_link_of_another(path)
        self._real = os.path.realpath(path)
        self._fd = -1
        self._unsynced = False
        self._locked = False
        self._open()

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

    def check_still_there(self) -> None:
        """Raise when the file was moved, or its folder removed: what is written to it would not be found."""
        if not self.is_still_there():
            raise HestiaError(
                BATCH_FILE,
                "{} was moved or removed during the run; put it back before you resume".format(self.path),
                delivered=False,
            )

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
                pass  # the half line is cut out when the batch is resumed
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
        """Read the lines, each without its end; the last one may lack its end, after a crash."""
        with open(self._real, "rb") as file:
            for line in file:
                yield line[:-1] if line.endswith(b"\n") else line

    def ends_in_a_line(self) -> bool:
        """True when nothing follows the last end of a line."""
        with open(self._real, "rb") as file:
            if not self.size:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def keep_lines(self, keep: Callable[[bytes], bool]) -> None:
        """Rewrite the file with the lines for which ``keep`` is true: beside it, then put in its place in one step."""
        folder, name = os.path.split(self._real)
        try:
            fd, draft = tempfile.mkstemp(
                prefix=name + ".", suffix=".rewriting", dir=folder
            )  # 0600, follows no link
            try:
                with open(fd, "wb") as file:
                    if hasattr(os, "fchmod"):
                        os.fchmod(fd, stat.S_IMODE(os.fstat(self._fd).st_mode))
                    file.writelines(line + b"\n" for line in self.lines() if keep(line))
                    file.flush()
                    os.fsync(fd)
                os.replace(draft, self._real)
            except BaseException:
                os.unlink(draft)
                raise
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
        """Open it, or make it: a new one is this user's alone, and no link planted in between is followed."""
        flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            try:
                self._fd = os.open(self._real, flags)
            except FileNotFoundError:
                self._fd = os.open(self._real, flags | os.O_CREAT | os.O_EXCL, 0o600)
                self._sync_folder()
        except OSError as error:
            raise trouble(self.path, "opened", error) from error

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


def _refuse_link_of_another(path: str) -> None:
    """Refuse a link that is not this user's or root's: it would choose the file that we write to."""
    try:
        found = os.lstat(path)
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode) and hasattr(os, "geteuid") and found.st_uid not in (0, os.geteuid()):
        raise HestiaError(BATCH_FILE, "{} is a link of another user's".format(path), delivered=False)


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
