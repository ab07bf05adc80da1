"""idempotency_key: one decision, one key, on every machine and Python."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import hashlib
import itertools
import os
import subprocess
import sys
import uuid
from typing import Any, Dict, List, Tuple

import pytest

from hestiaos_lite.aegis.keys import idempotency_key

# Test vectors for other implementations: parts, fields, key. They never change.
# fmt: off
VECTORS: List[Tuple[Tuple[Any, ...], Dict[str, Any], str]] = [
    (("invoice", 42), {"date": "2026-11-21"}, "ac6ee1254911ee63dadf7da7bf16c6009ef396462e145d716506cfc830e64407"),
    (("invoice", "42"), {"date": "2026-11-21"}, "2b27a699451fcae7906425af7ac1a5fe21bc3dccc692da915d53ad9b499e92d5"),
    ((None,), {}, "b457fea2442d2bd90e268e39213f35e8dbbde8cf95bd6d7bcc928d5095d048b5"),
    ((True,), {}, "05b4276ed5741884c7a1364994b2e61ae93b7bedb8f4a903cd0f1f12d9082a1e"),
    ((False,), {}, "64d486b570158c7db2a14dc205b421de478c5f9f6e9acc921bfce9a74202550d"),
    ((1,), {}, "26f517b4f9ce7bbe4a2a793c45a87bb896689a1056e2a714644c43edcea6fdec"),
    ((-1,), {}, "196d5ac6c83706972f1ee3464d02198a13e508ff8e303b624502148ea406992d"),
    ((2**64,), {}, "70b476b97f33460bfd0b6883740c1e2cbb062547e81b7318fee55d7b5d2b6621"),
    (("1",), {}, "03c81a12d8408f561a0ecf598a5a54bff98658f352f89b72f82933d806536b88"),
    ((b"1",), {}, "77918d82f49b2760d5fa6d9506d7cd0cdbbdeddfa4431ac27da2183728b5f893"),
    ((1.0,), {}, "d8e5198d58dac3cd7b4e9fc037bc3117c9c57f769254b90c27c5b9ff1838cd9f"),
    ((0.1,), {}, "c9b07c9d377d0f1a0375f9fc612b93311684d87cbbab643aca40b70772aa45c5"),
    ((-0.0,), {}, "c401338adc65955c12927408e915b77c387c2fdf7deaef4f3ec164feeaea616f"),
    ((1e-310,), {}, "9b5325e3844a4b2fa681cfef1382781fc50f57d931011cb71c7abb0f4b4d7770"),
    ((1.7976931348623157e308,), {}, "9eb3c137e9bcf0b822b126626f90c53de4a6f4ceca0a39b983e89737b621a998"),
    (("",), {}, "9da7f1f3d110ef25988124f87bd4a3f723749d31f11caa4c1cdecb6b60d65a2f"),
    (("Grüße, 世界 \U0001f600",), {}, "43406c4b7d620ca91962c40feb6bf0121156f5204ce1fe625a30dc492839bbb6"),
    (([],), {}, "aedff2c71086999dd0c5c5c601e8232b8018fce9e4b3ab8d6d7ebb7c7f61827b"),
    (([1, "a", [None]],), {}, "9f999bb68bb3f55eedfa7c6d7c1b044c5e99e5e924e18ed214c8eecd94f41e65"),
    (({"b": 1, "a": {"z": 2.5, "é": False}},), {}, "8c66a68bf473547e5be261b6f6bd2adedb51cb1cc825ab0f2eee286343e2463e"),
    ((), {"only": "a field"}, "8da896872b5df589ba5ab8bc777f712ff8ffc0c37805cfe81adc60bfe4e92750"),
    (("refund", b"\x00\xff", 3), {"lines": [["A-1", 2], ["B-7", 1]], "note": None}, "78f943fab6e191969bf10c94b5bab71a1835ede85abbcd8cfc676a2b0c37ef8b"),
]
# fmt: on


@pytest.mark.parametrize(("parts", "fields", "key"), VECTORS, ids=[ascii((p, f))[:60] for p, f, _ in VECTORS])
def test_published_vectors(parts, fields, key):
    assert idempotency_key(*parts, **fields) == key


def test_the_documented_form_written_by_hand():
    form = b"hestiaos-lite key 1\nl27:i1:1s2:\xc3\xa9f8:\x3f\xf8\0\0\0\0\0\0n0:b1:1d18:s1:ai2:-fs1:bx2:\0\xff"
    assert idempotency_key(1, "é", 1.5, None, True, b=b"\0\xff", a=-15) == hashlib.sha256(form).hexdigest()


# Values that some language, or Python itself, takes for equal or prints alike: every two of them are two decisions.
DISTINCT = [
    (1,), ("1",), (True,), (1.0,), (None,), (b"1",), ([1],), ([],), ({},), ("",), (b"",), (0,), (False,), (0.0,), (-1,),
    ("None",), ("True",), (1, 1), (11,), ("1", "1"), ("11",), ("1,1",), ([1, 1],), ([1], 1), ([[1]],), ({"1": 1},),
    ({"a": None},), (["a", None],), ("a", "b"), ("ab",), ("a", "b", ""), (10**400,), (0.1,), (0.1 + 0.2,), (0.3,),
    ("é",), ("e\u0301",), ("\0",), (5e-324,),
]  # fmt: skip


def test_values_that_look_alike_differ():
    keys = {idempotency_key(*parts): parts for parts in DISTINCT}
    keys[idempotency_key(a=1)] = "field a"
    keys[idempotency_key({"a": 1})] = "part {a: 1}"
    keys[idempotency_key(1, a=1)] = "both"
    assert len(keys) == len(DISTINCT) + 3


class Point(collections.namedtuple("Point", "x y")):
    __slots__ = ()


class Loud(str):
    def __str__(self):
        return self.upper()

    def encode(self, *args: Any) -> bytes:
        return b"changed"


SAME = {
    "list and tuple": ([1, (2, [3])], (1, [2, (3,)])),
    "order of a dict": ({"a": 1, "b": {"x": 1, "y": 2}}, {"b": {"y": 2, "x": 1}, "a": 1}),
    "kinds of dict": ({"a": 1, "b": 2}, collections.OrderedDict([("b", 2), ("a", 1)])),
    "named tuple": (Point(1, 2), [1, 2]),
    "bytes and bytearray": (b"ab", bytearray(b"ab")),
    "the two zeros": (0.0, -0.0),
    "str with a taste of its own": (Loud("a"), "a"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME.keys())
def test_the_same_value_in_another_guise(one, other):
    assert idempotency_key(one) == idempotency_key(other)


def test_order_of_fields_does_not_matter():
    fields = [("a", 1), ("b", 2), ("é", 3), ("\U0001f600", 4), ("\uffff", 5)]
    assert len({idempotency_key(**dict(order)) for order in itertools.permutations(fields)}) == 1


class Colour(enum.IntEnum):
    RED = 1


def cycle():
    value: Dict[str, Any] = {"items": [1]}
    value["items"].append(value)
    return value


def nested(depth):
    value: List[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


REFUSED = {
    "NaN": (float("nan"), "parts[0] is nan"),
    "infinity": ({"a": [0.5, float("-inf")]}, "parts[0]['a'][1] is -inf"),
    "set": ([{1}], "parts[0][0] is of type set, which has no canonical form; pass sorted(...) of it"),
    "frozenset": (frozenset(), "pass sorted(...) of it"),
    "object": (object(), "parts[0] is of type object"),
    "class": (int, "parts[0] is of type type"),
    "complex": (1j, "parts[0] is of type complex"),
    "generator": ((n for n in ()), "parts[0] is of type generator"),
    "date": (datetime.date(2026, 11, 21), "datetime.date, which has no canonical form; pass its .isoformat()"),
    "datetime": (datetime.datetime(2026, 11, 21), "pass its .isoformat()"),
    "Decimal": (decimal.Decimal("1.0"), "pass str(...) of it"),
    "UUID": (uuid.UUID(int=1), "pass str(...) of it"),
    "enum": (Colour.RED, "parts[0] is an enum member; pass its .value or its .name"),
    "key not a string": ({"a": {1: 2}}, "parts[0]['a'] has the key 1; keys must be plain strings"),
    "surrogate": (["\ud800"], "parts[0][0] has a lone surrogate"),
    "surrogate in a key": ({"\ud800": 1}, "the name of parts[0]['\\ud800'] has a lone surrogate"),
    "contains itself": (cycle(), "parts[0]['items'][1] contains itself"),
    "too deep": (nested(65), "is nested deeper than 64 levels"),
    "far too deep": (nested(100000), "is nested deeper than 64 levels"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_canonical_form_is_refused_with_its_path(value, message):
    with pytest.raises(TypeError) as caught:
        idempotency_key(value)
    assert message in str(caught.value)
    with pytest.raises(TypeError, match="^(the name of )?fields\\['when'\\]"):
        idempotency_key("invoice", when=value)


def test_nothing_is_no_decision():
    with pytest.raises(TypeError, match="at least one part or field"):
        idempotency_key()


def test_limits_that_are_allowed():
    assert idempotency_key(nested(64)) != idempotency_key(nested(63))
    shared = [1]
    assert idempotency_key([shared, shared]) == idempotency_key([[1], [1]])  # twice is not a cycle


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_another_process_with_another_hash_seed_agrees(hash_seed):
    code = "from hestiaos_lite.aegis.keys import idempotency_key as k; print(k('invoice', {'b': 1, 'a': [2.5]}, z=1, y=None))"
    environment = dict(os.environ, PYTHONHASHSEED=hash_seed, PYTHONPATH=os.pathsep.join(sys.path))
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, timeout=60, check=True
    )
    assert told.stdout.decode().strip() == idempotency_key("invoice", {"a": [2.5], "b": 1}, y=None, z=1)
