"""What a failure below means: did the request leave, did time run out, and why, in few words.

What the socket did decides (`sockets.Attempt`), not the class of the exception: requests has one InvalidHeader for a header
that we gave and for one that the service sent.
"""

from __future__ import annotations

import errno
import socket
from http.client import BadStatusLine, HTTPException, LineTooLong, RemoteDisconnected
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type

import requests
import urllib3.exceptions
from requests.utils import select_proxy
from urllib3.connection import CertificateError  # type: ignore[attr-defined]  # where every urllib3 since 1.25 has it

from .. import errors
from .._check import named
from .._redact import bare_url, one_line
from ..deadline import SilenceLimit
from .body import MalformedHead, UnusableBody
from .call import Call
from .sockets import Attempt

try:
    from ssl import SSLCertVerificationError, SSLError
except ImportError:  # a Python built without it: http works
    SSLCertVerificationError = SSLError = ()  # type: ignore[assignment,misc]

CONNECTION_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError)
# about a URL or adapter, and so before any connection
_NOT_SENDABLE = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.LocationValueError,
)
# of a request before it is sent, of an answer after that; requests before 2.27 lets urllib3's own through
_INVALID_HEADER = (requests.exceptions.InvalidHeader, urllib3.exceptions.InvalidHeader)
_MALFORMED = _NOT_SENDABLE + _INVALID_HEADER + (UnicodeError,)
# all that the sending of a request and the reading of its answer may raise
FAILURES = CONNECTION_ERRORS + _MALFORMED + (UnusableBody,)
_TIMEOUTS = (requests.Timeout, urllib3.exceptions.TimeoutError, socket.timeout)
# urllib3 has its own for a host name that does not match, a ValueError (1.26.12 on Python 3.11); elsewhere it is ssl's
_NOT_TRUSTED = (SSLCertVerificationError, CertificateError)
_TUNNEL_FAILED = "Tunnel connection failed"  # http.client's words
_NEVER_CONNECTED = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ClosedPoolError,  # the lender has closed the session just now
) + _NOT_TRUSTED


class _Failure:
    """An exception as it was caught, and what is known of the request that it ended."""

    def __init__(self, error: Exception, call: Call, attempt: Attempt) -> None:
        self.error = error
        self.causes = list(causes_of(error))
        self.call = call
        self.attempt = attempt
        self.status = None if attempt.response is None else attempt.response.status_code
        self.delivered = True if attempt.response is not None else False if self._never_left() else None

    def any(self, of_cause: Callable[[BaseException], bool]) -> bool:
        """True when it holds of the exception or of one that it wraps."""
        return any(map(of_cause, self.causes))

    def _never_left(self) -> bool:
        """True when the request certainly did not begin to leave; what nobody has seen counts as left."""
        if self.attempt.sent:
            return False
        if not self.attempt.handed_over or self.attempt.ours:
            return True  # requests has not had it yet, or a connection of ours came to nothing before it
        # connections of others (a caller's session's, a SOCKS proxy's, a test tool's): only what their exceptions prove
        return isinstance(self.error, _NOT_SENDABLE) or (
            self.attempt.is_single_try and self.any(_proves_no_connection)
        )

    def words(self) -> Dict[str, Any]:
        """Return what the messages of the table name."""
        fault, doing = {
            True: ("the answer broke off", "reading the answer"),
            False: ("cannot connect", "connecting"),
            None: ("no answer", "waiting for it"),
        }[self.delivered]
        late = "no answer within {:.10g} s, gave up while " + doing
        if isinstance(self.attempt.limit, SilenceLimit):
            late = "the stream was silent for {:.10g} s"
        service, proxy = bare_url(self.call.base_url), proxy_of(self.call, self.attempt)
        return {
            "why": one_line(_reason(self), self.call.secrets),
            "fault": fault,
            "late": late.format(self.attempt.limit.seconds),
            "asked": "{} {}".format(self.call.method, self.call.path),
            "way": "{}, through the proxy {}".format(service, proxy) if proxy else service,
            "check_proxy": advice_on_proxy(self.call, self.attempt),
        }


# What an exception of the libraries below says: by its class, or where that says too little by its words.


def _is_of_a_file(cause: BaseException) -> bool:
    """True for a file that cannot be opened, or holds no certificate or key (in OpenSSL's names for these)."""
    if isinstance(cause, SSLError):
        # urllib3 before 2 raises one without these facts
        return getattr(cause, "library", None) in ("PEM", "X509") or "PEM lib" in str(cause)
    return isinstance(cause, OSError) and cause.filename is not None


def _is_of_the_head(cause: BaseException) -> bool:
    """True for a head that holds no header, and for http.client's limits on one: 100 headers, 64 KiB a line."""
    return isinstance(cause, (LineTooLong, MalformedHead)) or (
        type(cause) is HTTPException and "got more than" in str(cause)
    )


def _asks_in_tunnel(cause: BaseException) -> bool:
    """True for a proxy's 407 to CONNECT."""
    return str(cause).startswith(_TUNNEL_FAILED + ": 407")


def _asks_for_credentials(cause: BaseException) -> bool:
    """True for that, and for a SOCKS proxy's refusal of a login (in PySocks' words)."""
    return _asks_in_tunnel(cause) or "SOCKS5 authentication" in str(cause)


def _asks_for_certificate(cause: BaseException) -> bool:
    """True for the alerts by which a service refuses a client without a certificate.

    TLS 1.3 has one for it; before, it is the general "handshake failure" (RFC 8446, 6.2; RFC 5246, 7.4.6).
    """
    # the words and not ``reason``: a new alert has none in an older Python
    words = str(cause) if isinstance(cause, SSLError) else ""
    return "alert certificate required" in words or "alert handshake failure" in words


def _speaks_no_tls(cause: BaseException) -> bool:
    """True for OpenSSL's words about an answer that is no TLS, as from a port of plain http."""
    return isinstance(cause, SSLError) and "WRONG_VERSION_NUMBER" in str(cause)


def _proves_no_connection(cause: BaseException) -> bool:
    """True when no connection came about, on which the request could have left."""
    return isinstance(cause, _NEVER_CONNECTED) or str(cause).startswith(_TUNNEL_FAILED)


def _is_of_proxy(cause: BaseException) -> bool:
    return isinstance(cause, (requests.exceptions.ProxyError, urllib3.exceptions.ProxyError))


def _is_not_trusted(cause: BaseException) -> bool:
    return isinstance(cause, _NOT_TRUSTED)


def _is_out_of_date(cause: BaseException) -> bool:
    return _is_not_trusted(cause) and getattr(cause, "verify_code", None) in _OUT_OF_DATE


def _is_for_another_name(cause: BaseException) -> bool:
    # a host name that does not match is reported by a bare exception, without attributes (urllib3 before 2)
    return _is_not_trusted(cause) and getattr(cause, "verify_code", None) in _ANOTHER_NAME


# The first rows of the table, which ask for more than the exceptions.


def _is_unsendable(failure: _Failure) -> bool:
    """True where a URL or header is malformed, or a file of the settings cannot be used: certificates, SSLKEYLOGFILE."""
    if failure.attempt.sent:
        return False
    is_malformed = failure.delivered is False and isinstance(failure.error, _MALFORMED)
    return is_malformed or failure.any(_is_of_a_file)


def _is_unusable(failure: _Failure) -> bool:
    if failure.delivered is False:
        return False  # it is a proxy's answer to CONNECT
    return isinstance(failure.error, (UnusableBody,) + _INVALID_HEADER) or failure.any(_is_of_the_head)


def _is_out_of_time(failure: _Failure) -> bool:
    """True when a wait of ours ran out, as opposed to the network saying no."""
    if failure.any(lambda cause: isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT):
        return False  # the network's own patience; from Python 3.10 on it has the same class as ours
    # NewConnectionError is a subclass of urllib3's own
    refused = urllib3.exceptions.NewConnectionError
    return failure.any(lambda cause: isinstance(cause, _TIMEOUTS) and not isinstance(cause, refused))


def _proxy_wants_credentials(failure: _Failure) -> bool:
    return failure.delivered is False and failure.any(_asks_for_credentials)


# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED, _HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH
_OUT_OF_DATE, _ANOTHER_NAME = (9, 10), (62, 64, None)

_SEND = "the request cannot be sent: {why}"
_ANSWER = "the answer to {asked} cannot be used: {why}"
_TIME = "{late}"
_PROXY = "the proxy asks for credentials"
_LOST = "{fault}: {why} ({way})"
_RENEW = "have the service's certificate renewed, or set this machine's clock"
_NAME = "use the name that the certificate is for, or check the base URL"
_CA = "name the CA that signed it (verify=, REQUESTS_CA_BUNDLE)"
_CERT = "pass a session that has one: session.cert (session=)"
_TLS = "what answers there does not speak TLS: does it, or the proxy, need an http:// URL?"

_SOCKET = "as the socket saw it"


def _a(of_cause: Callable[[BaseException], bool]) -> Callable[[_Failure], bool]:
    return lambda failure: failure.any(of_cause)


# What a failure is: the first row that holds, of the failure or (_a) of an exception in it. Another attempt would not cure
# what has advice of its own.
# fmt: off
_TABLE: Tuple[Tuple[Callable[[_Failure], bool], Type[errors.HestiaError], Any, str, str], ...] = (
    # what it is                class                       delivered  message   advice
    (_is_unsendable,            errors.InvalidInput,        False,     _SEND,    ""),
    (_is_unusable,              errors.InvalidResponse,     True,      _ANSWER,  ""),
    (_is_out_of_time,           errors.RequestTimeout,      _SOCKET,   _TIME,    ""),
    (_proxy_wants_credentials,  errors.AuthenticationError, False,     _PROXY,   "{check_proxy}"),
    (_a(_is_out_of_date),       errors.ConnectionFailed,    _SOCKET,   _LOST,    _RENEW),
    (_a(_is_for_another_name),  errors.ConnectionFailed,    _SOCKET,   _LOST,    _NAME),
    (_a(_is_not_trusted),       errors.ConnectionFailed,    _SOCKET,   _LOST,    _CA),
    (_a(_asks_for_certificate), errors.ConnectionFailed,    _SOCKET,   _LOST,    _CERT),
    (_a(_speaks_no_tls),        errors.ConnectionFailed,    _SOCKET,   _LOST,    _TLS),
    (lambda failure: True,      errors.ConnectionFailed,    _SOCKET,   _LOST,    ""),
)
# fmt: on


def map_exception(error: Exception, call: Call, attempt: Attempt) -> errors.HestiaError:
    """Make our error of an exception below; here, where it is caught, it is decided whether the request has left."""
    caught = _Failure(error, call, attempt)
    _, cls, delivered, message, advice = next(row for row in _TABLE if row[0](caught))
    words = caught.words()
    facts = call.facts(delivered=caught.delivered if delivered is _SOCKET else delivered)
    if cls is errors.InvalidInput:
        facts["code"] = "CONFIGURATION"
    elif cls is errors.AuthenticationError:
        # as the answer to CONNECT, and not in SOCKS' own words
        facts["status"] = 407 if caught.any(_asks_in_tunnel) else None
    else:
        facts["status"] = caught.status
    failure = cls(message=message.format(**words), **facts)
    if advice:
        failure.with_facts(is_final=True, advice=advice.format(**words))
    release_frames(error)
    # requests' and urllib3's own frames and contexts (84 lines for one refused connection) tell a script's owner nothing
    failure.__cause__ = error.with_traceback(None)
    error.__suppress_context__ = True
    return failure


def advice_on_proxy(call: Call, attempt: Attempt) -> str:
    """Say where the credentials belong that a proxy asks for."""
    named = " " + proxy_of(call, attempt) if proxy_of(call, attempt) else ""
    return "check the credentials in the URL of the proxy{} (http_proxy, https_proxy)".format(named)


def proxy_of(call: Call, attempt: Attempt) -> str:
    """The proxy that a request goes through, or an empty text."""
    proxy = select_proxy(call.base_url, attempt.proxies) or ""
    return bare_url(proxy if "://" in proxy or not proxy else "http://" + proxy)


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


def _reason(failure: _Failure) -> str:
    """Say in few words why a connection failed."""
    for cause in failure.causes:
        if _is_of_a_file(cause):
            file = getattr(cause, "filename", None)
            said = getattr(cause, "strerror", None) or cause
            if file is None:
                return "a file of certificates or keys holds no usable one ({})".format(said)
            return "{} cannot be opened ({})".format(file, said)
        if isinstance(cause, socket.gaierror):
            return "its host name cannot be resolved ({})".format(cause.strerror)
        if _is_not_trusted(cause):
            said = getattr(cause, "verify_message", "") or cause
            return "its TLS certificate is not trusted ({})".format(said)
        if _asks_for_certificate(cause):
            verb = "asks" if "certificate required" in str(cause) else "may ask"
            return "TLS failed: it {} for a client certificate".format(verb)
        if isinstance(cause, SSLError):
            return "TLS failed ({})".format(getattr(cause, "reason", "") or "the peer ended it")
    for cause in failure.causes:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, requests.RequestException):
            return cause.strerror[:1].lower() + cause.strerror[1:]
        if isinstance(cause, MalformedHead):
            return "a line of its head is not a header"
        if isinstance(cause, LineTooLong):
            return "a line of its head is longer than 64 KiB"
        if isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected):
            return "what answers there does not speak HTTP"
    if failure.any(_is_of_the_head):
        return "its head has more than 100 headers"
    last = failure.causes[-1]
    if failure.any(_is_of_proxy):
        return "the proxy refused ({})".format(last)
    if isinstance(last, HTTPException):
        return "the connection was closed"
    return named(last)
