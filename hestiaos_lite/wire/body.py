"""An answer as it arrives: its head, its bytes whatever the framing and whatever urllib3, and what is left behind it.

requests' own readers hold small pieces back until their buffer is full or the body ends, and decompress without a limit.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import zlib
from email.errors import (
    FirstHeaderLineIsContinuationDefect,
    HeaderDefect,
    MisplacedEnvelopeHeaderDefect,
    MissingHeaderBodySeparatorDefect,
)
from http.client import HTTPResponse, IncompleteRead
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from urllib3.response import HTTPResponse as Urllib3Response

MAX_BODY_BYTES = 8 * 1024 * 1024  # decoding may take twenty times as much memory
_PIECE_BYTES = 64 * 1024
_LONGEST_LINE_BYTES = 64 * 1024  # as http.client has it
# the last three are none, and said by services that mean none; requests and curl pass over them
_NO_CODING = ("", "identity", "none", "utf-8", "utf8")
_READ_BUFFER_BYTES = 32 * 1024
# A NAT or firewall forgets a silent connection without a word, and what is then sent on it waits for the whole deadline.
# Less than the 5 s after which uvicorn, Node and Apache close one, so that no request meets the close on its way.
LONGEST_IDLE_SECONDS = 4


class UnusableBody(ValueError):
    """The body came, and cannot be used."""


def read_into(body: bytearray, response: Any, before_read: Callable[[], object], max_bytes: int) -> bool:
    """Add the decoded body of a requests response to ``body``; False when it is larger than ``max_bytes``.

    The connection of one that was read to its end goes back to the pool. Raises as `iter_body`.
    """
    for piece in iter_body(response, before_read):
        body += piece
        if len(body) > max_bytes:
            return False
    _finish(response.raw)
    return True


def iter_body(response: Any, before_read: Callable[[], object]) -> Iterator[bytes]:
    """Yield the decoded body of a requests response, each piece as soon as its bytes are here.

    Args:
        before_read: called before each read; raises where there must not be another.

    Raises:
        IncompleteRead: the body ended before its length, or inside its compression.
        UnusableBody: the compression is none of gzip and deflate, or broken; or a hook has read the raw answer before us.
    """
    raw = response.raw
    if raw is None or response._content is not False:
        # a hook or a tool has read it, and requests keeps it, decoded; or it is a Response made by hand
        return iter([response.content or b""])
    if response._content_consumed or (isinstance(raw, Urllib3Response) and raw.tell()):
        raise UnusableBody("its body was already read, perhaps by a hook of your session")
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding in _NO_CODING:
        return _wire_bytes(response, before_read)
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _inflate(_wire_bytes(response, before_read), before_read)
    # also a list of codings: each would multiply what a small body can unpack to; the answer's own words are not quoted
    name = encoding if encoding in ("br", "compress", "zstd") else "another coding"
    raise UnusableBody("the answer is encoded as {}, which was not asked for".format(name))


def _framing(response: Any) -> Tuple[bool, Optional[int]]:
    """Return whether a body comes in chunks, and if not how many bytes were promised, where they were."""
    if response.status_code in (204, 304):
        return False, 0  # whatever they promise (RFC 9112, 6.3)
    if "chunked" in (response.headers.get("Transfer-Encoding") or "").lower():
        return True, None
    lengths = {length.strip() for length in (response.headers.get("Content-Length") or "").split(",")}
    promised = lengths.pop() if len(lengths) == 1 else ""  # the same one twice is one (RFC 9110, 8.6)
    if not promised.isdecimal() or len(promised) > 18:
        return False, None
    return False, int(promised)


def _wire_bytes(response: Any, before_read: Callable[[], object]) -> Iterator[bytes]:
    """Return the body's bytes without its transfer framing; a promised length that is not kept is noticed."""
    is_chunked, left = _framing(response)
    inner = getattr(response.raw, "_fp", None)
    if is_chunked and isinstance(inner, HTTPResponse) and inner.fp is not None:
        return _chunks(inner.fp, before_read)
    return _to_the_end(_reader(response.raw), left, before_read)


def _chunks(file: Any, before_read: Callable[[], object]) -> Iterator[bytes]:
    """Yield the content of a body in chunks (RFC 9112, 7.1), each as far as it is here; its trailers are passed over.

    http.client's own reader takes twice the time for a chunk, and most streams are an event a chunk. It also reads
    "chunked" among other codings, or in a second line, as it is, to the connection's end.
    """
    readline, read1, left = file.readline, file.read1, 0
    while True:
        before_read()
        if not left:
            line = readline(_LONGEST_LINE_BYTES)
            try:
                left = int(line.partition(b";")[0], 16)
            except ValueError:
                left = -1
            if left < 0 or not line.endswith(b"\n"):  # it is no size, or is cut, or too long
                raise IncompleteRead(b"")
            if not left:
                break
        piece = read1(left if left < _PIECE_BYTES else _PIECE_BYTES)
        if not piece:
            raise IncompleteRead(b"")
        left -= len(piece)
        yield piece
        if not left and file.read(2) != b"\r\n":
            raise IncompleteRead(b"")  # the chunk is longer than its size, or cut
    while readline(_LONGEST_LINE_BYTES) not in (b"\r\n", b"\n", b""):
        before_read()


def _to_the_end(
    read1: Callable[[int], bytes], left: Optional[int], before_read: Callable[[], object]
) -> Iterator[bytes]:
    """Yield the bytes of a body that ends after as many as were promised, or with the connection."""
    while left is None or left > 0:
        before_read()
        piece = read1(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
        if not piece:
            if left:
                raise IncompleteRead(b"", left)
            break
        if left is not None:
            left -= len(piece)
        yield piece


def _reader(raw: Any) -> Callable[[int], bytes]:
    """Return the one call that reads what is there and no more."""
    inner = getattr(raw, "_fp", None)
    if isinstance(inner, HTTPResponse):
        # urllib3 before 2.1 has no read1 of its own
        return inner.read1
    if not isinstance(raw, Urllib3Response):
        return raw.read  # type: ignore[no-any-return]  # a file, of a Response made by hand
    # what a tool plays back, from a file of its own
    read = raw.read1 if hasattr(raw, "read1") and hasattr(inner, "read1") else raw.read
    return lambda size: read(size, decode_content=False)


def _finish(raw: Any) -> None:
    """Give the connection back, which urllib3 does where its own reader has met the end."""
    inner = getattr(raw, "_fp", None)
    if isinstance(inner, HTTPResponse):
        # http.client before 3.12 does not notice that read1 has read a body of known length to its end
        inner.close()
        reads = getattr(inner, "reads", None)
        if reads is not None and reads.has_more:
            raw.close()  # the next call would read it as its answer
    if isinstance(raw, Urllib3Response):
        raw.release_conn()


def close(response: Any) -> None:
    """Close a response; requests cannot close one that was made by hand without a body."""
    if response.raw is not None:
        response.close()


def _inflate(pieces: Iterator[bytes], before_piece: Callable[[], object]) -> Iterator[bytes]:
    """Decompress gzip or deflate in pieces of bounded size, with no piece held back; few bytes may make many of them."""
    inflater: Any = None
    try:
        for piece in pieces:
            if inflater is None:
                # gzip or zlib, or "deflate" without its header, as some servers send
                has_header = piece[:1] == b"\x1f" or piece[0] & 15 == 8
                inflater = zlib.decompressobj(32 + zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
            is_more = True
            while is_more:
                if inflater.eof:
                    if piece[:1] != b"\x1f":
                        break  # the end, or padding after it
                    inflater = zlib.decompressobj(32 + zlib.MAX_WBITS)  # the next member
                before_piece()
                plain = inflater.decompress(piece, _PIECE_BYTES)
                if plain:
                    yield plain
                piece = inflater.unconsumed_tail or inflater.unused_data
                is_more = bool(piece) or len(plain) == _PIECE_BYTES
    except zlib.error as error:
        raise UnusableBody("the answer's compression is broken: {}".format(error)) from error
    if inflater is not None and not inflater.eof:
        raise IncompleteRead(b"")


# What http.client reads by, where a connection is ours.


class Response(http.client.HTTPResponse):
    """http.client's response, but for two things it misses in the head of an answer, and the one it forgets at its end."""

    def __init__(self, connection: Any, reads: LimitedReads, *args: Any, **kwargs: Any) -> None:
        self._connection = connection
        self.reads = reads
        super().__init__(reads, *args, **kwargs)  # type: ignore[arg-type]  # it asks for a makefile() and nothing more

    def begin(self) -> None:
        try:
            super().begin()
        except BaseException:
            self.close()  # http.client closes only when the exception is dropped
            raise
        if self.reads.ended:
            # to http.client the end of the connection ends the headers as a blank line does
            self.close()
            raise http.client.RemoteDisconnected("the connection was closed inside the answer's head")
        self._connection.longest_idle_seconds = _longest_idle_seconds(self.msg.get("Keep-Alive"))
        mend_head(self)

    def _read_status(self) -> Any:
        """Pass over interim answers (RFC 9110, 15.2); http.client knows 100 alone, and takes a 103 for the answer."""
        while True:
            try:
                version, status, reason = super()._read_status()  # type: ignore[misc]
            except http.client.BadStatusLine:
                if self.reads.ended:
                    raise http.client.RemoteDisconnected(
                        "the connection was closed before the answer"
                    ) from None
                raise http.client.BadStatusLine("") from None  # without the line, which may quote a key
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            http.client.parse_headers(self.fp)


def _longest_idle_seconds(keep_alive: Optional[str]) -> int:
    """Say for how long a connection may be idle, by an answer's header; one second less than that says.

    A request that is on its way then meets a service that still listens.
    """
    # compiled here: most services send no such header
    said = keep_alive and re.search(r"timeout\s*=\s*\"?([0-9]{1,9})", keep_alive, re.IGNORECASE)
    return min(LONGEST_IDLE_SECONDS, int(said.group(1)) - 1) if said else LONGEST_IDLE_SECONDS


# of a line without a colon, with a blank before it, or with nothing before it
_HEAD_DEFECTS = (
    FirstHeaderLineIsContinuationDefect,
    HeaderDefect,
    MisplacedEnvelopeHeaderDefect,
    MissingHeaderBodySeparatorDefect,
)


class MalformedHead(http.client.HTTPException):
    """The answer's head holds a line that is no header; http.client drops it, or all that follow."""


def mend_head(answer: Any) -> Dict[str, str]:
    """Refuse a head that http.client could not parse to its end: the length of the body may be what it has dropped.

    A refusal's is repaired instead, and the lines are returned: its status and trace id are worth having.
    """
    msg = answer.msg
    if not msg.defects:
        return {}
    lines: Dict[str, str] = {}
    if any(isinstance(defect, _HEAD_DEFECTS) for defect in msg.defects):
        if answer.status < 400:
            answer.close()
            raise MalformedHead
        dropped = [getattr(defect, "line", None) or "" for defect in msg.defects]
        for line in dropped + str(msg.get_payload()).splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip():
                lines[name.strip()] = msg[name.strip()] = value.strip()
    # urllib3 logs a header line that it cannot parse, whatever the line may quote
    msg.defects = []
    msg.set_payload("")
    return lines


class LimitedReads(io.RawIOBase):
    """A socket's raw file that gives every read what is left of the limit, and knows what is left behind an answer.

    Args:
        early: what was read of the socket before.
    """

    def __init__(self, sock: Any, wait_seconds: Callable[[], float], early: bytes = b"") -> None:
        super().__init__()
        self.ended = False
        self.is_over = False  # nothing more may be read
        self.has_more = False  # the service has said more than its answer
        self._sock = sock
        self._wait_seconds = wait_seconds
        self._early = early
        self._raw: Any = sock.makefile("rb", 0)  # a stand-in for a socket may name it otherwise

    def makefile(self, mode: str) -> io.BufferedReader:
        """Be what http.client takes for a socket."""
        return _Reader(self, _READ_BUFFER_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        if self.is_over:
            return None
        if self._early:
            size: Optional[int] = min(len(buffer), len(self._early))
            buffer[:size], self._early = self._early[:size], self._early[size:]
            return size
        self._sock.settimeout(self._wait_seconds())
        size = self._raw.readinto(buffer)
        self.ended = size == 0
        return size

    def is_more_here(self) -> bool:
        """True when more has left the socket, or TLS has decrypted more; what is still in it urllib3 sees before a call."""
        if self._early or type(self._sock) is socket.socket:
            return bool(self._early)
        # the TLS object of ssl, of urllib3's TLS within TLS, of pyOpenSSL
        holders: Any = [self._sock] + [getattr(self._sock, name, None) for name in ("sslobj", "connection")]
        return any(holder.pending() for holder in holders if hasattr(holder, "pending"))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """The buffer over a socket's raw file; http.client closes it at the answer's end, whatever is left behind that."""

    def close(self) -> None:
        if not self.closed:
            reads: Any = self.raw
            reads.is_over = True
            reads.has_more = bool(self.peek(1)) or reads.is_more_here()
        super().close()
