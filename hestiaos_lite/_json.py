"""JSON both ways: read so that nothing is said twice, written so that it is JSON whatever it is made of."""

from __future__ import annotations

import json
import math
from typing import Any, Dict, Iterator, List, Optional, Tuple


class NamedTwice(ValueError):
    """An object names a field twice: which of the two counts, nobody can say (RFC 8259, 4)."""


def _once(fields: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(fields)
    if len(found) != len(fields):
        names = [name for name, _ in fields]
        raise NamedTwice(
            "an object names {!r} twice".format(next(name for name in names if names.count(name) > 1))
        )
    return found


_decode = json.JSONDecoder(object_pairs_hook=_once).decode


def loads(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        NamedTwice: an object names a field twice.
        ValueError, RecursionError: it is not JSON, or nested deeper than Python reads.
    """
    return _decode(text)


def dumps(value: Any, *, indent: Optional[int] = None, ascii: bool = False) -> str:
    """Return ``value`` as JSON; NaN and the infinities, which a service's answer may hold, are null."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ascii, allow_nan=False)
    except (
        ValueError,
        RecursionError,
    ):  # json's writer goes less deep than its reader, where the stack is deeper
        return "".join(_pieces(value, ascii))


def _pieces(value: Any, ascii: bool) -> Iterator[str]:
    """Yield the text of ``value`` in pieces, on one line and without recursion."""
    todo: List[Tuple[bool, Any]] = [(False, value)]
    while todo:
        is_text, item = todo.pop()
        if is_text:
            yield item
        elif isinstance(item, dict):
            yield "{"
            todo.append((True, "}"))
            for number, name in enumerate(reversed(list(item))):
                todo.append((False, item[name]))
                comma = ", " if number + 1 < len(item) else ""
                todo.append((True, "{}{}: ".format(comma, json.dumps(name, ensure_ascii=ascii))))
        elif isinstance(item, (list, tuple)):
            yield "["
            todo.append((True, "]"))
            for number, member in enumerate(reversed(item)):
                todo.append((False, member))
                todo.append((True, ", " if number + 1 < len(item) else ""))
        elif isinstance(item, float) and not math.isfinite(item):
            yield "null"
        else:
            yield json.dumps(item, ensure_ascii=ascii)
