"""The body of an open stream, as bytes that arrive."""

from __future__ import annotations

from typing import Iterator, Optional

import requests

from .._redact import one_line
from ..deadline import SilenceLimit
from .answers import Receive, invalid, refusal_body
from .body import close, iter_body
from .call import Call
from .failures import FAILURES, explained
from .sockets import Attempt


class ByteStream:
    """The body of an open stream: iterate for its bytes as they arrive; every failure is one of our errors."""

    def __init__(self, call: Call, response: requests.Response, attempt: Attempt) -> None:
        self._response = response
        self._attempt = attempt
        self.call = call
        self.status = response.status_code

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from iter_body(self._response, self._attempt.before_read)
        except FAILURES as error:
            raise explained(error, self.call, self._attempt, self._response) from error

    def wake(self) -> None:
        """End a read that another thread is blocked in."""
        self._attempt.wake()

    def close(self) -> None:
        """Close the connection; it is never used again, so that a late `wake` cannot strike another request."""
        close(self._response)

    def __del__(self) -> None:
        # of a stream that was never iterated, there is no generator to close it
        self.close()


def as_stream(silence_seconds: Optional[float]) -> Receive[ByteStream]:
    """Return the answer's body as it arrives.

    From the answer's head on, ``silence_seconds`` bounds the wait for each byte; None leaves the call's deadline in force
    until the last byte.
    """

    def receive(call: Call, response: requests.Response, attempt: Attempt) -> ByteStream:
        content_type = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        if content_type not in ("", "text/event-stream"):
            fault = "is {}, not an event stream".format(
                one_line(response.headers["Content-Type"], call.secrets, 80)
            )
            raise invalid(call, response, fault, refusal_body(response, attempt))
        if silence_seconds is not None:
            attempt.limit = SilenceLimit(silence_seconds)
        return ByteStream(call, response, attempt)

    return receive
