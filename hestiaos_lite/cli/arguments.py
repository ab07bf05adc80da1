"""Values that come from somewhere else than the command line itself: standard input, a file, JSON."""

from __future__ import annotations

from typing import Any, Dict, Optional

from .. import _stdio
from .._json import NamedTwice, loads
from ..errors import InvalidInput


def read_stdin(what: str) -> str:
    """Read standard input to its end as UTF-8 (a byte-order mark is dropped); empty or undecodable is InvalidInput."""
    try:
        text = b"".join(_stdio.read_stdin()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput("{} on standard input is not UTF-8: {}".format(what, error)) from error
    if not text.strip():
        raise InvalidInput("{} on standard input is empty".format(what))
    return text


def text_or_stdin(text: str, what: str) -> str:
    """Return the argument, or standard input where it is ``-``; empty is InvalidInput."""
    if text == "-":
        return read_stdin(what)
    if not text.strip():
        raise InvalidInput("{} is empty".format(what))
    return text


def json_object(source: Optional[str], what: str) -> Optional[Dict[str, Any]]:
    """Read a JSON object given as JSON, as ``@file``, or as ``-`` for standard input; None stays None."""
    if source is None:
        return None
    if source == "-":
        source = read_stdin(what)
    elif source.startswith("@"):
        source = _read_file(source[1:], what)
    try:
        value = loads(source)
    except NamedTwice as error:
        raise InvalidInput("{}: {}".format(what, error)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("{} is not JSON: {}".format(what, error)) from error
    if not isinstance(value, dict):
        raise InvalidInput('{} must be a JSON object, like {{"amount": 42}}'.format(what))
    return value


def _read_file(path: str, what: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInput("{}: the file {} cannot be read: {}".format(what, path, error)) from error
