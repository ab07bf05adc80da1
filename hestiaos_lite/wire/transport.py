"""The one attempt loop: a call is tried until its answer is in hand, its error is final, or its deadline has passed.

Every failure leaves as an error of errors.py that knows what became of the request, and the retry decision reads nothing
else about it.
"""

from __future__ import annotations

import time
from typing import Callable, Mapping, NoReturn, Optional, TypeVar, Union

import requests

from .. import errors
from .._check import check_headers, check_verify
from .._lazy import load_before_fork
from .._redact import secret
from .._version import __version__
from .answers import Receive, redirected, refused
from .body import close
from .bytestream import ByteStream
from .call import Call
from .failures import FAILURES, explained
from .log import log_answer, log_attempt, log_request, log_retry
from .network import prepared_url, warn_of_exposure
from .session import Bearer, LentSession, OwnSessions, Redirected, complained_of
from .sockets import Attempt

_T = TypeVar("_T")
USER_AGENT = "hestiaos-sdk/1.0.1 hestiaos-lite/" + __version__
_HARMLESS_HEADERS = ("accept", "accept-language", "user-agent")
# what the first look-up of a host, the first answer and the first page or date in one load
load_before_fork("encodings.idna", "encodings.utf_8_sig", "email.utils", "html")


class Transport:
    """Sends the calls of one client; shared by its threads, and usable after a fork.

    Args:
        base_url: checked by config, without a trailing slash.
        api_key: sent as a bearer token, or None.
        headers: sent with every request, over our own.
        session: a requests.Session lent by the caller, used as it is and never closed; else each thread of each process
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
        while True:
            call.attempts += 1
            attempt = Attempt(deadline)
            response: Optional[requests.Response] = None
            result: Optional[_T] = None
            started = time.monotonic()
            try:
                with attempt.in_this_thread():
                    wait_seconds = attempt.wait_seconds()
                    session, request, settings = self._sessions.prepare(call, self._headers_of(call))
                    attempt.is_single_try = self._sessions.is_single_try(request)
                    attempt.proxies = settings["proxies"]
                    log_request(call, request.headers)
                    attempt.handed_over = True
                    try:
                        response = session.send(
                            request,
                            stream=True,
                            timeout=(wait_seconds, wait_seconds),
                            allow_redirects=False,
                            **settings,
                        )
                    except requests.HTTPError as error:
                        response = complained_of(error, request)
                    log_answer(call, response)
                    attempt.borrow_socket(response.raw)
                    if not 200 <= response.status_code < 300 and response.status_code not in call.accept:
                        raise refused(call, response, attempt)
                    result = receive(call, response, attempt)
                return result
            except Redirected as redirect:
                failure: errors.HestiaError = redirected(call, redirect.status, redirect.target)
            except errors.HestiaError as error:
                failure = error
            except FAILURES as error:
                failure = explained(error, call, attempt, response)
            finally:
                if response is not None and not isinstance(result, ByteStream):
                    close(response)
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
            call.earlier_effect = failure.effect  # the gravest so far
            earlier_delivered = earlier_delivered or failure.delivered
            log_retry(call, delay_seconds, failure.code)
            self._sleep(delay_seconds)

    def close(self) -> None:
        """Close the connections of every thread; a session that was lent stays as it is."""
        self._sessions.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a client cannot leave its process, its key and connections would travel with it; make one where it is used"
        )

    def _headers_of(self, call: Call) -> Mapping[str, str]:
        headers = dict(self._headers)
        headers.update(call.headers)
        headers["X-Request-Id"] = call.request_id
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            headers["Content-Length"] = str(len(call.body))
        return headers
