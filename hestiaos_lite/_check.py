"""The checks of arguments, one for each kind and with one wording: what cannot be sent is refused before anything is.

Each returns the value it was given, ready for use, or raises `InvalidInput` that names the argument. A secret is never
quoted.
"""

from __future__ import annotations

import math
import os
import re
import stat
import string
from typing import Any, Dict, Mapping, Optional, Tuple, Union
from urllib.parse import quote

from .errors import InvalidInput

# patterns would be compiled at every start
_OF_TOKEN = frozenset("!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters)  # RFC 9110, 5.6.2
_CONTROL = frozenset(map(chr, [*range(32), 127])) - {"\t"}
_LONGEST_SECONDS = 1e8  # three years; a clock or a socket takes no more
_LONGEST_QUOTE = 500


def quoted(value: Any) -> str:
    """Quote a caller's value in a message, however long it is, and whatever comes of its ``repr``."""
    try:
        text = repr(value)
    # a RecursionError, a caller's own error, or of Python 3.11 and later, for a whole number of more than 4,300
    # digits, a ValueError
    except Exception:  # noqa: BLE001
        return "a value of the type {} that cannot be shown".format(type(value).__name__)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."


def named(error: BaseException) -> str:
    """Name an exception that is not ours, with its words, whatever comes of asking for them."""
    try:
        return "{}: {}".format(type(error).__name__, error)
    except Exception:  # noqa: BLE001 - a caller's class, and its __str__
        return "{}, whose words cannot be shown".format(type(error).__name__)


def check_text(name: str, value: Any, *, code: Optional[str] = None) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise InvalidInput("{} must be a string, not {}".format(name, type(value).__name__), code=code)
    return value


def check_optional_text(name: str, value: Any) -> Optional[str]:
    """Return a string or None."""
    return None if value is None else check_text(name, value)


def is_encodable(value: str) -> bool:
    """False for text with a lone surrogate, which JSON can spell and UTF-8 cannot."""
    try:
        str.encode(value, "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_optional_mapping(name: str, value: Any) -> Optional[Dict[str, Any]]:
    """Return a mapping as a dict, or None."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidInput("{} must be a mapping, not {}".format(name, type(value).__name__))
    return dict(value)


def check_segment(name: str, value: Any) -> str:
    """Return one path segment quoted whole, so that ``team/../admin`` stays one."""
    if not check_text(name, value):
        raise InvalidInput("{} must not be empty".format(name))
    if not is_encodable(value):
        raise InvalidInput("{} is not valid text (it has a lone surrogate)".format(name))
    if value in (".", ".."):
        raise InvalidInput("{} must not be {!r}: it cannot be a path segment".format(name, value))
    return quote(value, safe="")


def check_whole_number(
    name: str, value: Any, *, least: int = 0, below: Optional[int] = None, code: Optional[str] = None
) -> int:
    """Return a whole number of ``least`` or more; True and False do not count."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(
            "{} must be a whole number, {} or more, not {}".format(name, least, quoted(value)), code=code
        )
    if below is not None and value >= below:
        raise InvalidInput("{} must be less than {}, not {}".format(name, below, quoted(value)), code=code)
    return value


def check_seconds(
    name: str,
    value: Any,
    *,
    least: Optional[float] = None,
    unit: str = "seconds",
    code: Optional[str] = None,
) -> float:
    """Return a number of seconds as a float: above 0, or at least ``least``. Infinity and NaN would let a call hang."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not (0 < number < _LONGEST_SECONDS if least is None else least <= number < _LONGEST_SECONDS):
        bound = "above 0" if least is None else "of {:g} or more".format(least)
        if number >= _LONGEST_SECONDS:
            bound = "below {:g}".format(_LONGEST_SECONDS)
        raise InvalidInput(
            "{} must be a number of {} {}, not {}".format(name, unit, bound, quoted(value)), code=code
        )
    return float(number)


def check_verify(verify: Any) -> Union[bool, str, None]:
    """Return what decides about TLS certificates: None, True, False, or the path of a CA bundle.

    Anything else that is false, such as 0 or ``""``, would switch the check off without a word.
    """
    if verify is None or isinstance(verify, bool) or isinstance(verify, str) and verify:
        return verify
    path = getattr(verify, "__fspath__", None)
    if path is not None and isinstance(path(), str) and path():
        return str(path())
    raise InvalidInput(
        "verify must be True, False or the path of a CA bundle, not {}".format(quoted(verify)),
        code="CONFIGURATION",
    )


def others(found: os.stat_result) -> Tuple[str, bool]:
    """Say which other user but root a file or folder belongs to, if any, and whether others than its owner may write it.

    Root, too, takes no file of another user's. SQLite run as root gives the -wal and -shm files to the owner of the main
    file (https://www.sqlite.org/src/file/src/os_unix.c, robustFchown), and so, through a hard link that he made there,
    any file of root's.
    """
    if not hasattr(os, "geteuid"):
        return "", False
    owner = "" if found.st_uid in (0, os.geteuid()) else "uid {}".format(found.st_uid)
    return owner, bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def check_headers(headers: Mapping[str, Any]) -> Dict[str, str]:
    """Return headers as a dict; each name is a token of RFC 9110, each value is text that a header can hold."""
    for name, value in headers.items():
        if not isinstance(name, str) or not name or not _OF_TOKEN.issuperset(name):
            raise InvalidInput("{} cannot be the name of a header".format(quoted(name)))
        check_text("the header " + name, value)
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise InvalidInput("the header {} holds a character beyond latin-1".format(name)) from None
        if value != value.strip() or not value or not _CONTROL.isdisjoint(value):
            raise InvalidInput(
                "the header {} is empty, begins or ends with white space, or holds a control character".format(
                    name
                )
            )
    return dict(headers)


# compiled where it is needed: it would cost each start a fifteenth
_OF_HEADER = r"(?!\s)[^\r\n\u0100-\U0010ffff]*\Z"


def check_session_headers(headers: Mapping[Any, Any]) -> None:
    """Refuse a header that the libraries below would refuse, in words that quote its value: it may hold a key."""
    name = _malformed_in(headers)
    if name is not None:
        what = "the session's header {} cannot be sent: it must be latin-1 text, without white space before it or a line break"
        raise InvalidInput(what.format(quoted(name)), code="CONFIGURATION")


def _malformed_in(headers: Mapping[Any, Any]) -> Any:
    for header in headers.items():
        for part in header:
            text = part.decode("latin-1") if isinstance(part, bytes) else part
            # None takes a header away
            if text is not None and not (isinstance(text, str) and re.match(_OF_HEADER, text)):
                return header[0]
    return None
