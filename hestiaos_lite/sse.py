"""Server-Sent Events: bytes in, events out; no I/O.

The framing is ours, the field decoding is sseclient-py's. The rules are the WHATWG HTML standard's, sections "Parsing an
event stream" and "Interpreting an event stream"; each correction below names what it asks for. sseclient-py (1.9.0) alone
loses a byte-order mark's field, misses blank lines of mixed endings, hands out a cut-off last event, keeps no last event id,
dies of an invalid UTF-8 byte, and takes quadratic time for large events; so it is given only complete, size-capped blocks
with nothing in them that cannot matter.

Two readings of the same frames:

- `iter_events` is the standard's: an event ends at a blank line.
- `iter_objects` is the service's frozen habit (docs/contract.md, "The stream"): an event is complete with the line that completes
  its JSON object, so that events arrive as they come from a server that leaves the blank lines out.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional

import sseclient

from ._json import loads

__all__ = ["EventTooLarge", "MalformedEvent", "ServerSentEvent", "iter_events", "iter_objects"]

if not hasattr(sseclient, "SSEClient") or not hasattr(sseclient.SSEClient, "events"):
    raise ImportError(
        "the installed package 'sseclient' is not sseclient-py, though it has the same import name; "
        "cure: pip uninstall sseclient && pip install --force-reinstall sseclient-py"
    )

MAX_EVENT_BYTES = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_SLICE_LINES = 64  # sseclient-py joins the lines of an event in quadratic time, so it gets a few at once
_raw_decode = json.JSONDecoder().raw_decode
_TEXT = ("token", "delta")  # they decide nothing; in any other event a field that is named twice is refused


class ServerSentEvent(NamedTuple):
    """One event: its type (``message`` by default), its data, and the last event id in force when it was dispatched."""

    event: str
    data: str
    id: str


class EventTooLarge(ValueError):
    """One event, or one line, is larger than the limit."""


class MalformedEvent(ValueError):
    """A ``data:`` field in `iter_objects` is not one JSON object; ``text`` is what it was."""

    def __init__(self, text: str) -> None:
        super().__init__("not a JSON object: {}".format(text[:100]))
        self.text = text


def iter_events(
    chunks: Iterable[bytes], *, max_event_bytes: int = MAX_EVENT_BYTES
) -> Iterator[ServerSentEvent]:
    """Yield the events of a stream, to the letter of the standard.

    Args:
        chunks: the stream's bytes, cut anywhere.
        max_event_bytes: the most that one line, or the data of one event, may measure.

    Raises:
        EventTooLarge: an event passed ``max_event_bytes``.
    """
    last_id = ""
    block = _Block(max_event_bytes)
    for lines in _lines(chunks, max_event_bytes, bytearray()):
        for line in lines:
            if line:
                new_id = block.add(line)
                if new_id is not None:
                    last_id = new_id
            elif block.data:
                yield block.dispatch(last_id)
                block = _Block(max_event_bytes)
            elif block.event:
                # "If the data buffer is an empty string": nothing is dispatched, the type is forgotten
                block = _Block(max_event_bytes)
    # "Once the end of the file is reached, any pending data must be discarded."


def iter_objects(chunks: Iterable[bytes], *, max_event_bytes: int = MAX_EVENT_BYTES) -> Iterator[Any]:
    """Yield the decoded JSON objects of a stream, each with the line that completes it.

    ``data:`` lines are read as they come; a blank line is not waited for. One object may span several of them. A
    ``[DONE]`` sentinel, empty data, comments and all other fields are passed over. A last line without an ending counts if
    it completes an object; whatever else is pending at the end is discarded, as the standard asks.

    Raises:
        MalformedEvent: a line is not the beginning of an object, or the object is malformed or names a field twice.
        EventTooLarge: an object passed ``max_event_bytes``.
    """
    pending = _PendingObject(max_event_bytes)
    begun = bytearray()
    for lines in _lines(chunks, max_event_bytes, begun):
        for line in lines:
            if not line:
                if pending.text:
                    raise MalformedEvent(pending.so_far())
                continue
            if line.startswith(b"data:"):
                text = line[5:].decode("utf-8", "replace").strip()
                if not pending.text:
                    try:
                        value, end = _raw_decode(text)
                        if end == len(text) and value.__class__ is dict:
                            if value.get("type") not in _TEXT:
                                value = loads(text)
                            yield value
                            continue
                    except (ValueError, RecursionError):
                        pass  # not a whole object: the text may be a part of one, a sentinel, or nonsense
                    if not text or text == "[DONE]":
                        continue
                if pending.add(text):
                    yield pending.take()
                elif pending.in_string:
                    # JSON allows no line break there, so no later line can complete the object
                    raise MalformedEvent(pending.so_far())
    tail = bytes(begun)
    if tail.startswith(b"data:"):
        text = tail[5:].decode("utf-8", "replace").strip()
        if (pending.text or text[:1] == "{") and pending.add(text):
            yield pending.take()


def _lines(chunks: Iterable[bytes], max_line_bytes: int, begun: bytearray) -> Iterator[List[bytes]]:
    """Cut chunks of bytes into lines ended by CR, LF or CRLF, wherever the chunks are cut; linear in the bytes.

    Yields the complete lines of each chunk as a list, without their endings, as soon as the ending's first byte is here.

    Args:
        begun: empty; holds the line begun, and at the end a last line that had no ending. It grows in place, so that a long
            line takes linear time.
    """

    def extend(part: bytes) -> None:
        begun.extend(part)
        if len(begun) > max_line_bytes:
            raise EventTooLarge("a line is larger than {} bytes".format(max_line_bytes))

    def bounded() -> Iterator[bytes]:
        """Yield pieces no longer than a line may be, so that what is too large does not depend on how the bytes are cut."""
        for chunk in chunks:
            if len(chunk) <= max_line_bytes:
                yield chunk
            else:
                yield from (chunk[at : at + max_line_bytes] for at in range(0, len(chunk), max_line_bytes))

    after_cr = False
    at_start = True
    for piece in bounded():
        if after_cr and piece[:1] == b"\n":
            # the second half of a CRLF whose CR has ended the line already
            piece = piece[1:]
            after_cr = False
        if not piece:
            continue
        lines = piece.splitlines()  # of bytes: splits at CR, LF and CRLF alone
        last_byte = piece[-1]
        after_cr = last_byte == 13
        rest = b"" if after_cr or last_byte == 10 else lines.pop()
        if lines:
            if begun:
                extend(lines[0])
                lines[0] = bytes(begun)
                begun.clear()
            if at_start:
                at_start = False
                lines[0] = _without_bom(lines[0])
            yield lines
        if rest:
            extend(rest)
    if at_start:
        begun[:] = _without_bom(bytes(begun))


class _Block:
    """The fields of one event, as they come in; what cannot matter is not kept."""

    __slots__ = ("_max_bytes", "_parts", "_size", "data", "event")

    def __init__(self, max_bytes: int) -> None:
        self.data: List[bytes] = []  # data lines not decoded yet
        self.event = b""  # the last event line
        self._parts: List[str] = []  # data decoded already
        self._size = 0
        self._max_bytes = max_bytes

    def add(self, line: bytes) -> Optional[str]:
        """Take one line; return the new last event id if it sets one."""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._size += len(value) + 1
            if self._size > self._max_bytes:
                raise EventTooLarge("an event's data is larger than {} bytes".format(self._max_bytes))
            if len(self.data) >= _SLICE_LINES:
                self._parts.append(_decode(self.event, self.data).data)
                self.data = []
            self.data.append(line)
        elif name == b"event":
            self.event = line
        elif name == b"id" and b"\0" not in value:  # "If the field value does not contain U+0000 NULL"
            return _as_text(value[1:] if value[:1] == b" " else value)
        return None  # comments, retry and unknown fields

    def dispatch(self, last_id: str) -> ServerSentEvent:
        """Return the event; there is at least one data line."""
        if not self.event and not self._parts and len(self.data) == 1:
            value = self.data[0][5:]  # the plain one-line event needs no decoder
            return ServerSentEvent("message", _as_text(value[1:] if value[:1] == b" " else value), last_id)
        decoded = _decode(self.event, self.data)
        return ServerSentEvent(decoded.event, "\n".join(self._parts + [decoded.data]), last_id)


def _decode(event_line: bytes, data_lines: List[bytes]) -> Any:
    """Let sseclient-py decode one block."""
    lines = [event_line] + data_lines if event_line else data_lines
    block = b"\n".join(lines) + b"\n\n"
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:  # "UTF-8 decode" replaces what is not UTF-8; sseclient-py would raise
        block = block.decode("utf-8", "replace").encode("utf-8")
    # an iterator and not the list: sseclient-py logs its source at DEBUG, which must not show the body
    return next(sseclient.SSEClient(iter([block])).events())


def _as_text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _without_bom(line: bytes) -> bytes:
    """Strip the one leading byte-order mark that "UTF-8 decode" strips."""
    return line[3:] if line.startswith(_BOM) else line


class _PendingObject:
    """A JSON object that is spread over several ``data:`` lines; finds its end in linear time by counting braces."""

    _TOKEN = re.compile(r'\\.|["{}]')

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._clear()

    def _clear(self) -> None:
        self.text = bytearray()  # and no list: many short lines must not cost an object each
        self._depth = 0
        self.in_string = False

    def add(self, text: str) -> bool:
        """Take the text of one line; True when the object's braces are closed (or more than closed)."""
        if not self.text and text[:1] != "{":
            raise MalformedEvent(text)
        self.text += text.encode("utf-8") + b"\n"
        if len(self.text) > self._max_bytes:
            raise EventTooLarge("an object is larger than {} bytes".format(self._max_bytes))
        for match in self._TOKEN.finditer(text):
            token = match.group()
            if token == '"':
                self.in_string = not self.in_string
            elif not self.in_string and len(token) == 1:
                self._depth += 1 if token == "{" else -1
        return self._depth <= 0 and not self.in_string

    def so_far(self) -> str:
        """The text that has come."""
        return self.text[:-1].decode("utf-8")

    def take(self) -> Any:
        """Return the object and start afresh."""
        text = self.so_far()
        self._clear()
        try:
            return loads(text)
        except (ValueError, RecursionError) as error:
            raise MalformedEvent(text) from error
