"""The one attempt loop: a call is tried until its answer is in hand, its error is final, or its deadline has passed.

Every failure leaves as an error of errors.py that knows what became of the request, and the retry decision reads nothing
else about it.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import AbstractSet, Any, Callable, Mapping, NoReturn, Optional, TypeVar, Union

import requests

from .. import errors
from .._check import check_headers, check_verify, check_whole_number
from .._lazy import load_before_fork
from .._redact import MASK, one_line, secret
from .._version import __version__
from ..deadline import Deadline
from .answers import (
    Answer,
    ByteStream,
    Receive,
    as_answer,
    as_json,
    as_nothing,
    as_stream,
    redirected,
    refused,
)
from .body import close
from .call import Call, RetryPolicy
from .connections import (
    Bearer,
    LentSession,
    OwnSessions,
    Redirected,
    complained_of,
    prepared_url,
    warn_of_exposure,
)
from .failures import FAILURES, map_exception
from .sockets import Attempt

_T = TypeVar("_T")
USER_AGENT = "hestiaos-sdk/1.0.1 hestiaos-lite/" + __version__
_HARMLESS_HEADERS = ("accept", "accept-language", "user-agent")
# what the first look-up of a host, the first answer and the first page or date in one load
load_before_fork("encodings.idna", "email.utils", "html")


class Transport:
    """Sends the calls of one client; shared by its threads, and usable after a fork.

    Args:
        base_url: checked by config, without a trailing slash.
        api_key: sent as a bearer token, or None.
        headers: sent with every request, over our own.
        session: the caller's requests.Session, used as it is and never closed; else each thread of each process
            has one of ours.
        verify: as for requests; None leaves it to the session and the environment.
        sleep: waits between attempts.

    Attributes:
        secrets: what no error may show: the key, and the values of the caller's headers.
    """

    def __init__(
        self,
        base_url: str,
        api_key: Optional[str] = None,
        *,
        headers: Optional[Mapping[str, str]] = None,
        session: Optional[requests.Session] = None,
        verify: Union[bool, str, None] = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        url = prepared_url(base_url)
        verify = check_verify(verify)
        warn_of_exposure(base_url, api_key, verify)
        auth = Bearer(api_key) if api_key else None
        self._sessions: Union[LentSession, OwnSessions] = (
            OwnSessions(url, auth, verify) if session is None else LentSession(session, url, auth, verify)
        )
        given = check_headers(headers or {})
        self._headers = dict(
            {
                "User-Agent": USER_AGENT,
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
                "Connection": "keep-alive",
            },
            **given,
        )
        values = [value for name, value in given.items() if name.lower() not in _HARMLESS_HEADERS]
        # "Bearer KEY" is echoed whole, or the key alone
        keys = [secret(value.split()[1]) for value in values if len(value.split()) == 2]
        self.secrets = tuple(([api_key] if api_key else []) + values + keys)
        self._base_url = url
        self._sleep = sleep

    def request(self, call: Call, receive: Receive[_T]) -> _T:
        """Send a call and return what ``receive`` makes of its good answer; errors are those of docs/reference.md."""
        deadline = call.deadline
        call.base_url = self._base_url
        call.attempts = 0
        call.earlier_effect = errors.NONE
        earlier_delivered: Optional[bool] = False
        is_logged = _log.isEnabledFor(logging.DEBUG)
        while True:
            call.attempts += 1
            attempt = Attempt(deadline)
            response: Optional[requests.Response] = None
            result: Optional[_T] = None
            started = time.monotonic()
            try:
                with attempt:
                    session, request, options = self._sessions.prepare(call, self._headers_of(call), attempt)
                    if is_logged:
                        log_head(">", call, call.method + " " + call.path, request.headers, _SHOWN)
                    attempt.handed_over = True
                    try:
                        response = session.send(request, stream=True, allow_redirects=False, **options)
                    except requests.HTTPError as error:
                        response = complained_of(error, request)
                    if is_logged:
                        log_head("<", call, response.status_code, response.headers, _SHOWN_OF_ANSWER)
                    attempt.borrow_socket(response)
                    if not 200 <= response.status_code < 300 and response.status_code not in call.accept:
                        raise refused(call, response, attempt)
                    result = receive(call, response, attempt)
                return result
            except Redirected as redirect:
                failure: errors.HestiaError = redirected(call, redirect.status, redirect.target)
            except errors.HestiaError as error:
                failure = error
            except FAILURES as error:
                failure = map_exception(error, call, attempt, response)
            finally:
                if response is not None and not isinstance(result, ByteStream):
                    close(response)
                if is_logged:
                    log_attempt(call, response, started)
            failure.with_facts(earlier_effect=call.earlier_effect)
            if failure.delivered is False and earlier_delivered is not False:
                failure.with_facts(delivered=earlier_delivered, never_left=True)
            delay_seconds = call.retry.delay_seconds(failure, call.attempts)
            if delay_seconds is None or delay_seconds >= deadline.remaining():
                # only now: a POST that may have been delivered is never repeated, not even one that changes nothing
                failure.with_facts(changes=call.changes, has_idempotency_key=call.has_idempotency_key)
                try:
                    # without the frames of the attempt, whose variables hold what the service wrote
                    raise failure.with_traceback(None)
                finally:
                    del failure  # or it and this frame would hold each other until the collector runs
            call.earlier_effect = failure.effect  # the most serious so far
            earlier_delivered = earlier_delivered or failure.delivered
            log_retry(call, delay_seconds, failure.code)
            self._sleep(delay_seconds)

    def close(self) -> None:
        """Close the connections of every thread; a session that was lent stays as it is."""
        self._sessions.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a client cannot be sent to another process with its key and connections; make one where it is used"
        )

    def _headers_of(self, call: Call) -> Mapping[str, str]:
        headers = dict(self._headers)
        headers.update(call.headers)
        headers["X-Request-Id"] = call.request_id
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            headers["Content-Length"] = str(len(call.body))
        return headers


class Caller:
    """One client's way to its service: a public method calls one of these, and this the transport.

    Args:
        transport: closed with the caller.
        timeout_seconds: total deadline of a call that names none.
        once: when a POST may be repeated.
        repeatable: when a GET or DELETE may be repeated.
        prefix: before every path.
        max_body_bytes: of an answer no more is read; checked here.
    """

    def __init__(
        self,
        transport: Transport,
        timeout_seconds: float,
        *,
        once: RetryPolicy,
        repeatable: RetryPolicy,
        max_body_bytes: int,
        prefix: str = "",
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._transport = transport
        self._once = once
        self._repeatable = repeatable
        self._prefix = prefix
        self._max_body_bytes = check_whole_number(
            "max_body_bytes", max_body_bytes, least=1, code="CONFIGURATION"
        )

    def get(self, path: str, decode: Callable[[Any], _T], **options: Any) -> _T:
        """GET and decode; for the options of every method see `Call`."""
        return self._transport.request(self._call("GET", path, None, options), partial(as_json, decode))

    def post(self, path: str, body: Any, decode: Callable[[Any], _T], **options: Any) -> _T:
        """POST and decode."""
        return self._transport.request(self._call("POST", path, body, options), partial(as_json, decode))

    def post_for_answer(self, path: str, body: Any, **options: Any) -> Answer:
        """POST and return the status too, of a 2xx or one that ``accept`` names."""
        return self._transport.request(self._call("POST", path, body, options), as_answer)

    def stream(self, path: str, body: Any, *, silence_seconds: Optional[float], **options: Any) -> ByteStream:
        """POST and return the answer's bytes as they arrive; ``silence_seconds`` bounds the wait for each."""
        return self._transport.request(
            self._call("POST", path, body, options), partial(as_stream, silence_seconds)
        )

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> None:
        """Send a call of which only the 2xx matters; its body is not read."""
        self._transport.request(self._call(method, path, body, options), as_nothing)

    def close(self) -> None:
        """Close every connection that no call and no stream is using; a later call opens new ones."""
        self._transport.close()

    def _call(self, method: str, path: str, body: Any, options: Any) -> Call:
        """Describe a call; a POST that may have been delivered is never repeated, a GET or DELETE may be."""
        seconds = options.pop("timeout_seconds", self.timeout_seconds)
        options.setdefault("deadline", Deadline(seconds))
        options.setdefault("max_body_bytes", self._max_body_bytes)
        options["secrets"] = self._transport.secrets + options.get("secrets", ())
        retry = self._once if method == "POST" else self._repeatable
        return Call(method, self._prefix + path, body, retry=retry, **options)


# The package's log lines, on the logger ``hestiaos_lite``: each retry at INFO; each attempt and both heads at DEBUG.
# Each is one harmless line. Of the heads no secret is shown, known as one or not; no body ever is.

_log = logging.getLogger("hestiaos_lite")
# logging is the application's to switch on
_log.addHandler(logging.NullHandler())

# Of a request's headers only these are shown: a lent session may add any other.
# fmt: off
_SHOWN = {
    "accept", "accept-encoding", "cache-control", "connection", "content-length", "content-type", "idempotency-key",
    "tenant-id", "thread-id", "user-agent", "x-request-id",
}
# Of an answer's headers only these: any other may grant something, or lead to where a secret is in the URL.
_SHOWN_OF_ANSWER = {
    "age", "allow", "cache-control", "connection", "content-encoding", "content-language", "content-length",
    "content-type", "date", "expires", "keep-alive", "last-modified", "retry-after", "server", "transfer-encoding",
    "vary", "via", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-request-id", "x-trace-id",
}
# fmt: on


def log_head(mark: str, call: Call, first: Any, headers: Mapping[str, Any], shown: AbstractSet[str]) -> None:
    """Note the head of a request that is about to be sent, or of an answer."""
    lines = []
    for name, value in headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        text = "{}: {}".format(name, text if name.lower() in shown else MASK)
        lines.append(one_line(text, call.secrets, limit=200))
    _log.debug("%s %s; %s", mark, first, ", ".join(lines))


def log_attempt(call: Call, response: Optional[requests.Response], started: float) -> None:
    """Note what an attempt came to, ``started`` by the monotonic clock."""
    _log.debug(
        "%s %s %s in %d ms, attempt %d, request id %s",
        call.method,
        call.path,
        "no answer" if response is None else response.status_code,
        (time.monotonic() - started) * 1000,
        call.attempts,
        call.request_id,
    )


def log_retry(call: Call, delay_seconds: float, code: str) -> None:
    """Note that an attempt failed with ``code`` and that there will be another."""
    _log.info(
        "retry %s %s in %.2f s after attempt %d: %s, request id %s",
        call.method,
        call.path,
        delay_seconds,
        call.attempts,
        code,
        call.request_id,
    )
