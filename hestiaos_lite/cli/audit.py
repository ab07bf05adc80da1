"""audit: what of a guarded command may be seen, and the line in a log that says who was about to do what."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Callable, Mapping, Optional, Sequence

from ..errors import HestiaError, InvalidInput

Mask = Callable[[Any], Any]


def mask_of(variables: Sequence[str], quoted: bool = False) -> Mask:
    """Return a function that masks these variables' values in a text, or in all that a JSON value holds.

    The longest value is looked for first. There is no masking by pattern: what is not named is shown.

    Args:
        quoted: a value may also stand in the text as Python quotes it.

    Raises:
        InvalidInput: a variable is not set, or empty.
    """
    secrets = []
    for name in variables:
        if not os.environ.get(name):
            raise InvalidInput("--mask {}: that variable is not set, or empty".format(name))
        secrets.append((as_text(os.environ[name]), "$" + name))
        if quoted:
            secrets.append((repr(os.environ[name])[1:-1], "$" + name))
    secrets.sort(key=lambda secret: -len(secret[0]))

    def in_text(text: str, first: int = 0) -> str:
        if first == len(secrets):
            return text
        secret, name = secrets[first]
        # the others are looked for beside it, never in the name put in its place
        return name.join(in_text(part, first + 1) for part in text.split(secret))

    def masked(value: Any) -> Any:
        if isinstance(value, str):
            return in_text(value)
        if isinstance(value, dict):
            return {in_text(name): masked(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [masked(inner) for inner in value]
        text = json.dumps(value)  # a number may be somebody's PIN
        return value if in_text(text) == text else in_text(text)

    return masked


def as_text(word: str) -> str:
    """Return an argument or variable as text that can be sent: bytes that are not UTF-8 are shown as ``\\xff``."""
    return os.fsencode(word).decode("utf-8", "backslashreplace")


def append_record(path: str, facts: Mapping[str, Any]) -> Optional[HestiaError]:
    """Append a JSON line in one write: time (UTC), user, pid, working folder, and the facts; a new file has mode 0600.

    Returns:
        What is wrong with the log, or None: the caller may have something more serious to report.
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
        return InvalidInput("the log {} took only part of the line".format(path), code="CONFIGURATION")
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
