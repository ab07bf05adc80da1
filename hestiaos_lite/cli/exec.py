"""exec: put a command in this process's place, with nothing of Python's left on it."""

from __future__ import annotations

import os
import signal
import sys
from typing import List

_COERCED = "LC_CTYPE"
_IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")  # and what is ignored stays so beyond an exec


def exec_command(argv: List[str]) -> int:
    """Replace this process by a command; where exec does not replace, run it, wait, and return its exit code.

    Raises:
        OSError: it cannot be started; FileNotFoundError: there is none of that name.
    """
    numbers = [getattr(signal, name) for name in _IGNORED_BY_PYTHON if hasattr(signal, name)]
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    _undo_locale_coercion()
    try:
        if os.name == "posix":
            os.execv(_find(argv[0]), argv)  # noqa: S606 - without a shell, as it should be
        import subprocess  # Windows: exec starts another process there, and a process that waits for this one goes on

        return subprocess.call(argv)  # noqa: S603 - the very command that was asked for
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def _find(name: str) -> str:
    """Return the path of a command as a shell finds it.

    os.execvp reports the first obstacle it met on PATH, be it a folder that may not be entered, for what ended its search.
    """
    if "/" in name:
        return name
    paths = [os.path.join(folder, name) for folder in os.get_exec_path() if name]
    found = [path for path in paths if os.path.isfile(path)]
    if not found:
        raise FileNotFoundError(name)
    return next((path for path in found if os.access(path, os.X_OK)), found[0])


def _undo_locale_coercion() -> None:
    """Put back the LC_CTYPE that Python replaces in its environment where the locale is C, as it is under cron (PEP 538)."""
    if _COERCED not in os.environ or not sys.platform.startswith("linux"):
        return
    try:
        with open("/proc/self/environ", "rb") as file:  # what this process was started with
            given = dict(setting.partition(b"=")[::2] for setting in file.read().split(b"\0"))
    except OSError:
        return  # no /proc: it stays
    del os.environ[_COERCED]
    if _COERCED.encode() in given:
        os.environ[_COERCED] = os.fsdecode(given[_COERCED.encode()])
