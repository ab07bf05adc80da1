"""errors.py: the tree, its facts, and its words."""

from __future__ import annotations

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
NAMES = ("code", "message", "trace_id", "status", "request_id", "attempts", "delivered", "retry_after")


def test_the_tree_is_whole():
    assert {getattr(errors, name) for name in errors.__all__} == set(CODES) | {HestiaError}
    assert all(issubclass(cls, HestiaError) for cls in CODES)
    assert issubclass(RequestTimeout, TimeoutError)
    # an error of ours caught by a script's `except OSError` or `except ValueError` would be an accident
    assert [cls for cls in CODES if issubclass(cls, (OSError, ValueError))] == [RequestTimeout]


@pytest.mark.parametrize("cls", CODES, ids=lambda cls: cls.__name__)
def test_an_error_of_nothing_but_its_class(cls):
    error = cls()
    delivered = False if cls in (InvalidInput, IdempotencyConflict) else None
    expected = [CODES[cls], cls.default_message, None, None, None, 0, delivered, None]
    assert [getattr(error, name) for name in NAMES] == expected
    assert error.details is None
    assert error.args == (cls.default_message,)
    assert str(error).startswith("[{}] {}".format(CODES[cls], cls.default_message))


@pytest.mark.parametrize(("error", "code", "message", "trace_id", "details"), [
    (HestiaError("X", "m", "t"), "X", "m", "t", None),
    (HestiaError("X", "m"), "X", "m", None, None),
    (GovernanceBlock("t"), "GOVERNANCE_BLOCK", "blocked by governance", "t", None),
    (InvalidInput("m", "t", {"a": 1}), "INVALID_INPUT", "m", "t", {"a": 1}),
    (NotFound("m", "t"), "NOT_FOUND", "m", "t", None),
], ids=["HestiaError", "HestiaError without trace", "GovernanceBlock", "InvalidInput", "NotFound"])  # fmt: skip
def test_the_constructors_scripts_know(error, code, message, trace_id, details):
    assert (error.code, error.message, error.trace_id, error.details) == (code, message, trace_id, details)


@pytest.mark.parametrize(("error", "text"), [
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
        "nothing was done; its trace says which rule decided",
    ),
    (InvalidInput("bad timeout"), "[INVALID_INPUT] bad timeout"),
], ids=["bare", "answered", "in doubt", "never arrived", "block", "not sent"])  # fmt: skip
def test_what_an_error_says(error, text):
    assert str(error) == text
    assert repr(error) == "<{} {}>".format(type(error).__name__, text)


def test_whatever_the_message_it_is_shown_as_one_line_of_bounded_length():
    error = ServerError(
        "two\nlines \x1b[2J " + "x" * 10_000, "t\n" * 500, code="C\n" * 500, request_id="r\n" * 500
    )
    assert len(str(error)) < 1000
    assert str(error).isprintable()
    assert "two lines \\x1b[2J xxx" in str(error)
    assert repr(error) == "<ServerError {}>".format(error)


def test_details_are_in_no_text():
    error = ServerError("what happened", "trace-1", details={"secret": "value"}, status=503, attempts=3)
    assert "value" not in str(error) + repr(error) + "".join(map(str, error.args))


# -- what became of the request

AGAIN = "nothing was done; try again later"
LOOK = "look for its request id in the service's log before sending it again"
UNKNOWN = "it may have taken effect; " + LOOK
NO_ANSWER = "no answer came: it may have taken effect; " + LOOK
ACCEPTED = "the service had accepted it; " + LOOK
NEVER = "it never reached the service; "
REFUSED = "nothing was done"
KEY = "nothing was done; check the API key"
LONGER = "try again later, or allow it more time"
URL = "check that the base URL is the service's own"

URL_OR_NONE = "nothing was done; " + URL
SIGN_IN = "sign in to this network first"

# class, status, delivered: of a call that changes something its effect, exit code and last sentences; of one that only
# reads its exit code and last sentences (its effect is always "none"); whose fault it is
# fmt: off
EFFECTS = [
    (ConnectionFailed, None, False, "none", 69, NEVER + "try again later", 69, NEVER + "try again later", "service"),
    (ConnectionFailed, None, None, "unknown", 3, NO_ANSWER, 69, "no answer came; try again later", "service"),
    (ConnectionFailed, 200, True, "accepted", 76, ACCEPTED, 69, "try again later", "service"),
    (RequestTimeout, None, False, "none", 69, NEVER + LONGER, 69, NEVER + LONGER, "service"),
    (RequestTimeout, None, None, "unknown", 3, NO_ANSWER, 75, "no answer came; " + LONGER, "service"),
    (RequestTimeout, 200, True, "accepted", 3, ACCEPTED, 75, LONGER, "service"),
    (RequestTimeout, 408, True, "none", 75, REFUSED + "; " + LONGER, 75, LONGER, "service"),
    (RequestTimeout, 425, True, "none", 75, REFUSED + "; " + LONGER, 75, LONGER, "service"),
    (ServerError, 500, True, "unknown", 3, UNKNOWN, 69, "try again later", "service"),
    (ServerError, 501, True, "unknown", 3, UNKNOWN, 69, "try again later", "service"),
    (ServerError, 502, True, "unknown", 3, UNKNOWN, 69, "try again later", "service"),
    (ServerError, 503, True, "none", 69, AGAIN, 69, "try again later", "service"),
    (ServerError, 504, True, "unknown", 3, UNKNOWN, 69, "try again later", "service"),
    (ServerError, 599, True, "unknown", 3, UNKNOWN, 69, "try again later", "service"),
    (ServerError, 409, True, "none", 69, AGAIN, 69, "try again later", "service"),  # a gateway's page
    (RateLimited, 429, True, "none", 75, AGAIN, 75, "try again later", "service"),
    (GovernanceBlock, 403, True, "none", 1, REFUSED + "; it would be refused again", 1, None, "request"),
    (PermissionDenied, 403, True, "none", 77, REFUSED + "; use a key with this permission", 77, None, "caller"),
    (AuthenticationError, 401, True, "none", 77, KEY, 77, "check the API key", "caller"),
    (AuthenticationError, 407, False, "none", 77, NEVER + "check the API key", 77, None, "caller"),
    (AuthenticationError, 511, False, "none", 77, NEVER + SIGN_IN, 77, NEVER + SIGN_IN, "caller"),
    (InvalidInput, 400, True, "none", 2, REFUSED, 2, "", "request"),
    (InvalidInput, 413, True, "none", 2, REFUSED, 2, "", "request"),
    (InvalidInput, None, False, "none", 2, NEVER[:-2], 2, NEVER[:-2], "request"),
    (NotFound, 404, True, "none", 1, REFUSED, 1, "", "caller"),
    (Conflict, 409, True, "none", 1, REFUSED, 1, "", "request"),
    (IdempotencyConflict, 409, True, "none", 1, REFUSED + "; make a new key for a new decision", 1, None, "request"),
    (HestiaError, 402, True, "none", 1, REFUSED, 1, "", "request"),
    (HestiaError, 405, True, "none", 1, REFUSED + "; check the base URL", 1, "check the base URL", "caller"),
    (HestiaError, 451, True, "none", 1, REFUSED, 1, "", "request"),
    (InvalidResponse, 200, True, "accepted", 76, ACCEPTED, 76, URL, "service"),
    (InvalidResponse, 204, True, "accepted", 76, ACCEPTED, 76, URL, "service"),
    (InvalidResponse, 302, True, "none", 76, URL_OR_NONE, 76, URL, "caller"),
    (InvalidResponse, 303, True, "unknown", 76, UNKNOWN, 76, URL, "caller"),
    (InvalidResponse, None, True, "unknown", 76, UNKNOWN, 76, URL, "service"),
    (StreamInterrupted, 200, True, "accepted", 76, ACCEPTED, 76, "", "service"),
    (StreamInterrupted, None, None, "unknown", 76, NO_ANSWER, 76, "no answer came", "service"),
]
# fmt: on


def test_what_says_no_more_than_it_knows():
    assert str(GovernanceBlock("t-1")).endswith("its trace says which rule decided")
    assert str(GovernanceBlock()).endswith("it would be refused again")  # there is no trace to look at
    # without a code of the service's own, it may be the path that is not there
    assert [NotFound(code=code, status=404).at_fault for code in (None, "GONE")] == ["caller", "request"]


def tried(cls, status, delivered, **facts):
    """An error of a call that was tried once."""
    facts = dict({"code": "X"} if cls is HestiaError else {}, **facts)
    return cls(message="m", status=status, delivered=delivered, attempts=1, request_id="r", **facts)


def last_sentences(error):
    """What is said after what happened and the facts in brackets."""
    return str(error).partition("request id r)")[2].partition("; ")[2]


@pytest.mark.parametrize("row", EFFECTS, ids=lambda row: "{}-{}-{}".format(row[0].__name__, *row[1:3]))
def test_what_became_of_it_what_to_exit_with_and_what_is_said(row):
    cls, status, delivered, effect, code, said, code_of_read, said_of_read, at_fault = row
    error = tried(cls, status, delivered)
    assert (error.effect, error.exit_code, last_sentences(error)) == (effect, code, said)
    assert error.at_fault == at_fault
    error = tried(cls, status, delivered, changes=False)
    assert (error.effect, error.exit_code) == ("none", code_of_read)
    if said_of_read is not None:
        assert last_sentences(error) == said_of_read


def test_the_table_leaves_no_class_out():
    assert {row[0] for row in EFFECTS} == {HestiaError, *CODES}


@pytest.mark.parametrize("cls", CODES, ids=lambda cls: cls.__name__)
def test_words_and_exit_codes_never_contradict_the_effect(cls):
    statuses = (None, 101, 200, 202, 204, 302, 303, 307, 400, 404, 409, 429, 500, 503, 504, 524, 599)
    kinds = (
        {}, {"changes": False}, {"has_idempotency_key": True}, {"earlier_effect": "unknown"}, {"earlier_effect": "accepted"},
    )  # fmt: skip
    for status in statuses:
        for delivered in (False, None, True):
            for facts in kinds:
                error = tried(cls, status, delivered, **facts)
                about, said = (cls.__name__, status, delivered, facts), last_sentences(error)
                assert error.effect in ("none", "unknown", "accepted"), about
                assert error.changes or error.effect == "none", about
                in_doubt = error.effect != "none"
                assert ("it may have taken effect" in said) == (error.effect == "unknown"), about
                assert ("had accepted" in said) == (error.effect == "accepted"), about
                is_sent_again = in_doubt and error.has_idempotency_key and error.at_fault != "request"
                assert ("send it again: its" in said) == is_sent_again, about
                assert (LOOK in said) == (in_doubt and not is_sent_again), about
                if in_doubt:
                    # any other code promises that nothing was done, and what to do then is not said
                    accepted = 1 if cls is IdempotencyConflict else 3 if cls is RequestTimeout else 76
                    unknown = 76 if cls in (InvalidResponse, StreamInterrupted) else 3
                    assert error.exit_code == (unknown if error.effect == "unknown" else accepted), about
                    assert "try again" not in said, about
                    assert "nothing was done" not in said, about
                    assert "never reached" not in said, about
                else:
                    assert error.exit_code != 3, about


@pytest.mark.parametrize("cls", CODES, ids=lambda cls: cls.__name__)
def test_an_earlier_attempt_in_doubt_is_not_forgotten_whatever_the_last_one_says(cls):
    for status, delivered in ((None, False), (400, True), (429, True)):
        error = tried(cls, status, delivered, earlier_effect="unknown")
        assert error.effect == "unknown"
        assert error.exit_code == (76 if cls in (InvalidResponse, StreamInterrupted) else 3)  # look first
    setting = InvalidInput("m", code="CONFIGURATION", attempts=2, earlier_effect="unknown")
    assert (setting.effect, setting.exit_code) == ("unknown", 3)


@pytest.mark.parametrize(("code", "exit_code"), [
    ("AGENT_FAILED", 1), ("BAD_DATA", 65), ("OUTBOX_DISK", 74), ("JOURNAL_BUSY", 75), ("CONFIGURATION", 78), ("OUTBOX", 78),
])  # fmt: skip
def test_what_this_library_finds_by_itself_is_known_by_its_code(code, exit_code):
    for error in (HestiaError(code, "m"), InvalidInput("m", code=code)):
        assert (error.at_fault, error.exit_code) == ("caller", exit_code)
    of_the_service = HestiaError(code, "m", status=410, delivered=True)  # which may call its own errors so
    assert (of_the_service.at_fault, of_the_service.exit_code) == ("request", 1)


@pytest.mark.parametrize(("cls", "status", "advice"), [
    (ConnectionFailed, None, "send it again: its idempotency key keeps it from taking effect twice"),
    (
        AuthenticationError,
        401,
        "check the API key, then send it again: its idempotency key keeps it from taking effect twice",
    ),
    (InvalidInput, 400, LOOK),  # it would be refused again
])  # fmt: skip
def test_under_an_idempotency_key_the_advice_is_to_send_it_again(cls, status, advice):
    error = tried(cls, status, bool(status) or None, has_idempotency_key=True, earlier_effect="unknown")
    assert last_sentences(error).partition("it may have taken effect; ")[2] == advice


def test_a_fact_that_no_error_has_is_refused():
    with pytest.raises(TypeError, match="colour is not a fact of an error"):
        ServerError("m", colour="blue")
