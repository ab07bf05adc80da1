"""The package's log lines, on the logger ``hestiaos_lite``: each retry at INFO; each attempt and both heads at DEBUG.

Each is one harmless line. Of the heads no secret is shown, known as one or not; no body ever is.
"""

from __future__ import annotations

import logging
import time
from typing import AbstractSet, Any, Mapping, Optional

import requests

from .._redact import MASK, one_line
from .call import Call

_log = logging.getLogger("hestiaos_lite")
# logging is the application's to switch on
_log.addHandler(logging.NullHandler())

# Of a request's headers only these are shown: a lent session may add any other.
_SHOWN = {
    "accept",
    "accept-encoding",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "idempotency-key",
    "tenant-id",
    "thread-id",
    "user-agent",
    "x-request-id",
}
# Of an answer's headers only these: any other may grant something, or lead to where a secret is in the URL.
_SHOWN_OF_ANSWER = {
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "expires",
    "keep-alive",
    "last-modified",
    "retry-after",
    "server",
    "transfer-encoding",
    "vary",
    "via",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
    "x-trace-id",
}


def log_request(call: Call, headers: Mapping[str, Any]) -> None:
    """Note the head of a request that is about to be sent."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("> %s %s; %s", call.method, call.path, _one_line(headers, _SHOWN, call))


def log_answer(call: Call, response: requests.Response) -> None:
    """Note the head of an answer."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("< %s; %s", response.status_code, _one_line(response.headers, _SHOWN_OF_ANSWER, call))


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


def _one_line(headers: Mapping[str, Any], shown: AbstractSet[str], call: Call) -> str:
    return ", ".join(
        one_line(
            "{}: {}".format(name, _as_text(value) if name.lower() in shown else MASK), call.secrets, limit=200
        )
        for name, value in headers.items()
    )


def _as_text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
