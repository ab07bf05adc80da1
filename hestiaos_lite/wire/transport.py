"""The one attempt loop: a call is tried until its answer is in hand, its error is final, or its deadline has passed.

Every failure leaves as an error of errors.py that knows what became of the request, and the retry decision reads nothing
else about it.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import AbstractSet, Any, Callable, Mapping, NoReturn, Optional, Tuple, TypeVar, Union

import requests

from .. import errors
from .._check import check_headers, check_verify, check_whole_number
from .._lazy import load_before_fork
from .._redact import MASK, Secrets, one_line, secret
from .._version import __version__
from ..config import Settings
from ..deadline import Deadline
from .answers import Answer, ByteStream, Receive, as_answer, as_json, as_stream, refused
from .call import Call, RetryPolicy
from .connections import Bearer, CallersSession, OwnSessions, complained_of, prepared_url, warn_of_exposure
from .failures import FAILURES, map_exception
from .sockets import Attempt

_T = TypeVar("_T")
USER_AGENT = "hestiaos-sdk/1.0.1 hestiaos-lite/" + __version__
_HEADERS = {
    "User-Agent": USER_AGENT,
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
}
_HARMLESS_HEADERS = ("accept", "accept-language", "user-agent")
# what the first look-up of a host, the first answer and the first page or date in one load
load_before_fork("encodings.idna", "email.utils", "html")


class Caller:
    """One client's way to its service: what its methods call; shared by its threads, and usable after a fork.

    Args:
        settings: of them the base URL, the key (sent as a bearer token) and the total deadline of a call that names none.
        retry: when a failed attempt is repeated; a POST without an idempotency key only where nothing was done.
        max_body_bytes: of an answer no more is read; checked here.
        prefix: before every path.
        headers: sent with every request, over our own.
        session: the caller's requests.Session, used as it is and never closed; else each thread of each process
            has one of ours.
        verify: as for requests; None leaves it to the session and the environment.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        retry: RetryPolicy,
        max_body_bytes: int,
        prefix: str = "",
        headers: Optional[Mapping[str, str]] = None,
        session: Optional[requests.Session] = None,
        verify: Union[bool, str, None] = None,
    ) -> None:
        api_key = settings.api_key
        url = prepared_url(settings.base_url)
        verify = check_verify(verify)
        warn_of_exposure(settings.base_url, api_key, verify)
        if session is not None and not (
            hasattr(session, "prepare_request") and hasattr(session, "trust_env")
        ):
            what = "session must be a requests.Session, not of the type {}".format(type(session).__name__)
            raise errors.InvalidInput(what, code="CONFIGURATION")
        auth = Bearer(api_key) if api_key else None
        self._sessions: Union[CallersSession, OwnSessions] = (
            OwnSessions(url, auth, verify) if session is None else CallersSession(session, url, auth, verify)
        )
        given = check_headers(headers or {})
        self._headers = dict(_HEADERS, **given)
        values = [value for name, value in given.items() if name.lower() not in _HARMLESS_HEADERS]
        # "Bearer KEY" is echoed whole, or the key alone
        keys = [secret(value.split()[1]) for value in values if len(value.split()) == 2]
        # what no error may show
        self._secrets = Secrets(([api_key] if api_key else []) + values + keys)
        self._base_url = url
        self._prefix = prefix
        self._retry = retry
        self._max_body_bytes = check_whole_number(
            "max_body_bytes", max_body_bytes, least=1, code="CONFIGURATION"
        )
        self.timeout_seconds = settings.timeout_seconds

    def get(self, path: str, decode: Callable[[Any], _T], **options: Any) -> _T:
        """GET and decode; for the options of every method see `Call`."""
        return self.request(self._call("GET", path, None, **options), partial(as_json, decode))

    def post(self, path: str, body: Any, decode: Callable[[Any], _T], **options: Any) -> _T:
        """POST and decode."""
        return self.request(self._call("POST", path, body, **options), partial(as_json, decode))

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """Send a call whose status matters: a 2xx, with JSON or without a body, or one that ``accept`` names."""
        return self.request(self._call(method, path, body, **options), as_answer)

    def stream(self, path: str, body: Any, *, silence_seconds: Optional[float], **options: Any) -> ByteStream:
        """POST and return the answer's bytes as they arrive; ``silence_seconds`` bounds the wait for each."""
        return self.request(self._call("POST", path, body, **options), partial(as_stream, silence_seconds))

    def close(self) -> None:
        """Close every connection that no call and no stream is using, of every thread; a later call opens new ones."""
        self._sessions.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a client cannot be sent to another process with its key and connections; make one where it is used"
        )

    def _call(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        deadline: Optional[Deadline] = None,
        timeout_seconds: Optional[float] = None,
        secrets: Tuple[str, ...] = (),
        **options: Any,
    ) -> Call:
        return Call(
            method,
            self._prefix + path,
            body,
            base_url=self._base_url,
            deadline=deadline or Deadline(timeout_seconds or self.timeout_seconds),
            secrets=Secrets(self._secrets + secrets) if secrets else self._secrets,
            max_body_bytes=self._max_body_bytes,
            **options,
        )

    def request(self, call: Call, receive: Receive[_T]) -> _T:
        """Send a call and return what ``receive`` makes of its good answer; errors are those of docs/reference.md."""
        earlier_delivered: Optional[bool] = False
        is_logged = _log.isEnabledFor(logging.DEBUG)
        while True:
            call.attempts += 1
            attempt = Attempt(call.deadline)
            result: Optional[_T] = None
            status: Any = "no answer"
            started = time.monotonic()
            try:
                with attempt:
                    session, request, options = self._sessions.prepare(call, self._headers_of(call), attempt)
                    if is_logged:
                        _log_head(">", call, call.method + " " + call.path, request.headers, _SHOWN)
                    attempt.handed_over = True
                    try:
                        attempt.response = session.send(
                            request, stream=True, allow_redirects=False, **options
                        )
                    except requests.HTTPError as error:
                        attempt.response = complained_of(error, request)
                    status = attempt.response.status_code
                    if is_logged:
                        _log_head("<", call, status, attempt.response.headers, _SHOWN_OF_ANSWER)
                    attempt.borrow_socket(attempt.response)
                    if not 200 <= status < 300 and status not in call.accept:
                        raise refused(call, attempt)
                    result = receive(call, attempt)
                return result
            except errors.HestiaError as error:
                failure = error
            except FAILURES as error:
                failure = map_exception(error, call, attempt)
            finally:
                if not isinstance(result, ByteStream):
                    attempt.close()
                if is_logged:
                    _log_attempt(call, status, started)
            failure.with_facts(earlier_effect=call.earlier_effect)
            if failure.delivered is False and earlier_delivered is not False:
                failure.with_facts(delivered=earlier_delivered, never_left=True)
            repeatable = call.method != "POST" or call.has_idempotency_key
            delay_seconds = self._retry.delay_seconds(failure, call.attempts, repeatable=repeatable)
            if delay_seconds is None or delay_seconds >= call.deadline.remaining():
                # only now: a POST that may have been delivered is never repeated, not even one that changes nothing
                failure.with_facts(changes=call.changes, has_idempotency_key=call.has_idempotency_key)
                try:
                    # without the frames of the attempt, whose variables hold what the service wrote
                    raise failure.with_traceback(None)
                finally:
                    del failure  # or it and this frame would hold each other until the collector runs
            call.earlier_effect = failure.effect  # the most serious so far
            earlier_delivered = earlier_delivered or failure.delivered
            _log.info(
                "retry %s %s in %.2f s after attempt %d: %s, request id %s",
                *(call.method, call.path, delay_seconds, call.attempts, failure.code, call.request_id),
            )
            time.sleep(delay_seconds)

    def _headers_of(self, call: Call) -> Mapping[str, str]:
        headers = dict(self._headers, **call.headers)
        headers["X-Request-Id"] = call.request_id
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            headers["Content-Length"] = str(len(call.body))
        return headers


# The package's log lines, on the logger ``hestiaos_lite``: each retry at INFO; each attempt and both heads at DEBUG.
# Each is one harmless line. Of the heads no secret is shown, known as one or not; no body ever is.

_log = logging.getLogger("hestiaos_lite")
# logging is the application's to switch on
_log.addHandler(logging.NullHandler())

# Of a request's headers only these are shown: a caller's session may add any other.
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


def _log_head(mark: str, call: Call, first: Any, headers: Mapping[str, Any], shown: AbstractSet[str]) -> None:
    """Note the head of a request that is about to be sent, or of an answer."""
    lines = []
    for name, value in headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        text = "{}: {}".format(name, text if name.lower() in shown else MASK)
        lines.append(one_line(text, call.secrets, limit=200))
    _log.debug("%s %s; %s", mark, first, ", ".join(lines))


def _log_attempt(call: Call, status: Any, started: float) -> None:
    """Note what an attempt came to, ``started`` by the monotonic clock."""
    spent_ms = (time.monotonic() - started) * 1000
    facts = (call.method, call.path, status, spent_ms, call.attempts, call.request_id)
    _log.debug("%s %s %s in %d ms, attempt %d, request id %s", *facts)
