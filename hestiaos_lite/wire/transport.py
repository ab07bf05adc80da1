"""The one way to the wire; beside _session and _failures, which serve it, the only importer of requests.

A call is tried until its answer is in hand, its error is final, or its deadline has passed; the loop stands in one place,
`Transport._exchange`. Every failure leaves as an error of errors.py that knows whether the request may have arrived, and the
retry decision reads nothing else about it.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, TypeVar, Union

import requests
from requests.structures import CaseInsensitiveDict

from .. import _redact, errors
from .._version import __version__
from ..deadline import Deadline, SilenceLimit
from .body import BodyTooLarge, UnknownEncoding, iter_body, read_body
from .call import Call, check_headers
from .failures import CONNECTION_ERRORS, NOT_SENDABLE, never_connected, reason, release_frames, timed_out
from .retry import parse_retry_after
from .session import (
    Bearer,
    Redirected,
    Sessions,
    is_loopback,
    network_settings,
    no_auth,
    prepared_url,
    refuse_redirect,
)
from .sockets import Attempt

_T = TypeVar("_T")
_log = logging.getLogger("hestiaos_lite")
_log.addHandler(
    logging.NullHandler()
)  # logging is the application's to switch on; here, where the only log lines are made

USER_AGENT = "hestiaos-sdk/1.0.1 hestiaos-lite/" + __version__
_ERROR_BODY_BYTES = 1024 * 1024  # of an error's body no more is read


class Answer:
    """A decoded answer: its status and its JSON."""

    __slots__ = ("body", "status")

    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self.body = body


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
        self._base_url = prepared_url(base_url)
        _warn_of_exposure(base_url, api_key, verify)
        self._auth = Bearer(api_key) if api_key else None
        self._secrets = (api_key,) if api_key else ()
        self._headers = {
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "keep-alive",
        }
        self._headers.update(check_headers(headers or {}))
        self._lent = session
        self._verify = verify
        self._sleep = sleep
        self._sessions = Sessions()
        self._settings: Optional[Dict[str, Any]] = None

    def request(self, call: Call, decode: Callable[[Any], _T]) -> _T:
        """Send a call and return ``decode`` of its JSON answer; errors are API.md's."""
        return self._exchange(
            call,
            lambda response, attempt: self._decoded(
                call, response, read_body(response, attempt.before_read), decode
            ),
        )

    def answer(self, call: Call) -> Answer:
        """Send a call and return status and JSON of its answer, of a 2xx or one that ``call.accept`` names.

        The status is what matters: a 2xx may have no body, and an accepted refusal any body, given as None or its text.
        """
        return self._exchange(call, lambda response, attempt: self._answer(call, response, attempt))

    def send(self, call: Call) -> None:
        """Send a call of which only the 2xx matters; its body is not read."""
        return self._exchange(call, lambda response, attempt: response.close())

    def open_stream(self, call: Call, silence_seconds: Optional[float]) -> ByteStream:
        """Send a call and return its answer's body as it arrives.

        From the answer's head on, ``silence_seconds`` bounds the wait for each byte; None leaves the call's deadline in
        force until the last byte.
        """
        return self._exchange(
            call, lambda response, attempt: self._stream(call, response, attempt, silence_seconds)
        )

    def close(self) -> None:
        """Close the connections of every thread; a session that was lent stays as it is."""
        self._sessions.close()

    def _exchange(self, call: Call, receive: Callable[[requests.Response, Attempt], _T]) -> _T:
        """The attempt loop: send, receive, and decide whether to send again."""
        deadline = Deadline(call.timeout_seconds)
        call.attempts = 0
        reached: Optional[bool] = False  # what is known of the attempts before the last
        while True:
            call.attempts += 1
            try:
                return self._attempt(call, deadline, receive)
            except errors.HestiaError as failure:
                failure._only_reads = call.method == "GET"
                delay = call.retry.delay_seconds(failure, call.attempts)
                if delay is None or delay >= deadline.remaining():
                    if failure.delivered is False:
                        failure.delivered = reached
                    raise
                if failure.status not in (429, 503):  # those two say that nothing was done
                    reached = reached or failure.delivered
                _log.info(
                    "retry %s %s in %.2f s after attempt %d: %s, request id %s",
                    call.method,
                    call.path,
                    delay,
                    call.attempts,
                    failure.code,
                    call.request_id,
                )
            self._sleep(delay)

    def _attempt(
        self, call: Call, deadline: Deadline, receive: Callable[[requests.Response, Attempt], _T]
    ) -> _T:
        """Send once; return what ``receive`` makes of the answer, or raise one of our errors."""
        attempt = Attempt(deadline)
        response: Optional[requests.Response] = None
        kept = False
        started = time.monotonic()
        try:
            with attempt.in_this_thread():
                response = self._send(call, attempt)
                if self._lent is not None:
                    attempt.borrow_socket(response.raw)
                if response.status_code >= 300 and response.status_code not in call.accept:
                    raise self._refused(call, response, attempt)
                result = receive(response, attempt)
            kept = isinstance(result, ByteStream)
            return result
        except errors.HestiaError:
            raise
        except NOT_SENDABLE as error:
            raise self._not_sendable(call, error) from error
        except CONNECTION_ERRORS as error:
            raise self._broken(call, error, attempt, response) from error
        except (BodyTooLarge, UnknownEncoding) as error:
            raise self._unusable(call, error, response) from error
        finally:
            if response is not None and not kept:
                response.close()
            _log.debug(
                "%s %s %s in %d ms, attempt %d, request id %s",
                call.method,
                call.path,
                "no answer" if response is None else response.status_code,
                (time.monotonic() - started) * 1000,
                call.attempts,
                call.request_id,
            )

    def _send(self, call: Call, attempt: Attempt) -> requests.Response:
        """Hand the request to requests, prepared and with its network settings named, so that it looks up nothing.

        Left to look them up for every call, requests makes half as many calls a processor second (tests/bench/calls.py).
        """
        wait_seconds = attempt.wait_seconds()
        url = self._base_url + call.path
        headers = dict(self._headers)
        headers.update(call.headers)
        headers["X-Request-Id"] = call.request_id
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            headers["Content-Length"] = str(len(call.body))
        if self._lent is None:
            session = self._sessions.get()
            if self._settings is None:
                self._settings = network_settings(self._base_url, session, self._verify)
            settings = self._settings
            request = requests.PreparedRequest()
            request.method = call.method
            request.url = url
            request.headers = CaseInsensitiveDict(headers)
            request.body = call.body
            request.hooks = {"response": []}
            if self._auth is not None:
                self._auth(request)
        else:
            session = self._lent
            settings = network_settings(self._base_url, session, self._verify)
            # an auth object is always given: without one requests would ask ~/.netrc
            auth = self._auth or session.auth or no_auth
            request = session.prepare_request(
                requests.Request(call.method, url, headers=headers, data=call.body, auth=auth)
            )
            attempt.sent = True  # whether its adapters have begun to send cannot be seen
        request.hooks["response"].append(refuse_redirect)
        try:
            return session.send(
                request, stream=True, timeout=(wait_seconds, wait_seconds), allow_redirects=False, **settings
            )
        except Redirected as redirect:
            raise errors.InvalidResponse(
                "the service redirects to {}, and a redirect is never followed; set the base URL to where it is".format(
                    _redact.without(redirect.target, self._secrets + call.secrets)
                ),
                **call.facts(status=redirect.status, delivered=True),
            ) from None

    def _answer(self, call: Call, response: requests.Response, attempt: Attempt) -> Answer:
        status = response.status_code
        if status in call.accept:
            return Answer(status, self._refusal_body(call, response, attempt))
        body = read_body(response, attempt.before_read)
        return Answer(status, self._decoded(call, response, body, _as_it_is) if body else None)

    def _decoded(
        self, call: Call, response: requests.Response, body: bytearray, decode: Callable[[Any], _T]
    ) -> _T:
        """Parse and decode the body of a good answer."""
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._invalid(call, response, "is not UTF-8", bytes(body[:1000])) from error
        del body
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            fault = "is not JSON" if text.strip() else "is empty"
            raise self._invalid(call, response, fault, text) from error
        try:
            return decode(value)
        except errors.InvalidResponse as error:
            error.__dict__.update(call.facts(status=response.status_code, delivered=True))
            raise

    def _stream(
        self, call: Call, response: requests.Response, attempt: Attempt, silence_seconds: Optional[float]
    ) -> ByteStream:
        content_type = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        if content_type not in ("", "text/event-stream"):
            body = self._refusal_body(call, response, attempt)
            raise self._invalid(call, response, "is {}, not an event stream".format(content_type[:80]), body)
        if silence_seconds is not None:
            attempt.limit = SilenceLimit(silence_seconds)
        return ByteStream(self, call, response, attempt)

    def _refused(self, call: Call, response: requests.Response, attempt: Attempt) -> errors.HestiaError:
        """Make the error of an answer that says no."""
        body = self._refusal_body(call, response, attempt)
        if response.status_code < 400:
            return self._invalid(call, response, "is a {}".format(response.status_code), body)
        return errors.from_answer(
            response.status_code,
            body,
            governed=call.governed,
            secrets=self._secrets + call.secrets,
            retry_after=parse_retry_after(response.headers.get("Retry-After")),
            **call.facts(),
        )

    def _refusal_body(self, call: Call, response: requests.Response, attempt: Attempt) -> Any:
        """Return an error's body as JSON, else as text, else None: an unreadable body must not hide what the head says."""
        try:
            text = bytes(read_body(response, attempt.before_read, _ERROR_BODY_BYTES)).decode(
                "utf-8", "replace"
            )
        except (BodyTooLarge, UnknownEncoding) + CONNECTION_ERRORS:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text or None

    def _invalid(
        self, call: Call, response: requests.Response, fault: str, body: Any
    ) -> errors.InvalidResponse:
        return errors.InvalidResponse(
            "the answer to {} {} {}".format(
                call.method, call.path, _redact.without(fault, self._secrets + call.secrets)
            ),
            **call.facts(status=response.status_code, details=body, delivered=True),
        )

    def _broken(
        self, call: Call, error: BaseException, attempt: Attempt, response: Optional[requests.Response]
    ) -> errors.HestiaError:
        """Map a failure of the connection; here, where it is caught, it is decided whether the request may have arrived."""
        release_frames(error)
        delivered: Optional[bool] = None
        if response is not None:
            delivered = True
        elif not attempt.sent or never_connected(error):
            delivered = False
        facts = call.facts(status=None if response is None else response.status_code, delivered=delivered)
        if timed_out(error):
            limit = attempt.limit
            if isinstance(limit, SilenceLimit):
                return errors.RequestTimeout(
                    "the stream was silent for {:g} s".format(limit.seconds), **facts
                )
            doing = (
                "reading the answer"
                if response is not None
                else "waiting for it"
                if attempt.sent
                else "connecting"
            )
            return errors.RequestTimeout(
                "no answer within {:g} s, given up while {}".format(limit.seconds, doing), **facts
            )
        fault = (
            "the answer broke off"
            if response is not None
            else "no answer"
            if attempt.sent
            else "cannot connect"
        )
        return errors.ConnectionFailed(
            "{}: {} ({})".format(
                fault, _redact.without(reason(error), self._secrets), _redact.bare_url(self._base_url)
            ),
            **facts,
        )

    def _unusable(
        self, call: Call, error: ValueError, response: Optional[requests.Response]
    ) -> errors.InvalidResponse:
        return errors.InvalidResponse(
            "the answer to {} {} cannot be used: {}".format(
                call.method, call.path, _redact.without(str(error), self._secrets + call.secrets)
            ),
            **call.facts(status=getattr(response, "status_code", None), delivered=True),
        )

    def _not_sendable(self, call: Call, error: Exception) -> errors.InvalidInput:
        release_frames(error)
        return errors.InvalidInput(
            "the request cannot be sent: {}".format(_redact.without(reason(error), self._secrets)),
            **call.facts(code="CONFIGURATION"),
        )


class ByteStream:
    """The body of an open stream: iterate for its bytes as they arrive; every failure is one of our errors."""

    def __init__(
        self, transport: Transport, call: Call, response: requests.Response, attempt: Attempt
    ) -> None:
        self._transport = transport
        self._response = response
        self._attempt = attempt
        self.call = call
        self.status = response.status_code

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from iter_body(self._response, self._attempt.before_read)
        except CONNECTION_ERRORS as error:
            raise self._transport._broken(self.call, error, self._attempt, self._response) from error
        except UnknownEncoding as error:
            raise self._transport._unusable(self.call, error, self._response) from error

    def wake(self) -> None:
        """End a read that another thread is blocked in."""
        self._attempt.wake()

    def close(self) -> None:
        """Close the connection; it is never used again, so that a late `wake` cannot strike another request."""
        self._response.close()

    def __del__(self) -> None:
        # of a stream that was never iterated, there is no generator to close it
        self.close()


def _warn_of_exposure(base_url: str, api_key: Optional[str], verify: Union[bool, str, None]) -> None:
    """Warn of what lets others read the key: no certificate check, or a key over plain http to another host."""
    if verify is False:
        warnings.warn("verify=False: the service's TLS certificate is not checked", stacklevel=4)
    if api_key and base_url.startswith("http://") and not is_loopback(base_url):
        warnings.warn("the API key goes over plain http: anyone on the way can read it", stacklevel=4)


def _as_it_is(value: Any) -> Any:
    return value
