"""record: one line in a log that says who was about to do what, written before it is done."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Mapping, Optional

from ..errors import HestiaError, InvalidInput
from .masking import as_text


def record(path: str, facts: Mapping[str, Any]) -> Optional[HestiaError]:
    """Append a JSON line in one write: time (UTC), user, pid, working folder, and the facts; a new file has mode 0600.

    Returns:
        What is wrong with the log, or None: whoever calls has perhaps something graver to say.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = json.dumps(dict(time=now, user=_user(), pid=os.getpid(), cwd=_folder(), **facts)) + "\n"
    try:
        # not through a link that another user has put there, and no wait for the reader of a FIFO
        is_own_link = os.path.islink(path) and os.lstat(path).st_uid in (0, getattr(os, "getuid", int)())
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        file = os.open(path, flags | (0 if is_own_link else getattr(os, "O_NOFOLLOW", 0)), 0o600)
        try:
            is_whole = os.write(file, line.encode("ascii")) == len(line)
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return InvalidInput("the log {} cannot be written: {}".format(path, why), code="CONFIGURATION")
    if not is_whole:
        return InvalidInput("the log {} took only a part of its line".format(path), code="CONFIGURATION")
    return None


def _user() -> str:
    """Return the user's name as the system has it; a variable would say whatever somebody put into it."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())  # it has no name
    except ImportError:
        return os.environ.get("USERNAME") or "unknown"  # Windows, where a variable is all there is


def _folder() -> Optional[str]:
    """Return the working folder, None where it has been removed."""
    try:
        return as_text(os.getcwd())
    except OSError:
        return None
