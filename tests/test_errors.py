"""errors.py: the tree, its facts, and its words."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from hestiaos_lite import errors
from hestiaos_lite.errors import (
    AuthenticationError,
    Conflict,
    ConnectionFailed,
    GovernanceBlock,
    HestiaError,
    IdempotencyConflict,
    InvalidInput,
    InvalidResponse,
    NotFound,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerError,
    StreamInterrupted,
)

CODES = {
    GovernanceBlock: "GOVERNANCE_BLOCK",
    PermissionDenied: "PERMISSION_DENIED",
    AuthenticationError: "AUTHENTICATION",
    InvalidInput: "INVALID_INPUT",
    NotFound: "NOT_FOUND",
    Conflict: "CONFLICT",
    RateLimited: "RATE_LIMITED",
    ServerError: "SERVER_ERROR",
    ConnectionFailed: "CONNECTION_FAILED",
    RequestTimeout: "TIMEOUT",
    InvalidResponse: "INVALID_RESPONSE",
    StreamInterrupted: "STREAM_INTERRUPTED",
    IdempotencyConflict: "IDEMPOTENCY_CONFLICT",
}
FACTS = {
    "status": 503,
    "request_id": "req-1",
    "attempts": 3,
    "delivered": None,
    "retry_after": 1.5,
}


def facts_of(error):
    return {
        name: getattr(error, name)
        for name in (
            "code",
            "message",
            "trace_id",
            "status",
            "request_id",
            "attempts",
            "delivered",
            "retry_after",
        )
    }


def test_the_tree_is_whole():
    assert {getattr(errors, name) for name in errors.__all__} == set(CODES) | {HestiaError}
    assert all(issubclass(cls, HestiaError) for cls in CODES)
    assert issubclass(RequestTimeout, TimeoutError)
    # an error of ours caught by a script's `except OSError` or `except ValueError` would be an accident
    assert [cls for cls in CODES if issubclass(cls, (OSError, ValueError))] == [RequestTimeout]


@pytest.mark.parametrize("cls", CODES, ids=lambda cls: cls.__name__)
def test_an_error_of_nothing_but_its_class(cls):
    error = cls()
    assert facts_of(error) == {
        "code": CODES[cls],
        "message": cls.default_message,
        "trace_id": None,
        "status": None,
        "request_id": None,
        "attempts": 0,
        "delivered": False if cls in (InvalidInput, IdempotencyConflict) else None,
        "retry_after": None,
    }
    assert error.details is None
    assert error.args == (cls.default_message,)
    assert str(error).startswith("[{}] {}".format(CODES[cls], cls.default_message))


@pytest.mark.parametrize(
    ("error", "code", "message", "trace_id", "details"),
    [
        (HestiaError("X", "m", "t"), "X", "m", "t", None),
        (HestiaError("X", "m"), "X", "m", None, None),
        (GovernanceBlock("t"), "GOVERNANCE_BLOCK", "blocked by governance", "t", None),
        (InvalidInput("m", "t", {"a": 1}), "INVALID_INPUT", "m", "t", {"a": 1}),
        (NotFound("m", "t"), "NOT_FOUND", "m", "t", None),
    ],
    ids=["HestiaError", "HestiaError without trace", "GovernanceBlock", "InvalidInput", "NotFound"],
)
def test_the_constructors_scripts_know(error, code, message, trace_id, details):
    assert (error.code, error.message, error.trace_id, error.details) == (code, message, trace_id, details)


def full(cls):
    if cls is HestiaError:
        return HestiaError("CODE", "what happened", "trace-1", details={"secret": "value"}, **FACTS)
    return cls(message="what happened", trace_id="trace-1", details={"secret": "value"}, code="CODE", **FACTS)


def same_error(error):
    """Sent to another process and back."""
    return error


def raise_it(cls):
    raise full(cls)


@pytest.mark.parametrize("cls", [HestiaError] + list(CODES), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_pickles_with_its_facts_and_without_the_body(cls, protocol):
    error = full(cls)
    dumped = pickle.dumps(error, protocol)
    again = pickle.loads(dumped)
    assert type(again) is cls
    assert (
        facts_of(again)
        == facts_of(error)
        == dict(FACTS, code="CODE", message="what happened", trace_id="trace-1")
    )
    assert (again.args, str(again), repr(again)) == (error.args, str(error), repr(error))
    assert again.details is None
    assert b"secret" not in dumped
    assert type(copy.copy(error)) is cls


def test_errors_cross_a_process_pool():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for cls in CODES:
            assert facts_of(pool.submit(same_error, full(cls)).result(60)) == facts_of(full(cls))
            with pytest.raises(cls) as caught:
                pool.submit(raise_it, cls).result(60)
            assert facts_of(caught.value) == facts_of(full(cls))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (HestiaError("X", "it broke"), "[X] it broke"),
        (
            ServerError("it broke", "t-1", status=503, request_id="r-1", attempts=4, delivered=True),
            "[SERVER_ERROR] it broke (HTTP 503, trace id t-1, request id r-1, 4 attempts); "
            "nothing was done; try again later",
        ),
        (
            ConnectionFailed("no answer", request_id="r-1", attempts=1, delivered=None),
            "[CONNECTION_FAILED] no answer (request id r-1); no answer came: it may have taken effect; "
            "look for its request id in the service's log before sending it again",
        ),
        (
            ConnectionFailed("refused", request_id="r-1", attempts=2, delivered=False),
            "[CONNECTION_FAILED] refused (request id r-1, 2 attempts); it never reached the service; "
            "try again later",
        ),
        (
            GovernanceBlock("t-1", status=403, attempts=1, delivered=True),
            "[GOVERNANCE_BLOCK] blocked by governance (HTTP 403, trace id t-1); "
            "nothing was done; its trace says which rule spoke",
        ),
        (InvalidInput("bad timeout"), "[INVALID_INPUT] bad timeout"),
    ],
    ids=["bare", "answered", "in doubt", "never arrived", "block", "not sent"],
)
def test_what_an_error_says(error, text):
    assert str(error) == text
    assert repr(error) == "<{} {}>".format(type(error).__name__, text)


def test_details_are_in_no_text():
    error = full(ServerError)
    assert "value" not in str(error) + repr(error) + "".join(map(str, error.args))
