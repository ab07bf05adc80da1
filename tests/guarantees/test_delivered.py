"""A request that reached the service is never told as one that did not, whatever the service then says.

`delivered` False is what lets a script, a batch or an outbox send a request again without a look. So it is decided by what
the socket did: once a request has begun to leave, no answer, however broken, is taken for a fault of the request.
"""

from __future__ import annotations

import random
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import pytest
import requests

from hestiaos_lite import AegisClient, Client, HestiaError, InvalidResponse

from ..faultserver import FaultServer, Received, answer_and_close, error_of, head, ok, served

RUN = b'{"result": "ALLOW", "trace_id": "t-1"}'
LENGTHS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

# What contradicts itself is no answer that can be used: 200 or not, somebody may read it as two answers.
UNUSABLE = {
    "two lengths in two lines": LENGTHS + b"Content-Length: 3\r\nContent-Length: 65\r\n\r\n" + RUN,
    "two lengths in one line": LENGTHS + b"Content-Length: 3, 65\r\n\r\n" + RUN,
    "two lengths, one of them right": LENGTHS + b"Content-Length: %d, 3\r\n\r\n" % len(RUN) + RUN,
    "two lengths of an error": b"HTTP/1.1 500 Oops\r\nContent-Length: 3\r\nContent-Length: 65\r\n\r\n" + RUN,
    "two lengths of a 202": b"HTTP/1.1 202 Accepted\r\nContent-Length: 3, 65\r\n\r\n" + RUN,
    "a line of the head over 64 KiB": LENGTHS + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
    "more than 100 headers": LENGTHS + b"X: y\r\n" * 120 + b"\r\n",
}
WORDS = {
    "a line of the head over 64 KiB": "a line of its head is longer than 64 KiB",
    "more than 100 headers": "its head has more than 100 headers",
}
# Every other answer that cannot be used: which error it makes is told elsewhere (test_faults.py).
BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.0\r\n",
    "nothing": b"",
    "a version from the future": b"HTTP/9.9 200 OK\r\n\r\n" + RUN,
    "a status that is no number": b"HTTP/1.1 abc OK\r\n\r\n" + RUN,
    "a negative status": b"HTTP/1.1 -20 OK\r\n\r\n" + RUN,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: y\r\n\r\nx",
    "a zero byte in a header": b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 1\r\n\r\nx",
    "headers that are no ASCII": b"HTTP/1.1 200 OK\r\n\xff\xfe: \xff\r\nContent-Length: 1\r\n\r\nx",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx",
    "a huge length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 300 + b"\r\n\r\nx",
    "a chunk size that is no number": head(200, {"Transfer-Encoding": "chunked"}) + b"many\r\nx",
    "a negative chunk size": head(200, {"Transfer-Encoding": "chunked"}) + b"-4\r\nabcd",
    "a coding that is none": head(200, {"Content-Encoding": "\x7f,,,"}) + RUN,
    "a redirect to no URL": head(302, {"Location": "http://[::1"}),
    "a redirect to another scheme": head(307, {"Location": "gopher://h:99999999/\xff"}),
    "a redirect to nowhere": head(308, {"Location": ""}),
    "a cookie that is none": head(200, {"Set-Cookie": "\xff=\xff; expires=never; domain=.."}) + b"x",
    "a moment that is none": head(500, {"Retry-After": "Sun, 99 Foo 99999 99:99:99 GMT"}) + b"x",
}

CALLS: Dict[str, Callable[[Client, AegisClient], Any]] = {
    "run": lambda client, aegis: client.run("hello"),
    "stream": lambda client, aegis: list(client.run_stream("hello")),
    "chat": lambda client, aegis: client.chat("hello"),
    "approve": lambda client, aegis: aegis.approve("key-1"),
}


class Outcome(NamedTuple):
    error: Optional[HestiaError]
    result: Any
    requests: List[Received]


def outcome_of(call: str, kind: str, answer: bytes) -> Outcome:
    with FaultServer(answer_and_close(answer)) as server, requests.Session() as lent:
        session, error, result = lent if kind == "lent" else None, None, None
        aegis = AegisClient(
            server.url, api_key="key", thread_id="t", timeout=10, max_retries=0, session=session
        )
        with aegis, Client(server.url, "key", timeout=10, retries=3, session=session) as client:
            try:
                result = CALLS[call](client, aegis)
            except HestiaError as caught:
                error = caught
        return Outcome(error, result, server.requests)


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", UNUSABLE)
def test_an_answer_that_contradicts_itself(name: str, call: str, kind: str) -> None:
    error, result, received = outcome_of(call, kind, UNUSABLE[name])
    assert type(error) is InvalidResponse, (error, result)
    assert (error.delivered, error.effect, error.exit_code, error.attempts) == (True, "unknown", 76, 1)
    assert len(received) == 1
    assert "it may have taken effect" in str(error)
    if name in WORDS:
        assert error.message.endswith("cannot be used: " + WORDS[name])


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("call", CALLS)
def test_any_other_broken_answer(call: str, kind: str) -> None:
    for name, answer in BROKEN.items():
        error, result, received = outcome_of(call, kind, answer)
        assert len(received) == 1, name
        if error is not None:
            assert error.delivered is not False, (name, error)
            # a redirect says that nothing was done there
            assert error.effect != "none" or 300 <= (error.status or 0) < 400, (name, error)


@pytest.fixture
def rng() -> Iterator[random.Random]:
    seed = random.randrange(2**32)
    print("DELIVERED_SEED={}".format(seed))
    yield random.Random(seed)


@pytest.mark.parametrize("kind", ["own", "lent"])
def test_an_answer_with_any_byte_changed(kind: str, rng: random.Random) -> None:
    whole = ok({"result": "ALLOW", "trace_id": "t-1"}, {"Set-Cookie": "a=b", "Retry-After": "5"})
    for _ in range(60):
        answer = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            answer[rng.randrange(len(answer))] = (
                rng.choice(b"\x00\r\n :,;\xff0139-") if rng.randrange(2) else 65
            )
        error, _, received = outcome_of("run", kind, bytes(answer))
        assert len(received) == 1, bytes(answer)
        assert error is None or error.delivered is not False, (error, bytes(answer))


class Unsendable(requests.exceptions.InvalidURL):
    """What requests raises of a request that it cannot send, and a hook of another request that it makes."""


def test_a_hook_that_fails_after_the_answer() -> None:
    def fail(response: requests.Response, *args: Any, **kwargs: Any) -> None:
        raise Unsendable("no scheme supplied")

    with FaultServer(answer_and_close(ok({"result": "ALLOW", "trace_id": "t-1"}))) as server:
        with requests.Session() as lent:
            lent.hooks["response"].append(fail)
            with Client(server.url, timeout=10, retries=3, session=lent) as client:
                with pytest.raises(HestiaError) as caught:
                    client.run("hello")
        assert (caught.value.delivered, caught.value.effect, server.hits) == (None, "unknown", 1)


# -- an answer to another request, by a connection out of step or a proxy


@pytest.mark.parametrize("kind", ["own", "lent"])
def test_an_answer_about_something_else_is_none(kind: str) -> None:
    trace = ok({"trace_id": "t-2", "decision": "ALLOW", "violations": [], "latency_ms": 1})
    with served(answer_and_close(trace), kind=kind) as (client, _):
        error = error_of(lambda: client.trace("t-1"))
    assert (type(error), error.status, error.delivered, error.attempts) == (InvalidResponse, 200, True, 1)
    assert "another trace id" in str(error)
    status = ok({"request_id": "r-2", "status": "COMMITTED", "action": "approve"})
    with FaultServer(answer_and_close(status)) as server, requests.Session() as lent:
        with AegisClient(server.url, api_key="k", session=lent if kind == "lent" else None) as aegis:
            error = error_of(lambda: aegis.get_status("r-1"))
    assert (type(error), error.status, error.delivered, error.attempts) == (InvalidResponse, 200, True, 1)
    assert "another request" in str(error)
