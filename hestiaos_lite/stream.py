"""EventStream: a stream's bytes as events, each in the caller's hand as soon as its line is here."""

from __future__ import annotations

from typing import Any, Generator, Iterator, Optional, Type

from . import errors
from .models.event import StreamEvent
from .sse import EventTooLarge, MalformedEvent, iter_objects
from .wire.answers import ByteStream

__all__ = [
    "EventStream",
    "is_delta_event",
    "is_done_event",
    "is_error_event",
    "is_final_event",
    "is_start_event",
    "is_token_event",
    "is_tool_call_event",
]


class EventStream:
    """The events of one ``run_stream``: an iterator of `StreamEvent`, and a context manager.

    It ends after the ``done`` event, without waiting for the service to close. An ``error`` event is an event; an unknown
    type passes through. Leaving the ``with`` block, `close` and dropping the last reference close the connection.

    Raises, while iterating:
        StreamInterrupted: the stream ended or its connection broke before ``done``.
        RequestTimeout: it was silent for too long, or its total deadline passed.
        InvalidResponse: an event is not a JSON object with a ``type``, or is larger than 16 MiB.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        # The generator knows the stream and not this object: without a cycle, the last reference closes the connection.
        self._events = _read(stream)

    @property
    def trace_id(self) -> Optional[str]:
        """The service's trace id, once an event has named it."""
        return self._stream.trace_id

    @property
    def request_id(self) -> str:
        """The ``X-Request-Id`` the stream was asked for with."""
        return self._stream.call.request_id

    def __iter__(self) -> Iterator[StreamEvent]:
        return self

    def __next__(self) -> StreamEvent:
        try:
            return next(self._events)
        except errors.HestiaError as error:
            # without the frames below, whose variables hold what the service wrote
            raise error.with_traceback(None) from error.__cause__

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the stream at once; safe to call twice. While another thread is reading, this is `cancel`."""
        try:
            self._events.close()
        except ValueError:
            # "generator already executing": the reader closes the connection itself once it wakes
            self.cancel()
        else:
            self._stream.close()

    def cancel(self) -> None:
        """End the stream from any other thread: a reader that waits for the next event wakes, and its iteration ends."""
        self._stream.cancel()


def _read(stream: ByteStream) -> Generator[StreamEvent, None, None]:
    def facts(**more: Any) -> Any:
        known = stream.call.facts(status=stream.status, delivered=True, trace_id=stream.trace_id)
        known.update(more)
        # an echoed key is in no error; what iterates gives the trace id as it came
        known["trace_id"] = known["trace_id"] and stream.call.secrets.mask(known["trace_id"])
        return known

    as_event = StreamEvent.from_raw
    try:
        for raw in iter_objects(stream):
            event = as_event(raw)
            if stream.trace_id is None and event.trace_id:
                stream.trace_id = event.trace_id
            if stream.cancelled:
                return
            yield event
            if event.type == "done" or stream.cancelled:
                return
        if not stream.cancelled:
            raise errors.StreamInterrupted(**facts())
    except MalformedEvent as error:
        raise errors.InvalidResponse(
            "an event is not a JSON object, or names a field twice", **facts(details=error.text)
        ) from error.with_traceback(None)
    except EventTooLarge as error:
        raise errors.InvalidResponse(str(error), **facts()) from error.with_traceback(None)
    except errors.HestiaError as error:
        if stream.cancelled:
            return  # the reader was woken by breaking its connection
        if isinstance(error, errors.ConnectionFailed):
            message = "{}; what arrived is not the whole answer".format(error.message)
            raise errors.StreamInterrupted(message, **facts()) from error.with_traceback(None)
        trace_id = error.trace_id or stream.trace_id  # a faulty event's own, where it has one
        raise error.with_facts(**facts(details=error.details, trace_id=trace_id)) from error.__cause__
    finally:
        stream.close()


def is_start_event(event: StreamEvent) -> bool:
    """True for the event that opens a stream."""
    return event.type == "start"


def is_token_event(event: StreamEvent) -> bool:
    """True for one token of the text."""
    return event.type == "token"


def is_delta_event(event: StreamEvent) -> bool:
    """True for one piece of the text."""
    return event.type == "delta"


def is_tool_call_event(event: StreamEvent) -> bool:
    """True for the call of a tool."""
    return event.type == "tool_call"


def is_final_event(event: StreamEvent) -> bool:
    """True for the event that holds the whole result."""
    return event.type == "final"


def is_error_event(event: StreamEvent) -> bool:
    """True for the event that says the run failed."""
    return event.type == "error"


def is_done_event(event: StreamEvent) -> bool:
    """True for the last event of a whole stream."""
    return event.type == "done"
