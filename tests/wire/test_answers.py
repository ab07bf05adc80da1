"""wire/answers.py: every status and every shape of error body is mapped to one error."""

from __future__ import annotations

import json

import pytest

from hestiaos_lite.errors import (
    AuthenticationError,
    Conflict,
    GovernanceBlock,
    HestiaError,
    InvalidInput,
    NotFound,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerError,
)
from hestiaos_lite.wire.answers import from_answer


@pytest.mark.parametrize(("status", "governed", "cls"), [
    (400, False, InvalidInput),
    (401, False, AuthenticationError),
    (403, False, PermissionDenied),
    (403, True, GovernanceBlock),
    (404, True, NotFound),
    (402, False, HestiaError),
    (405, False, HestiaError),
    (408, False, RequestTimeout),
    (409, False, Conflict),
    (413, True, InvalidInput),
    (418, True, HestiaError),
    (422, True, InvalidInput),
    (425, False, RequestTimeout),
    (429, True, RateLimited),
    (499, False, HestiaError),
    (500, True, ServerError),
    (502, False, ServerError),
    (503, False, ServerError),
    (599, False, ServerError),
])  # fmt: skip
@pytest.mark.parametrize("body", [None, {}, {"detail": "x"}, [], "text", "<html>", 5], ids=repr)
def test_the_class_depends_on_the_status_alone(status, governed, cls, body):
    error = from_answer(status, body, governed=governed, request_id="r", attempts=2, retry_after=3.0)
    assert type(error) is cls
    assert (error.status, error.details, error.delivered) == (status, body, True)
    assert (error.request_id, error.attempts, error.retry_after) == ("r", 2, 3.0)
    assert error.code == ("REFUSED" if cls is HestiaError else cls.default_code)
    assert error.message


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "forbidden", "INSUFFICIENT_SCOPE"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_a_403_whose_code_speaks_of_permission_is_not_governance(code, nested):
    body = {"code": code, "message": "this key may not run agents"}
    error = from_answer(403, {"detail": body} if nested else body, governed=True)
    assert (type(error), error.code, error.message) == (PermissionDenied, code, "this key may not run agents")


FIELD_ERRORS = [
    {"loc": ["body", "input"], "msg": "field required", "type": "missing"},
    {"loc": ["body", "options", 0], "msg": "wrong", "type": "x"},
]
BODIES = {
    # body: (code, message, trace_id); None for what the class says by itself
    "flat": ({"code": "X", "message": "m", "trace_id": "t"}, ("X", "m", "t")),
    "flat with error": ({"error": "POLICY_X", "message": "m", "trace_id": "t"}, ("POLICY_X", "m", "t")),
    "error as words": ({"error": "it broke"}, (None, "it broke", None)),
    "nested": ({"detail": {"code": "X", "message": "m", "trace_id": "t"}}, ("X", "m", "t")),
    "nested under error": ({"error": {"code": "X", "message": "m", "trace_id": "t"}}, ("X", "m", "t")),
    "both": ({"trace_id": "t", "detail": {"code": "X", "message": "m", "trace_id": "t2"}}, ("X", "m", "t")),
    "detail text": ({"detail": "Not Found"}, (None, "Not Found", None)),
    "detail text with code": ({"code": "X", "detail": "words"}, ("X", "words", None)),
    "detail reason": ({"detail": {"reason": "because"}}, (None, "because", None)),
    "field errors": (
        {"detail": FIELD_ERRORS},
        (None, "body.input: field required; body.options.0: wrong", None),
    ),
    "a bare list": (["a", 5], (None, "a; 5", None)),
    "odd list": ({"detail": [{"msg": "m"}, {"loc": "x"}, None]}, (None, "m; invalid; None", None)),
    "text": ("upstream\n  timed out ", (None, "upstream timed out", None)),
    "HTML": ("\n <html><body>502 Bad Gateway</body></html>", (None, "the service answered 400", None)),
    "empty": (None, (None, "the service answered 400", None)),
    "empty object": ({}, (None, "the service answered 400", None)),
    "numbers": ({"code": 5, "message": 6, "trace_id": 7}, (None, "the service answered 400", None)),
    "blank": ({"message": "  ", "trace_id": " ", "code": ""}, (None, "the service answered 400", None)),
    "long": ("x" * 1000, (None, "x" * 297 + "...", None)),
    "detail null": ({"detail": None, "message": "m"}, (None, "m", None)),
    "detail null, error": ({"detail": None, "error": {"code": "X", "message": "m"}}, ("X", "m", None)),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES.keys())
def test_code_message_and_trace_id_are_found_wherever_the_body_keeps_them(body, expected):
    code, message, trace_id = expected
    error = from_answer(400, body)
    assert (error.code, error.message, error.trace_id) == (code or "INVALID_INPUT", message, trace_id)
    block = from_answer(403, body, governed=True)
    assert (block.code, block.trace_id) == (code or "GOVERNANCE_BLOCK", trace_id)


@pytest.mark.parametrize("form", [
    "{}",
    '{{"detail": {}}}',
    '{{"detail": [{}]}}',
    '{{"detail": [{{"msg": {}}}]}}',
    '{{"detail": [{{"loc": [{}]}}]}}',
])  # fmt: skip
def test_a_body_nested_as_deep_as_json_reads_is_still_an_answer(form):
    """`str` of a list goes less deep than the parser that made it (Python 3.7 and 3.12)."""
    read = 0
    for depth in range(100, 1100, 3):
        try:
            body = json.loads(form.format("[" * depth + "]" * depth))
        except RecursionError:
            continue
        read += 1
        assert type(from_answer(422, body)) is InvalidInput
    assert read > 50
