"""HTTP/1.1 framing as pure functions on bytes (RFC 9112); no socket here.

Strict on purpose: whatever two readers could take differently (a bare line feed, a folded header, a space
before the colon, two lengths, a length beside chunks) is refused, and the connection with it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Dict, List, Mapping, Optional, Tuple

from .messages import Headers

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADER_FIELDS = 100
MAX_TARGET_BYTES = 8 * 1024
MAX_BODY_BYTES = 1024 * 1024
MAX_CHUNK_LINE_BYTES = 1024
MAX_TRAILER_BYTES = 8 * 1024
BODILESS = (204, 304)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}"
_METHOD_START = re.compile(_TOKEN.encode("ascii"))
_BLANK_LINE = re.compile(rb"\n\r?\n")
_REQUEST_LINE = re.compile(r"({}) ([\x21-\x7e]+) HTTP/(\d)\.(\d)\Z".format(_TOKEN))
_FIELD = re.compile(r"({}):[ \t]*([\t\x20-\x7e\x80-\xff]*)\Z".format(_TOKEN))
_ABSOLUTE_FORM = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]+\Z")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\Z")


class ProtocolError(Exception):
    """The bytes are no request: answer ``status`` and close, since what follows cannot be framed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass
class Head:
    """A parsed request head; ``content_length`` is 0 when the body is ``chunked`` or absent."""

    method: str
    path: str
    query: str
    headers: Headers
    http_1_0: bool
    keep_alive: bool
    content_length: int
    chunked: bool
    expects_continue: bool


def head_end(buffer: bytearray, searched: int = 0) -> int:
    """Where the head ends (just behind its blank line), or -1 while it is incomplete.

    Args:
        buffer: what has arrived, from the start of the request.
        searched: bytes already looked at by an earlier call, so that a dripping head costs linear time.

    Raises ProtocolError as soon as the bytes can no longer become a request.
    """
    if buffer and not _METHOD_START.match(buffer):
        raise ProtocolError(400, "this is not an HTTP request")
    match = _BLANK_LINE.search(buffer, max(0, searched - 2))
    if match and match.end() <= MAX_HEAD_BYTES:
        return match.end()
    if len(buffer) > MAX_HEAD_BYTES:
        raise ProtocolError(431, "the request head is larger than {} bytes".format(MAX_HEAD_BYTES))
    return -1


def parse_head(data: bytes) -> Head:
    """Parse a whole head, blank line included. Raises ProtocolError."""
    lines = data.decode("latin-1").split("\r\n")
    if lines[-2:] != ["", ""] or len(lines) < 3:
        raise ProtocolError(400, "a line of the head does not end in CR LF")
    request_line = _REQUEST_LINE.match(lines[0])
    if request_line is None:
        raise ProtocolError(400, "malformed request line")
    method, target, major, minor = request_line.groups()
    if (major, minor) not in (("1", "0"), ("1", "1")):
        raise ProtocolError(505, "HTTP/1.0 and HTTP/1.1 only")
    if len(target) > MAX_TARGET_BYTES:
        raise ProtocolError(414, "the request target is longer than {} bytes".format(MAX_TARGET_BYTES))
    if len(lines) - 3 > MAX_HEADER_FIELDS:
        raise ProtocolError(431, "more than {} header fields".format(MAX_HEADER_FIELDS))
    pairs = _fields(lines[1:-2])
    headers = Headers(pairs)
    http_1_0 = minor == "0"
    path, query = _origin(target)
    content_length, chunked = _framing(pairs, headers, http_1_0)
    expectation = headers.get("expect", "").lower()
    if expectation not in ("", "100-continue"):
        raise ProtocolError(417, "unknown expectation")
    connection = [option.strip() for option in headers.get("connection", "").lower().split(",")]
    return Head(
        method=method,
        path=path,
        query=query,
        headers=headers,
        http_1_0=http_1_0,
        keep_alive="close" not in connection and (not http_1_0 or "keep-alive" in connection),
        content_length=content_length,
        chunked=chunked,
        expects_continue=bool(expectation) and not http_1_0,
    )


def _fields(lines: List[str]) -> List[Tuple[str, str]]:
    pairs = []
    for line in lines:
        match = _FIELD.match(line)
        if match is None:
            raise ProtocolError(400, "malformed header field")
        pairs.append((match.group(1), match.group(2).rstrip(" \t")))
    return pairs


def _origin(target: str) -> Tuple[str, str]:
    """Split a request target (RFC 9112, section 3.2) into raw path and raw query."""
    absolute = _ABSOLUTE_FORM.match(target)
    if absolute:
        target = target[absolute.end() :]
        if target[:1] != "/":
            target = "/" + target
    path, _, query = target.partition("?")
    if path[:1] != "/" and path != "*":
        raise ProtocolError(400, "malformed request target")
    return path, query


def _framing(pairs: List[Tuple[str, str]], headers: Headers, http_1_0: bool) -> Tuple[int, bool]:
    """How long the body is (RFC 9112, sections 6 and 11.2): (content length, chunked)."""
    names = [name.lower() for name, _ in pairs]
    for name in ("host", "content-length", "transfer-encoding"):
        if names.count(name) > 1:
            raise ProtocolError(400, "more than one {} field".format(name))
    if "host" not in headers and not http_1_0:
        raise ProtocolError(400, "no Host field")
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        if length is not None or http_1_0:
            raise ProtocolError(400, "Transfer-Encoding beside Content-Length or in HTTP/1.0")
        if coding.lower() != "chunked":
            raise ProtocolError(501, "unknown transfer coding")
        return 0, True
    if length is None:
        return 0, False
    if not _LENGTH.match(length):
        raise ProtocolError(400, "malformed Content-Length")
    if len(length) > 18 or int(length) > MAX_BODY_BYTES:
        raise ProtocolError(413, "the body is larger than {} bytes".format(MAX_BODY_BYTES))
    return int(length), False


class ChunkedBody:
    """A chunked body (RFC 9112, section 7.1), taken from a buffer as it fills; ``data`` is it so far."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._missing = -1  # bytes of the chunk still to come, its CR LF included; -1 before a size line
        self._trailer_bytes = -1  # -1 until the last chunk was seen

    def feed(self, buffer: bytearray) -> bool:
        """Consume what can be consumed from the front of ``buffer``; True once the body is complete."""
        while True:
            if self._missing > 0:
                if not self._take_data(buffer):
                    return False
                continue
            line = self._take_line(buffer)
            if line is None:
                return False
            if self._trailer_bytes >= 0:  # trailer fields are read and dropped
                self._trailer_bytes += len(line) + 2
                if not line:
                    return True
                if self._trailer_bytes > MAX_TRAILER_BYTES:
                    raise ProtocolError(431, "the trailer is too large")
                continue
            size = _CHUNK_SIZE.match(line)
            if size is None:
                raise ProtocolError(400, "malformed chunk size")
            length = int(size.group(1), 16)
            if len(self.data) + length > MAX_BODY_BYTES:
                raise ProtocolError(413, "the body is larger than {} bytes".format(MAX_BODY_BYTES))
            if length:
                self._missing = length + 2
            else:
                self._trailer_bytes = 0

    def _take_data(self, buffer: bytearray) -> bool:
        part = min(self._missing - 2, len(buffer))
        if part > 0:
            self.data += buffer[:part]
            del buffer[:part]
            self._missing -= part
        if self._missing > 2 or len(buffer) < 2:
            return False
        if buffer[:2] != b"\r\n":
            raise ProtocolError(400, "a chunk does not end in CR LF")
        del buffer[:2]
        self._missing = -1
        return True

    def _take_line(self, buffer: bytearray) -> Optional[bytes]:
        end = buffer.find(b"\n", 0, MAX_CHUNK_LINE_BYTES)
        if end < 0:
            if len(buffer) >= MAX_CHUNK_LINE_BYTES:
                raise ProtocolError(400, "a chunk line is too long")
            return None
        line = bytes(buffer[: end + 1])
        if not line.endswith(b"\r\n"):
            raise ProtocolError(400, "a chunk line does not end in CR LF")
        del buffer[: end + 1]
        return line[:-2]


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def encode_head(status: int, headers: Mapping[str, str]) -> bytes:
    """Status line and header fields of an answer, with Date and Server."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    lines = ["HTTP/1.1 {} {}".format(status, phrase)]
    fields: Dict[str, str] = {"Date": _date(int(time.time())), "Server": "hestiaos-sandbox"}
    fields.update(headers)
    lines.extend("{}: {}".format(name, value) for name, value in fields.items())
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked answer; ``data`` must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)
