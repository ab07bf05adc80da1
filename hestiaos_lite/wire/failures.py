"""What a failure below means: did the request leave, did time run out, and why, in few words."""

from __future__ import annotations

import errno
import socket
import ssl
from http.client import BadStatusLine, HTTPException, RemoteDisconnected
from typing import Any, Iterator, List, Optional

import requests
import urllib3.exceptions
from urllib3.connection import CertificateError  # type: ignore[attr-defined]  # where every urllib3 since 1.25 has it

CONNECTION_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError)
# requests' complaints about what it was asked to send: no network is at fault, and another attempt would fail alike
NOT_SENDABLE = (
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.LocationValueError,
    UnicodeError,
)
_TIMEOUTS = (requests.Timeout, urllib3.exceptions.TimeoutError, socket.timeout)
# urllib3 has its own for a host name that does not match, a ValueError (1.26.12 on Python 3.11); elsewhere it is ssl's
_NOT_TRUSTED = (ssl.SSLCertVerificationError, CertificateError)
_NEVER_CONNECTED = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
) + _NOT_TRUSTED


def causes_of(error: Optional[BaseException]) -> Iterator[BaseException]:
    """Yield an exception and everything it wraps: requests and urllib3 keep causes in ``args`` and ``reason`` as well.

    Not its ``__context__``: that may be what the caller was handling when it made the call, a refused connection for
    instance, and would tell of this request what is true of another. Only urllib3's NewConnectionError is always raised
    while what it wraps is handled, and in urllib3 before 2 it has no other word of it.
    """
    queue: List[Any] = [error]
    seen: List[Any] = []
    while queue and len(seen) < 20:
        cause = queue.pop(0)
        if isinstance(cause, BaseException) and not any(cause is earlier for earlier in seen):
            seen.append(cause)
            yield cause
            queue.extend([getattr(cause, "reason", None), cause.__cause__])
            if isinstance(cause, urllib3.exceptions.NewConnectionError):
                queue.append(cause.__context__)
            queue.extend(cause.args)


def never_connected(error: BaseException) -> bool:
    """True when the failure came before the request could leave."""
    return any(isinstance(cause, _NEVER_CONNECTED) for cause in causes_of(error))


def timed_out(error: BaseException) -> bool:
    """True when a wait of ours ran out, as opposed to the network saying no."""
    causes = list(causes_of(error))
    if any(isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT for cause in causes):
        return False  # the network's own patience; from Python 3.10 on it has the same class as ours
    return any(
        isinstance(cause, _TIMEOUTS)
        and not isinstance(cause, urllib3.exceptions.NewConnectionError)  # a subclass of it
        for cause in causes
    )


def release_frames(error: BaseException) -> None:
    """Clear the variables of the functions a failure has come through.

    They hold the request with its headers, which a tool that shows variables would print; and urllib3 (2.8) leaves the
    exception in one of its own, a cycle that keeps the caller's frames and whatever they hold until the collector runs.
    """
    for cause in causes_of(error):
        trace = cause.__traceback__
        while trace is not None:
            try:
                trace.tb_frame.clear()
            except RuntimeError:
                pass  # it is still running
            trace = trace.tb_next


def reason(error: BaseException) -> str:
    """Say in few words why a connection failed."""
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "its host name cannot be resolved ({})".format(cause.strerror)
        if isinstance(cause, _NOT_TRUSTED):
            # a host name that does not match is told by a bare exception, without attributes (urllib3 before 2)
            return "its TLS certificate is not trusted ({})".format(
                getattr(cause, "verify_message", "") or cause
            )
        if isinstance(cause, ssl.SSLError):
            return "TLS failed ({})".format(getattr(cause, "reason", "") or "the peer ended it")
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, requests.RequestException):
            return cause.strerror[:1].lower() + cause.strerror[1:]
        if isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected):
            return "what answers there does not speak HTTP"
    last = causes[-1]
    if isinstance(last, requests.exceptions.ProxyError) or any(
        isinstance(c, urllib3.exceptions.ProxyError) for c in causes
    ):
        return "the proxy refused ({})".format(last)
    return (
        "the connection was closed"
        if isinstance(last, HTTPException)
        else "{}: {}".format(type(last).__name__, last)
    )
