"""The fault table: whatever a service or a network does to one call, the caller gets one of our errors with its facts.

Each row is played by a raw-socket server, over a session of ours and over one the caller lends. Beside the error's class and
facts a row states how many requests the server may see; every row ends within its deadline, and none shows an exception of
requests, urllib3, http.client, json or ssl.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import Future
from email.utils import formatdate
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple, Type

import pytest
import requests

from hestiaos_lite import (
    AuthenticationError,
    Client,
    Conflict,
    ConnectionFailed,
    GovernanceBlock,
    HealthResponse,
    HestiaError,
    InvalidInput,
    InvalidResponse,
    NotFound,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    RunResponse,
    ServerError,
)

from ..faultserver import (
    TLS_AUTHORITY,
    FaultServer,
    Script,
    Wire,
    answer,
    answer_and_close,
    answer_and_drip,
    answer_and_hang,
    answer_and_reset,
    chunked,
    closed_port,
    drop,
    drop_and_leave,
    error_of,
    hang,
    hang_up,
    head,
    ok,
    reply,
    served,
    side_by_side,
    with_a_short_deadline,
)

# Past its deadline no call may go on for longer. It is shorter than any server below drips or hangs, and long enough for
# a machine that is busy with something else.
SLACK_SECONDS = 6.0
PATIENT = 10.0  # the deadline of what does not wait for it
HURRIED = 0.5  # of what does nothing but wait
OWN, LENT = ("own",), ("lent",)

RUN = {"result": "ALLOW", "trace_id": "t-1"}
HEALTH = {"status": "ok"}
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


def run(client: Client) -> Any:
    return client.run("hello", timeout_ms=100)  # what the service is granted may prolong the deadline


def health(client: Client) -> Any:
    return client.health()


def big_run(client: Client) -> Any:
    return client.run("x" * 20_000_000, timeout_ms=100)


def set_secret(client: Client) -> Any:
    return client.secrets.set("key", "value")


class Case(NamedTuple):
    """One row: what the server does, and what the caller must get.

    A lent session has connections of its own: there the deadline is held by each read of the head and not by their sum,
    the end of the connection counts as the end of the headers, and a failed TLS handshake leaves `delivered` in doubt.
    Rows that turn on this are listed for our own session alone, or twice.
    """

    id: str
    script: Any  # or two of them, for two connections
    error: Type[HestiaError]
    facts: Dict[str, Any]
    hits: Optional[int] = None  # as many as the attempts
    call: Callable[[Client], Any] = run
    waits: bool = False  # for its deadline, as every RequestTimeout does
    retries: int = 0
    tls: bool = False
    url: str = "{url}"
    verify: Any = None
    sessions: Tuple[str, ...] = ("own", "lent")


def says(status: Optional[int], **facts: Any) -> Dict[str, Any]:
    """The facts of what was answered."""
    return dict(facts, status=status, delivered=True)


NOT_SENT = {"status": None, "delivered": False}
IN_DOUBT = {"status": None, "delivered": None}
CUT = says(200)


def two_hundred(body: bytes, **headers: Any) -> Script:
    return answer(reply(200, body, {name.replace("_", "-"): value for name, value in headers.items()}))


def later(status: int, retry_after: str) -> Script:
    return answer(reply(status, headers={"Retry-After": retry_after}))


def too_large(data: bytes, size: Optional[int] = None) -> Script:
    """An answer that would be good if it were not too long, by a byte if no size is given: what follows it is blank."""

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(data + RUN_BYTES)
        left = (size or TOO_LARGE) - len(RUN_BYTES)
        while left > 0:
            wire.send(b" " * min(65536, left))
            left -= 65536

    return script


OVER_TLS = "https://127.0.0.1:{port}"
RUN_BYTES = json.dumps(RUN).encode("ascii")
DEEP = b"[" * 200_000 + b"]" * 200_000
GZIPPED = gzip.compress(RUN_BYTES)
_BLANKS = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
_START, _MEGABYTE = (
    _BLANKS.compress(data) + _BLANKS.flush(zlib.Z_FULL_FLUSH) for data in (b" ", b" " * 1_000_000)
)
BOMB = _START + _MEGABYTE * 70
TOO_LARGE = 8 * 1024 * 1024 + 1  # by a byte
LINE = b"HTTP/1.1 200 OK\r\n"
LENGTH_100 = head(200, {"Content-Type": "application/json", "Content-Length": 100})
CHUNKED = head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
GZIP_HEAD = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


def never_read(wire: Wire) -> None:
    """Accept, and read nothing."""
    while True:
        wire.pause(0.05)


def speaks_first(wire: Wire) -> None:
    """Answer whatever comes in plain HTTP."""
    wire.sock.recv(65536)
    wire.send(reply(400))


CASES = [
    # no connection
    Case("refused", hang, ConnectionFailed, NOT_SENT, hits=0, url="http://127.0.0.1:{closed}"),
    Case("unknown-host", hang, ConnectionFailed, NOT_SENT, hits=0, url="http://no-such-host.invalid"),
    Case("unreachable", hang, ConnectionFailed, NOT_SENT, hits=0, url="http://255.255.255.255"),
    Case("tls-other-host", hang, ConnectionFailed, NOT_SENT, hits=0, tls=True, url="https://localhost:{port}",
         verify=TLS_AUTHORITY),
    Case("tls-to-plain", speaks_first, ConnectionFailed, NOT_SENT, hits=0, url=OVER_TLS, sessions=OWN),
    Case("tls-to-plain", speaks_first, ConnectionFailed, IN_DOUBT, hits=0, url=OVER_TLS, sessions=LENT),
    Case("plain-to-tls", hang, ConnectionFailed, IN_DOUBT, hits=0, tls=True, url="http://127.0.0.1:{port}"),
    Case("tls-handshake-hangs", never_read, RequestTimeout, NOT_SENT, hits=0, url=OVER_TLS, sessions=OWN),
    # dropped before, inside and after the head
    Case("closed-at-once", hang_up, ConnectionFailed, IN_DOUBT, hits=0),
    Case("closed-after-request", drop, ConnectionFailed, IN_DOUBT),
    Case("reset-after-request", answer_and_reset(b""), ConnectionFailed, IN_DOUBT),
    Case("cut-in-status-line", answer_and_close(b"HTTP/1.1 20"), ConnectionFailed, IN_DOUBT),
    Case("cut-in-header", answer_and_close(LINE + b"Content-Le"), ConnectionFailed, IN_DOUBT, sessions=OWN),
    Case("cut-before-blank-line", answer_and_close(LINE + b"X: y\r\n"), ConnectionFailed, IN_DOUBT, sessions=OWN),
    Case("cut-in-header", answer_and_close(LINE + b"Content-Le"), InvalidResponse, CUT, sessions=LENT),
    Case("cut-in-header-of-a-2xx-that-needs-no-body", answer_and_close(b"HTTP/1.1 204 No Content\r\nX:"),
         ConnectionFailed, IN_DOUBT, call=set_secret, sessions=OWN),
    Case("reset-in-header", answer_and_reset(LINE + b"Content-Le"), ConnectionFailed, IN_DOUBT),
    Case("not-http", answer_and_close(b"SSH-2.0-OpenSSH_9.0\r\n"), ConnectionFailed, IN_DOUBT),
    Case("cut-after-head", answer_and_close(LENGTH_100), ConnectionFailed, CUT),
    Case("reset-after-head", answer_and_reset(LENGTH_100), ConnectionFailed, CUT),
    # truncated body
    Case("length-not-kept", answer_and_close(LENGTH_100 + RUN_BYTES), ConnectionFailed, CUT),
    Case("reset-in-body", answer_and_reset(LENGTH_100 + RUN_BYTES), ConnectionFailed, CUT),
    Case("chunks-without-end", answer_and_close(CHUNKED + chunked([RUN_BYTES], end=b"")), ConnectionFailed, CUT),
    Case("cut-in-chunk", answer_and_close(CHUNKED + b"64\r\n" + RUN_BYTES), ConnectionFailed, CUT),
    Case("cut-in-chunk-size", answer_and_close(CHUNKED + b"6"), ConnectionFailed, CUT),
    Case("cut-after-a-chunk", answer_and_close(CHUNKED + chunked([RUN_BYTES], end=b"")[:-1]), ConnectionFailed, CUT),
    Case("chunk-size-without-end", answer_and_close(CHUNKED + (b"%x;" % len(RUN_BYTES)).ljust(1 << 16) + RUN_BYTES + b"\r\n0\r\n\r\n"), ConnectionFailed, CUT),
    Case("cut-in-zeros-of-a-chunk-size", answer_and_close(CHUNKED + chunked([RUN_BYTES], end=b"00")), ConnectionFailed, CUT),
    Case("chunk-longer-than-its-size", answer_and_close(CHUNKED + b"%x\r\n%sXY0\r\n\r\n" % (len(RUN_BYTES), RUN_BYTES)), ConnectionFailed, CUT),
    Case("chunk-size-is-no-number", answer_and_close(CHUNKED + b"many\r\n" + RUN_BYTES), ConnectionFailed, CUT),
    Case("cut-in-gzip", two_hundred(GZIPPED[:-9], Content_Encoding="gzip"), ConnectionFailed, CUT),
    Case("cut-to-the-close", answer_and_close(head(200) + RUN_BYTES[:20]), InvalidResponse, CUT),
    # dripping and hanging
    Case("drips-status-line", answer_and_drip(b"", ok(RUN)), RequestTimeout, IN_DOUBT, sessions=OWN),
    Case("drips-headers", answer_and_drip(LINE, b"X: y\r\n" * 50), RequestTimeout, IN_DOUBT, sessions=OWN),
    Case("drips-body", answer_and_drip(LENGTH_100, b" " * 100), RequestTimeout, CUT),
    Case("drips-chunks", answer_and_drip(CHUNKED, chunked([b" "] * 50)), RequestTimeout, CUT),
    Case("drips-chunk-size", answer_and_drip(CHUNKED, b"0" * 500), RequestTimeout, CUT, sessions=OWN),
    Case("drips-to-the-close", answer_and_drip(head(200), b" " * 100), RequestTimeout, CUT),
    Case("drips-error-body", answer_and_drip(head(500, {"Content-Length": 100}), b" " * 100), ServerError,
         says(500), waits=True),
    Case("endless-continue", answer_and_drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50, 0.01),
         RequestTimeout, IN_DOUBT, sessions=OWN),
    Case("hangs", hang, RequestTimeout, IN_DOUBT),
    Case("get-hangs", hang, RequestTimeout, IN_DOUBT, call=health, retries=3),
    Case("hangs-in-head", answer_and_hang(LINE + b"X:"), RequestTimeout, IN_DOUBT),
    Case("hangs-after-head", answer_and_hang(LENGTH_100), RequestTimeout, CUT),
    Case("hangs-in-body", answer_and_hang(LENGTH_100 + RUN_BYTES), RequestTimeout, CUT),
    Case("hangs-in-chunk", answer_and_hang(CHUNKED + b"64\r\n" + RUN_BYTES), RequestTimeout, CUT),
    Case("hangs-in-error-body", answer_and_hang(head(429, {"Content-Length": 9})), RateLimited, says(429), waits=True),
    Case("never-reads", never_read, RequestTimeout, IN_DOUBT, hits=0, call=big_run),
    # a 2xx that the contract does not allow
    Case("html", two_hundred(HTML, Content_Type="text/html"), InvalidResponse, dict(CUT, details=HTML.decode())),
    Case("text", two_hundred(b"fine"), InvalidResponse, dict(CUT, details="fine")),
    Case("list", answer(ok([RUN])), InvalidResponse, dict(CUT, details=[RUN])),
    Case("null", answer(ok(None)), InvalidResponse, CUT),
    Case("number", answer(ok(7)), InvalidResponse, CUT),
    Case("string", answer(ok("ALLOW")), InvalidResponse, CUT),
    Case("empty", two_hundred(b""), InvalidResponse, CUT),
    Case("only-white-space", two_hundred(b" \r\n"), InvalidResponse, CUT),
    Case("no-content", answer(head(204)), InvalidResponse, says(204)),
    Case("not-utf-8", two_hundred(b'{"result": "\xff", "trace_id": "t-1"}'), InvalidResponse, CUT),
    Case("utf-16", two_hundred(json.dumps(RUN).encode("utf-16")), InvalidResponse, CUT),
    Case("nested-200000-deep", two_hundred(DEEP), InvalidResponse, CUT),
    Case("two-documents", two_hundred(RUN_BYTES + RUN_BYTES), InvalidResponse, CUT),
    Case("field-missing", answer(ok({"result": "ALLOW"})), InvalidResponse, dict(CUT, details={"result": "ALLOW"})),
    Case("field-missing-with-trace", answer(ok({"trace_id": "t-9"})), InvalidResponse, dict(CUT, trace_id="t-9")),
    Case("field-of-wrong-type", answer(ok({"result": "ALLOW", "trace_id": 5})), InvalidResponse, CUT),
    Case("larger-than-the-limit", too_large(head(200, {"Content-Length": TOO_LARGE})), InvalidResponse, CUT),
    Case("larger-than-the-limit-chunked", too_large(CHUNKED + b"%x\r\n" % TOO_LARGE), InvalidResponse, CUT),
    Case("bomb", answer(reply(200, BOMB, GZIP_HEAD)), InvalidResponse, CUT),
    Case("broken-gzip", two_hundred(RUN_BYTES, Content_Encoding="gzip"), InvalidResponse, CUT),
    Case("broken-gzip-checksum", two_hundred(GZIPPED[:-8] + b"\0" * 8, Content_Encoding="gzip"), InvalidResponse, CUT),
    Case("switches-protocols", answer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), InvalidResponse,
         says(101, effect="unknown")),
    Case("unknown-encoding", two_hundred(RUN_BYTES, Content_Encoding="br"), InvalidResponse, CUT),
    Case("encoded-twice", two_hundred(gzip.compress(GZIPPED), Content_Encoding="gzip, gzip"), InvalidResponse, CUT),
    # redirects and other 3xx
    Case("not-modified", answer(head(304)), InvalidResponse, says(304)),
    Case("redirect-to-nowhere", answer(reply(302)), InvalidResponse, says(302)),
    Case("redirect-that-hangs", answer_and_hang(head(302, {"Location": "/x", "Content-Length": 10})),
         InvalidResponse, says(302)),
    # retries: how often, and what is said of the first attempts afterwards
    Case("post-cut-is-not-repeated", answer_and_close(LENGTH_100), ConnectionFailed, CUT, retries=3),
    Case("post-dropped-is-not-repeated", drop, ConnectionFailed, IN_DOUBT, retries=3),
    Case("post-502-is-not-repeated", answer(reply(502)), ServerError, says(502), retries=3),
    Case("post-504-is-not-repeated", answer(reply(504)), ServerError, says(504), retries=3),
    Case("post-500-is-not-repeated", answer(reply(500)), ServerError, says(500), retries=3),
    Case("get-500-is-not-repeated", answer(reply(500)), ServerError, says(500), call=health, retries=3),
    Case("post-503-is-repeated", answer(reply(503)), ServerError, says(503, attempts=2), retries=1),
    Case("post-429-is-repeated", later(429, "0"), RateLimited, says(429, attempts=2, retry_after=0.0), retries=1),
    Case("get-cut-is-repeated", answer_and_close(LENGTH_100), ConnectionFailed, dict(CUT, attempts=2),
         call=health, retries=1),
    Case("get-dropped-is-repeated", drop, ConnectionFailed, dict(IN_DOUBT, attempts=2), call=health, retries=1),
    Case("get-502-is-repeated", answer(reply(502)), ServerError, says(502, attempts=2), call=health, retries=1),
    Case("get-504-is-repeated", answer(reply(504)), ServerError, says(504, attempts=2), call=health, retries=1),
    Case("get-drops-then-404", (drop, answer(reply(404))), NotFound, says(404, attempts=2), call=health, retries=1),
    Case("refused-is-repeated", hang, ConnectionFailed, dict(NOT_SENT, attempts=2), hits=0, retries=1,
         url="http://127.0.0.1:{closed}"),
    # Retry-After
    Case("retry-after-beyond-the-deadline", later(503, "120"), ServerError, says(503, retry_after=120.0), retries=3),
    Case("retry-after-date-passed", later(503, formatdate(0, usegmt=True)), ServerError,
         says(503, attempts=2, retry_after=0.0), retries=1),
    Case("retry-after-is-ignored-elsewhere", later(500, "0"), ServerError, says(500), retries=3),
]  # fmt: skip

ROWS = [(case, kind) for case in CASES for kind in case.sessions]
assert len({(case.id, kind) for case, kind in ROWS}) == len(ROWS)


class Outcome(NamedTuple):
    """What one row has come to."""

    error: Optional[BaseException]
    result: Any
    seconds_over: float
    hits: int
    request_ids: Any


def play(case: Case, kind: str) -> Outcome:
    """Run one row."""
    if case.waits or case.error is RequestTimeout:
        return with_a_short_deadline(lambda seconds: play_for(seconds, case, kind))
    return play_for(PATIENT, case, kind)[0]


def play_for(deadline_seconds: float, case: Case, kind: str) -> Tuple[Outcome, FaultServer, float]:
    scripts = case.script if isinstance(case.script, tuple) else (case.script,)
    error, result = None, None
    with FaultServer(*scripts, tls=case.tls) as server, requests.Session() as lent:
        with Client(
            case.url.format(url=server.url, port=server.port, closed=closed_port()),
            timeout=deadline_seconds,
            retries=case.retries,
            verify=case.verify,
            session=lent if kind == "lent" else None,
        ) as client:
            started = time.monotonic()
            try:
                result = case.call(client)
            except BaseException as caught:  # noqa: BLE001  # looked at by the test, whatever it is
                error = caught
            over = time.monotonic() - started - deadline_seconds
    ids = {item.headers["x-request-id"] for item in server.requests}
    return Outcome(error, result, over, server.hits, ids), server, started


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Dict[Tuple[str, str], Future]]:  # type: ignore[type-arg]
    yield from side_by_side(request, "test_fault", play)


@pytest.mark.parametrize("row", ROWS, ids=["{}-{}".format(case.id, kind) for case, kind in ROWS])
def test_fault(row: Tuple[Case, str], outcomes: Any) -> None:
    case, kind = row
    outcome = outcomes[case.id, kind].result()
    error = outcome.error
    assert type(error) is case.error, (error, outcome.result)
    facts = dict({"attempts": 1, "trace_id": None}, **case.facts)
    assert {name: getattr(error, name) for name in facts} == facts, str(error)
    assert outcome.hits == (facts["attempts"] if case.hits is None else case.hits)
    assert outcome.request_ids <= {error.request_id}
    assert error.request_id
    assert outcome.seconds_over < SLACK_SECONDS
    assert isinstance(error, TimeoutError) == (case.error is RequestTimeout)


# -- statuses and the bodies that come with them

STATUSES = {
    status: cls
    for cls, statuses in [
        (InvalidInput, (400, 413, 415, 422, 431)),
        (AuthenticationError, (401, 407, 511)),
        (PermissionDenied, (403,)),
        (NotFound, (404,)),
        (RequestTimeout, (408, 425)),
        (Conflict, (409,)),
        (RateLimited, (429,)),
        (HestiaError, (402, 405, 406, 410, 411, 418, 451, 499)),
        (ServerError, (500, 501, 502, 503, 504, 507, 520, 599)),
    ]
    for status in statuses
}
# Of these a page decides nothing: it is a gateway's. Of three any body is that is neither JSON nor empty.
OF_THE_SERVICE_ALONE = {400, 402, 403, 404, 405, 406, 409, 410, 411, 418, 422, 451, 499}
DECIDING = {403, 404, 409}
_FLAT = {"code": "NO", "message": "not now", "trace_id": "t-7", "details": {"rule": 3}}
_FIELDS = [
    {"loc": ["body", "input"], "msg": "field required", "type": "missing"},
    {"loc": ["body", "options", 0], "msg": "wrong", "type": "x"},
]
PLAIN_TEXT, GZIP = {"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}
# The body (bytes are sent as they are); code, message and trace id of the error, where None stands for the class's own code
# and for the plain message; headers.
BODIES: Dict[str, Tuple[Any, ...]] = {
    "flat": (_FLAT, "NO", "not now", "t-7"),
    "flat with error": ({"error": "USED_UP", "message": "wait", "trace_id": "t"}, "USED_UP", "wait", "t"),
    "error as words": ({"error": "it broke"}, None, "it broke", None),
    "nested": ({"detail": _FLAT}, "NO", "not now", "t-7"),
    "nested under error": ({"error": _FLAT}, "NO", "not now", "t-7"),
    "both": ({"trace_id": "t-8", "detail": _FLAT}, "NO", "not now", "t-8"),
    "detail as words": ({"detail": "Not today"}, None, "Not today", None),
    "detail as words with a code": ({"code": "X", "detail": "words"}, "X", "words", None),
    "detail with a reason": ({"detail": {"reason": "because"}}, None, "because", None),
    "detail null": ({"detail": None, "message": "m"}, None, "m", None),
    "detail null and an error": ({"detail": None, "error": {"code": "X", "message": "m"}}, "X", "m", None),
    "fields": ({"detail": _FIELDS}, None, "body.input: field required; body.options.0: wrong", None),
    "fields, odd": ({"detail": [{"msg": "m"}, {"loc": "x"}, None]}, None, "m; invalid; None", None),
    "bare list": ([1, "a"], None, "1; a", None),
    "text": (b"upstream   is\ndown", None, "upstream is down", None, PLAIN_TEXT),
    "text, long": (b"x" * 1000, None, "x" * 297 + "...", None, PLAIN_TEXT),
    "html": (HTML, None, None, None, {"Content-Type": "text/html"}),
    "html after a blank": (b"\n " + HTML, None, None, None, {"Content-Type": "text/html"}),
    "empty": (b"", None, None, None),
    "empty object": ({}, None, None, None),
    "null": (None, None, None, None),
    "number": (7, None, None, None),
    "fields of a wrong type": ({"code": 7, "message": [], "trace_id": {}, "detail": None}, None, None, None),
    "fields that are blank": ({"message": "  ", "trace_id": " ", "code": ""}, None, None, None),
    "not UTF-8": (b'{"message": "caf\xe9", "trace_id": "t-7"}', None, "caf\ufffd", "t-7"),
    "gzip": (gzip.compress(json.dumps(_FLAT).encode()), "NO", "not now", "t-7", GZIP),
    "gzip, broken": (b"...", None, None, None, GZIP),
    "gzip, bomb": (gzip.compress(b"{" + b" " * 2_000_000), None, None, None, GZIP),
    "unknown encoding": (b"...", None, None, None, {"Content-Encoding": "br"}),
}  # fmt: skip


def reply_with(status: int, body: Any, *row: Any) -> bytes:
    return reply(status, body if isinstance(body, bytes) else json.dumps(body).encode(), *row[3:])


@pytest.mark.parametrize(
    ("status", "kind"),
    [(status, "own") for status in STATUSES] + [(400, "lent"), (403, "lent"), (500, "lent")],
)
def test_every_status_with_every_body(status: int, kind: str) -> None:
    script = answer(*[reply_with(status, *row) for row in BODIES.values()])
    with served(script, kind=kind, timeout=PATIENT, retries=0) as (client, server):
        for name, (body, code, message, trace_id, *_) in BODIES.items():
            error = error_of(client.health)
            pages = {"html": OF_THE_SERVICE_ALONE, "text": DECIDING}
            of_gateway = status in pages.get(re.split("\\W", name)[0], ())
            cls = ServerError if of_gateway else STATUSES[status]
            own_code = "REFUSED" if cls is HestiaError else cls.default_code
            speaker = "a gateway" if of_gateway else "the service"
            assert type(error) is cls, name
            assert error.code == (code or ("GATEWAY" if of_gateway else own_code)), name
            assert error.message == (message or "{} answered {}".format(speaker, status)), name
            assert (error.trace_id, error.status, error.attempts) == (trace_id, status, 1), name
            assert error.delivered is (status != 511), name  # a network's own answer
            assert isinstance(body, bytes) or error.details == body, name
        assert server.hits == len(BODIES)


RUNNING: Dict[str, Callable[[Client], Any]] = {
    "run": run,
    "run_stream": lambda client: client.run_stream("x"),
    "chat": lambda client: client.chat("x"),
    "agents": lambda client: client.agents.run("a", "x"),
}


@pytest.mark.parametrize("name", ["bare list", "detail as words", "empty", "flat", "nested"])
@pytest.mark.parametrize("call", RUNNING.values(), ids=RUNNING)
def test_403_is_governance_where_something_runs(call: Callable[[Client], Any], name: str) -> None:
    _, code, message, trace_id, *_ = BODIES[name]
    with served(answer(reply_with(403, *BODIES[name])), timeout=PATIENT) as (client, server):
        error = error_of(lambda: call(client))
        assert type(error) is GovernanceBlock
        assert (error.code, error.trace_id, error.delivered) == (code or "GOVERNANCE_BLOCK", trace_id, True)
        assert error.message == (message or "blocked by governance")
        assert server.hits == 1


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "forbidden", "INSUFFICIENT_SCOPE"])
@pytest.mark.parametrize("form", ["{}", '{{"detail": {}}}'], ids=["flat", "nested"])
def test_a_403_whose_code_speaks_of_permission_is_not_governance(code: str, form: str) -> None:
    body = form.format(json.dumps({"code": code, "message": "this key may not run agents"}))
    with served(answer(reply(403, body.encode()))) as (client, _):
        error = error_of(lambda: run(client))
    assert (type(error), error.code, error.message) == (PermissionDenied, code, "this key may not run agents")


@pytest.mark.parametrize("form", [
    "{}", '{{"detail": {}}}', '{{"detail": [{}]}}', '{{"detail": [{{"msg": {}}}]}}', '{{"detail": [{{"loc": [{}]}}]}}',
])  # fmt: skip
def test_a_body_nested_as_deep_as_json_reads_is_still_an_answer(form: str) -> None:
    """`str` of a list goes less deep than the parser that made it (Python 3.7 and 3.12)."""
    bodies = [form.format("[" * depth + "]" * depth).encode() for depth in range(600, 1100, 4)]
    with served(answer(*[reply(422, body) for body in bodies])) as (client, _):
        assert {type(error_of(lambda: run(client))) for _ in bodies} == {InvalidInput}


# -- what looks odd and is good

GOOD: Dict[str, Tuple[Script, ...]] = {
    "plain": (answer(ok(RUN)),),
    "unknown-fields": (answer(ok(dict(RUN, colour="blue", nested={"a": [1]}))),),
    "byte-order-mark": (two_hundred(b"\xef\xbb\xbf" + RUN_BYTES),),
    "wrong-content-type": (two_hundred(RUN_BYTES, Content_Type="text/plain"),),
    "no-content-type": (two_hundred(RUN_BYTES, Content_Type=None),),
    "201": (answer(reply(201, RUN_BYTES)),),
    "chunked": (answer(CHUNKED + chunked([RUN_BYTES[:7], RUN_BYTES[7:]])),),
    "chunk-extensions-and-trailers": (
        answer(CHUNKED + b"%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(RUN_BYTES), RUN_BYTES)),
    ),
    "to-the-close": (answer_and_close(head(200) + RUN_BYTES),),
    "http-1.0": (answer_and_close(b"HTTP/1.0 200 OK\r\n\r\n" + RUN_BYTES),),
    "byte-by-byte": (answer_and_drip(b"", ok(RUN), 0.001),),
    "gzip": (two_hundred(GZIPPED, Content_Encoding="gzip"),),
    "gzip-in-two-members": (
        two_hundred(gzip.compress(RUN_BYTES[:9]) + gzip.compress(RUN_BYTES[9:]), Content_Encoding="gzip"),
    ),
    "gzip-with-padding": (two_hundred(GZIPPED + b"\0" * 20, Content_Encoding="gzip"),),
    "deflate": (two_hundred(zlib.compress(RUN_BYTES), Content_Encoding="deflate"),),
    "raw-deflate": (two_hundred(zlib.compress(RUN_BYTES)[2:-4], Content_Encoding="deflate"),),
    # zlib has taken all that came, and still has the last blank in hand
    "raw-deflate-with-more-in-hand": (
        two_hundred(zlib.compress(RUN_BYTES.ljust(65537), 1)[2:-4], Content_Encoding="deflate"),
    ),
    "identity": (two_hundred(RUN_BYTES, Content_Encoding="identity"),),
    "continue-first": (answer(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(RUN)),),
    "refused-then-good": (answer(reply(503, headers={"Retry-After": "0"}), ok(RUN)),),
    "limited-then-good": (answer(reply(429, HTML), ok(RUN)),),
    "not-taken-then-good": (answer(reply(408, headers={"Retry-After": "0"}), ok(RUN)),),
    "too-early-then-good": (answer(reply(425, headers={"Retry-After": "0"}), ok(RUN)),),
}


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("name", GOOD)
def test_odd_but_good(name: str, kind: str) -> None:
    with served(*GOOD[name], kind=kind, timeout=PATIENT, retries=1) as (client, _):
        assert run(client) == RunResponse("ALLOW", "t-1")


def test_interim_answers_are_passed_over() -> None:
    """A 103 that comes long before its answer must not be taken for it, nor the answer for the next request's."""

    def hints_first(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        wire.pause(0.1)
        wire.send(ok(RUN))
        wire.request()
        wire.send(ok({"status": "second"}))

    with FaultServer(hints_first) as server, Client(server.url, timeout=PATIENT) as client:
        assert run(client) == RunResponse("ALLOW", "t-1")
        assert client.health() == HealthResponse("second")
        assert server.connections == 1


@pytest.mark.parametrize(("first", "call", "value"), [
    (drop, health, HealthResponse("ok")),
    (answer_and_reset(b""), health, HealthResponse("ok")),
    (answer_and_close(LENGTH_100), health, HealthResponse("ok")),
    (drop, lambda client: client.secrets.delete("key"), None),
], ids=["dropped", "reset", "cut", "delete-dropped"])  # fmt: skip
def test_a_read_that_broke_is_repeated(first: Script, call: Callable[[Client], Any], value: Any) -> None:
    with served(first, answer(ok(HEALTH)), timeout=PATIENT, retries=1) as (client, server):
        assert call(client) == value
        assert server.hits == 2
        assert len({request.headers["x-request-id"] for request in server.requests}) == 1


@pytest.mark.parametrize(("scripts", "facts"), [
    ((drop_and_leave,), (ConnectionFailed, None, 2, 1)),
    ((drop, answer(reply(404))), (NotFound, True, 2, 2)),
], ids=["by the network", "by the service"])  # fmt: skip
def test_a_second_attempt_that_is_refused_does_not_hide_that_the_first_may_have_arrived(
    scripts: Tuple[Script, ...], facts: Any
) -> None:
    with served(*scripts, timeout=PATIENT, retries=1) as (client, server):
        error = error_of(lambda: client.secrets.delete("key"))
        assert (type(error), error.delivered, error.attempts, server.hits) == facts
    assert error.effect == "unknown"
    assert "it may have taken effect" in str(error)


def test_a_failure_being_handled_is_not_taken_for_the_call_s_own() -> None:
    """A fallback inside ``except``: the second service got the POST, so it must not be said, or done, otherwise."""
    with FaultServer(drop) as second:
        with Client("http://127.0.0.1:{}".format(closed_port()), retries=0) as first, Client(
            second.url, retries=3
        ) as other:
            try:
                run(first)
            except ConnectionFailed as refused:
                assert refused.delivered is False
                with pytest.raises(ConnectionFailed) as caught:
                    run(other)
        assert (caught.value.delivered, caught.value.attempts, second.hits) == (None, 1, 1)


HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"
RETRY_AFTER = {
    None: None, "": None, " ": None, "0": 0.0, "120": 120.0, " 7 ": 7.0, "1.5": 1.5, "31536000": 31536000.0,
    "99999999999": None, "9" * 400: None, "-5": None, "+5": None, "1e3": None, "0x10": None, "1_0": None,
    ".5": None, "5 s": None, "\xb2": None, "nan": None, "inf": None, "soon, I hope": None,
    # in these forms, an hour from now or an hour ago; and dates that are none
    (HTTP_DATE, 3600): 3600, ("%A, %d-%b-%y %H:%M:%S GMT", 3600): 3600, ("%a %b %d %H:%M:%S %Y", 3600): 3600,
    ("%a, %d %b %Y %H:%M:%S -0100", 0): 3600, (HTTP_DATE, -3600): 0.0, (HTTP_DATE, 4 * 10**8): None,
    "Sun, 09 Sep 99999999 01:47:10 GMT": None, "Sun, 99 Foo 2001 01:47:10 GMT": None,
    "Sun, 09 Sep 2001 99:99:99 GMT": None,
}  # fmt: skip


def test_retry_after_in_seconds_or_as_a_date_and_no_nonsense() -> None:
    def header(value: Any) -> Any:
        return time.strftime(value[0], time.gmtime(time.time() + value[1])) if type(value) is tuple else value

    replies = [reply(503, headers={"Retry-After": header(value)}) for value in RETRY_AFTER]
    with served(answer(*replies), timeout=PATIENT, retries=0) as (client, _):
        for value, seconds in RETRY_AFTER.items():
            expected = pytest.approx(seconds, abs=60) if type(value) is tuple and seconds else seconds
            assert error_of(client.health).retry_after == expected, value


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_and_never_followed(status: int, kind: str) -> None:
    with FaultServer(answer(ok(RUN))) as other:
        elsewhere = "http://user:hunter2@127.0.0.1:{}/api/v1/run?token=hunter2#hunter2".format(other.port)
        replies = [
            reply(status, b"moved", {"Location": target}) for target in (elsewhere, "/new?token=hunter2")
        ]
        with served(answer(*replies), kind=kind, api_key="the-key", timeout=PATIENT) as (client, server):
            for target in ("http://127.0.0.1:{}/api/v1/run".format(other.port), "/new"):
                with pytest.raises(InvalidResponse) as caught:
                    run(client)
                assert "redirects to {},".format(target) in caught.value.message
                assert "hunter2" not in str(caught.value)
                assert (caught.value.status, caught.value.delivered, caught.value.attempts) == (
                    status,
                    True,
                    1,
                )
            assert (server.hits, other.connections) == (2, 0)


def test_a_redirect_to_nowhere_is_one() -> None:
    with served(answer(reply(303, b"", {"Location": ""})), timeout=PATIENT) as (client, _):
        with pytest.raises(
            InvalidResponse, match="redirects to an address that is empty, and a redirect is never"
        ):
            run(client)


def test_a_look_up_that_hangs_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answered.wait(30) and [])
    try:
        started = time.monotonic()
        with Client("http://slow.example", timeout=HURRIED) as client, pytest.raises(
            RequestTimeout
        ) as caught:
            run(client)
        assert time.monotonic() - started < HURRIED + SLACK_SECONDS
        assert caught.value.delivered is False
    finally:
        answered.set()


def test_a_deadline_is_one_for_all_attempts() -> None:
    with FaultServer(answer(reply(503))) as server, Client(server.url, timeout=1, retries=100) as client:
        started = time.monotonic()
        with pytest.raises(ServerError) as caught:
            client.health()
        assert time.monotonic() - started < 1 + SLACK_SECONDS
        assert caught.value.attempts == server.hits


# -- memory


def lists_in_lists(wire: Wire) -> None:
    wire.request()
    wire.send(head(200, {"Transfer-Encoding": "chunked"}))
    for _ in range(1000):
        wire.send(chunked([b"[" + b"[]," * 21_000], end=b""))


_STREAM_HEAD = {"Content-Type": "text/event-stream"}
_ENDLESS_OBJECT = b'data: {"a":[\n' + b"data: %s\n" % (b"7," * 500) * 20_000
LARGE: Dict[str, Tuple[Script, str]] = {
    "larger-than-the-limit": (too_large(head(200, {"Content-Length": TOO_LARGE})), "InvalidResponse 200"),
    "bomb": (answer(reply(200, BOMB, GZIP_HEAD)), "InvalidResponse 200"),
    "deep": (answer(reply(200, DEEP)), "InvalidResponse 200"),
    # once decoded they would take twenty times their size: beyond the limit they are not even read
    "lists-in-lists": (lists_in_lists, "InvalidResponse 200"),
    "large-error": (too_large(head(500, {"Content-Length": TOO_LARGE})), "ServerError 500"),
    "error-bomb": (answer(reply(500, BOMB, GZIP_HEAD)), "ServerError 500"),
    "stream-of-html": (too_large(head(200, {"Content-Type": "text/html"}), 8 * TOO_LARGE), "InvalidResponse 200"),
    "stream-of-an-endless-line": (too_large(head(200, _STREAM_HEAD) + b"data: ", 8 * TOO_LARGE), "InvalidResponse 200"),
    "stream-of-an-endless-comment": (too_large(head(200, _STREAM_HEAD) + b":", 8 * TOO_LARGE), "InvalidResponse 200"),
    "stream-of-an-endless-object": (answer(head(200, _STREAM_HEAD) + _ENDLESS_OBJECT), "InvalidResponse 200"),
    "stream-of-a-bomb": (answer(head(200, dict(_STREAM_HEAD, **{"Content-Encoding": "gzip"})) + BOMB),
        "InvalidResponse 200"),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_memory_is_bounded(name: str) -> None:
    script, expected = LARGE[name]
    with FaultServer(script) as server, Client(server.url, timeout=60, retries=0) as client:
        tracemalloc.start()  # the server makes no copy of what it sends
        try:
            with pytest.raises(HestiaError) as caught:
                list(client.run_stream("x")) if name.startswith("stream") else client.health()
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert "{} {}".format(type(caught.value).__name__, caught.value.status) == expected
        assert peak_bytes < (20 if name == "lists-in-lists" else 100) * 1024 * 1024
