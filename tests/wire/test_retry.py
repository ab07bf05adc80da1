"""wire/call.py: may a request be repeated, and when; with a clock, a randomness and a date that a test gives."""

from __future__ import annotations

import pytest

from hestiaos_lite.deadline import Deadline, SilenceLimit
from hestiaos_lite.errors import (
    AuthenticationError,
    Conflict,
    ConnectionFailed,
    GovernanceBlock,
    InvalidInput,
    InvalidResponse,
    NotFound,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerError,
    StreamInterrupted,
)
from hestiaos_lite.wire.call import RetryPolicy, aegis_policy


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_deadline_counts_down_from_where_it_was_made():
    clock = Clock()
    deadline = Deadline(5.0, clock)
    assert (deadline.seconds, deadline.remaining()) == (5.0, 5.0)
    clock.now = 104.5
    assert deadline.remaining() == 0.5
    clock.now = 107.0
    assert deadline.remaining() == -2.0


def test_a_silence_limit_is_the_same_for_every_read():
    limit = SilenceLimit(3.0)
    assert (limit.seconds, limit.remaining(), limit.remaining()) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(("attempt", "jitter", "seconds"), [
    (1, 1.0, 0.5), (2, 1.0, 1.0), (3, 1.0, 2.0), (4, 1.0, 4.0), (5, 1.0, 8.0), (6, 1.0, 8.0), (60, 1.0, 8.0),
    (1, 0.0, 0.0), (1, 0.5, 0.25), (9, 0.25, 2.0), (1, None, 0.5), (2, None, 1.0), (3, None, 2.0),
])  # fmt: skip
def test_exponential_backoff_with_full_jitter_and_a_cap(attempt, jitter, seconds):
    draw = None if jitter is None else lambda: jitter
    policy = RetryPolicy(1000, jitter=draw)
    assert policy.delay_seconds(ServerError(status=503, delivered=True), attempt, repeatable=False) == seconds


def test_the_jitter_is_random_and_within_its_bounds():
    policy = RetryPolicy(3)
    delays = [
        policy.delay_seconds(ServerError(status=503, delivered=True), 2, repeatable=False) for _ in range(200)
    ]
    assert all(0.0 <= delay <= 1.0 for delay in delays)
    assert len(set(delays)) > 100


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(None, 0.5), (0.0, 0.5), (0.2, 0.5), (3.0, 3.0), (100.0, 100.0)], ids=repr
)
def test_retry_after_is_a_lower_bound(retry_after, seconds):
    policy = RetryPolicy(1, jitter=None)
    failure = RateLimited(status=429, delivered=True, retry_after=retry_after)
    assert policy.delay_seconds(failure, 1, repeatable=False) == seconds


@pytest.mark.parametrize(
    ("retries", "delays"), [(0, [None]), (1, [0.5, None]), (3, [0.5, 1.0, 2.0, None])], ids=repr
)
def test_retries_counts_extra_attempts(retries, delays):
    policy = RetryPolicy(retries, jitter=None)
    assert [
        policy.delay_seconds(ServerError(status=503, delivered=True), attempt, repeatable=False)
        for attempt in range(1, retries + 2)
    ] == delays


# The failure, and whether it is repeated: for a POST, for a GET or DELETE, for AEGIS, whose requests carry a key.
VERDICTS = {
    "never connected": (ConnectionFailed(delivered=False), True, True, True),
    "connection broken": (ConnectionFailed(delivered=None), False, True, True),
    "answer broken off": (ConnectionFailed(delivered=True, status=200), False, True, True),
    "certificate not trusted": (ConnectionFailed(delivered=False, is_final=True), False, False, False),
    "429": (RateLimited(status=429, delivered=True), True, True, False),
    "503": (ServerError(status=503, delivered=True), True, True, True),
    "502": (ServerError(status=502, delivered=True), False, True, True),
    "504": (ServerError(status=504, delivered=True), False, True, True),
    "500": (ServerError(status=500, delivered=True), False, False, True),
    "501": (ServerError(status=501, delivered=True), False, False, True),
    "524": (ServerError(status=524, delivered=True), False, False, True),
    "400": (InvalidInput(status=400, delivered=True), False, False, False),
    "401": (AuthenticationError(status=401, delivered=True), False, False, False),
    "403": (PermissionDenied(status=403, delivered=True), False, False, False),
    "403 governed": (GovernanceBlock(status=403, delivered=True), False, False, False),
    "404": (NotFound(status=404, delivered=True), False, False, False),
    "408": (RequestTimeout(status=408, delivered=True), True, True, False),
    "409": (Conflict(status=409, delivered=True), False, False, False),
    "deadline passed before connecting": (RequestTimeout(delivered=False), False, False, False),
    "deadline passed waiting": (RequestTimeout(delivered=None), False, False, False),
    "not sendable": (InvalidInput(), False, False, False),
    "a bad answer": (InvalidResponse(status=200, delivered=True), False, False, False),
    "a cut stream": (StreamInterrupted(status=200, delivered=True), False, False, False),
}


@pytest.mark.parametrize(("failure", "post", "get", "aegis"), VERDICTS.values(), ids=VERDICTS.keys())
def test_what_is_repeated(failure, post, get, aegis):
    asked = ((RetryPolicy(1), False), (RetryPolicy(1), True), (aegis_policy(1), True))
    delays = [
        [policy.delay_seconds(failure, attempt, repeatable=repeatable) for policy, repeatable in asked]
        for attempt in (1, 2)
    ]
    assert [delay is not None for delay in delays[0]] == [post, get, aegis]
    assert delays[1] == [None, None, None]
