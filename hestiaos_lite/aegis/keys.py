"""Idempotency keys made from values: the same values give the same key on every machine and Python."""

from __future__ import annotations

import enum
import hashlib
import math
import struct
from typing import Any, Dict, List, Tuple

__all__ = ["idempotency_key"]

_DOMAIN = (
    b"hestiaos-lite key 1\n"  # a changed form would get a new number: keys already at a service must stay
)
_MAX_DEPTH = 64  # within parts or fields; far below Python's recursion limit, and the same limit everywhere


def idempotency_key(*parts: Any, **fields: Any) -> str:
    """Make a deterministic idempotency key: 64 lower-case hex digits.

    ``idempotency_key("invoice", 42, date="2026-11-21")`` names a decision by what it is about, so that a rerun of the job
    makes the same key again.

    The key is the SHA-256 of ``b"hestiaos-lite key 1\\n"``, the canonical form of the sequence of parts, and the canonical
    form of the mapping of fields. The canonical form of a value is a tag (one ASCII letter), the length of the body in
    bytes (ASCII decimal), a colon, and the body:

    ===============  ===  ==========================================================================
    value            tag  body
    ===============  ===  ==========================================================================
    None             n    empty
    bool             b    ``0`` or ``1``
    int              i    lower-case hexadecimal digits without leading zeros, ``-`` before them when negative
    float            f    the eight bytes of its IEEE 754 binary64, big-endian; ``-0.0`` as ``0.0``
    str              s    its UTF-8, not normalised: "é" in one code point and in two are different values
    bytes            x    the bytes (a bytearray likewise)
    list, tuple      l    the canonical forms of the items, one after the other
    dict             d    for each key in order of its UTF-8 bytes: the forms of key and value
    ===============  ===  ==========================================================================

    So ``(1, "a")`` with no fields hashes ``hestiaos-lite key 1\\nl8:i1:1s1:ad0:``. Binary64 rather than ``repr``: another
    language need not print floats as Python does. The two zeros are equal, and rounding makes the negative one by accident.
    Hexadecimal integers: Python 3.11 and later refuse to write very long ones in decimal.

    A subclass counts as its base value (a named tuple is a sequence), except an Enum member: say ``.value`` or ``.name``.

    Raises:
        TypeError: nothing given, or a value with no canonical form (NaN, infinity, set, date, Decimal, any other object,
            a key that is not a string, a string with a lone surrogate, nesting deeper than 64 levels, a value that
            contains itself). The message names the path to it, such as ``parts[1]['amounts'][0]``.
    """
    if not parts and not fields:
        raise TypeError("idempotency_key() needs at least one part or field")
    return hashlib.sha256(_DOMAIN + _encode(parts, "parts") + _encode(fields, "fields")).hexdigest()


def _encode(value: Any, path: str, parents: Tuple[int, ...] = ()) -> bytes:
    """Give the canonical form of one value; `parents` are the ids of the containers it lies in."""
    # The base class's own methods below, so that a subclass's way to print itself cannot change the key.
    if value is None:
        tag, body = b"n", b""
    elif isinstance(value, enum.Enum):  # before int and str: IntEnum and str enums are both
        raise TypeError("{} is an enum member; pass its .value or its .name".format(path))
    elif isinstance(value, bool):  # before int: a bool is one
        tag, body = b"b", b"1" if value else b"0"
    elif isinstance(value, int):
        tag, body = b"i", int.__format__(value, "x").encode("ascii")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError("{} is {}, which has no canonical form".format(path, float.__repr__(value)))
        tag, body = b"f", struct.pack(">d", value if value else 0.0)
    elif isinstance(value, str):
        try:
            tag, body = b"s", str.encode(value, "utf-8")
        except UnicodeEncodeError:
            raise TypeError("{} has a lone surrogate, which UTF-8 cannot hold".format(path)) from None
    elif isinstance(value, (bytes, bytearray)):
        tag, body = b"x", bytes(value)
    elif isinstance(value, (list, tuple, dict)):
        if id(value) in parents:
            raise TypeError("{} contains itself".format(path))
        if len(parents) > _MAX_DEPTH:
            raise TypeError("{} is nested deeper than {} levels".format(path, _MAX_DEPTH))
        parents += (id(value),)
        if isinstance(value, dict):
            tag, body = b"d", b"".join(_pairs(value, path, parents))
        else:
            items = [_encode(item, "{}[{}]".format(path, n), parents) for n, item in enumerate(value)]
            tag, body = b"l", b"".join(items)
    else:
        what = "{} is of type {}, which has no canonical form{}"
        raise TypeError(what.format(path, _type_name(value), _hint(value)))
    return tag + str(len(body)).encode("ascii") + b":" + body


def _pairs(mapping: Dict[Any, Any], path: str, parents: Tuple[int, ...]) -> List[bytes]:
    pairs: List[Tuple[bytes, bytes]] = []
    for key, value in dict.items(mapping):
        if not isinstance(key, str) or isinstance(key, enum.Enum):
            from .._check import quoted  # here: a key that can be made needs no module but this

            raise TypeError("{} has the key {}; keys must be plain strings".format(path, quoted(key)))
        at = "{}[{!a}]".format(path, key)
        text = str.encode(key, "utf-8", "surrogatepass")  # only to sort by; _encode refuses a surrogate
        pairs.append((text, _encode(key, "the name of " + at) + _encode(value, at, parents)))
    return [form for _, form in sorted(pairs)]


def _type_name(value: Any) -> str:
    cls = type(value)
    return cls.__name__ if cls.__module__ == "builtins" else "{}.{}".format(cls.__module__, cls.__name__)


def _hint(value: Any) -> str:
    """Name the usual way to text, for the types that jobs most often hold."""
    if hasattr(value, "isoformat"):
        return "; pass its .isoformat()"
    if isinstance(value, (set, frozenset)):
        return "; pass sorted(...) of it"
    if _type_name(value) in ("decimal.Decimal", "uuid.UUID"):
        return "; pass str(...) of it"
    return ""
