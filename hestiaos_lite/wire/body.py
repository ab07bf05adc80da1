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
from typing import Any, Callable, Iterator, Optional

from urllib3.response import HTTPResponse as Urllib3Response

MAX_BODY_BYTES = 8 * 1024 * 1024  # decoding may take twenty times as much memory
_PIECE_BYTES = 64 * 1024
# the last three are none, and said by services that mean none; requests and curl pass over them
_NO_CODING = ("", "identity", "none", "utf-8", "utf8")
_LENGTH = re.compile(r"[0-9]{1,18}\Z")
_READ_BUFFER_BYTES = 32 * 1024
# A NAT or firewall forgets a silent connection without a word, and what is then sent on it waits for the whole deadline.
# Less than the 5 s after which uvicorn, Node and Apache close one, so that no request meets the close on its way.
LONGEST_IDLE_SECONDS = 4
_KEPT_FOR = re.compile(r"timeout\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)


class UnusableBody(ValueError):
    """The body came, and cannot be used."""


class BodyTooLarge(UnusableBody):
    """The decoded body passes the limit."""


class UnknownEncoding(UnusableBody):
    """The body's Content-Encoding is none that was asked for, or is not what it says."""


class BodyGone(UnusableBody):
    """Somebody else has read the body, and did not keep it."""


def read_body(response: Any, before_read: Callable[[], None], max_bytes: int) -> bytearray:
    """Return the whole decoded body of a requests response, at most ``max_bytes`` of it, and its connection to the pool."""
    body = bytearray()
    for piece in iter_body(response, before_read):
        body += piece
        if len(body) > max_bytes:
            raise BodyTooLarge("the answer is larger than {} bytes (max_body_bytes)".format(max_bytes))
    finish(response.raw)
    return body


def iter_body(response: Any, before_read: Callable[[], None]) -> Iterator[bytes]:
    """Yield the decoded body of a requests response, each piece as soon as its bytes are here.

    Args:
        before_read: called before each read; raises where there must not be another.

    Raises:
        IncompleteRead: the body ended before its length, or inside its compression.
        UnknownEncoding: the compression is none of gzip and deflate, or broken.
        BodyGone: a hook has read from the raw answer before us.
    """
    raw = response.raw
    if raw is None or response._content is not False:
        # a hook or a tool has read it, and requests keeps it, decoded; or it is a Response made by hand
        return iter([response.content or b""])
    if response._content_consumed or (isinstance(raw, Urllib3Response) and raw.tell()):
        raise BodyGone("its body was already read, perhaps by a hook of your session")
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding in _NO_CODING:
        return _wire_bytes(response, before_read)
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _inflate(_wire_bytes(response, before_read), before_read)
    # also a list of codings: each would multiply what a small body can unpack to; the answer's own words are not quoted
    name = encoding if encoding in ("br", "compress", "zstd") else "another coding"
    raise UnknownEncoding("the answer is encoded as {}, which was not asked for".format(name))


def _wire_bytes(response: Any, before_read: Callable[[], None]) -> Iterator[bytes]:
    """Yield the body's bytes without its transfer framing; notice when a promised length is not kept."""
    raw = response.raw
    chunked = "chunked" in (response.headers.get("Transfer-Encoding") or "").lower()
    lengths = {length.strip() for length in (response.headers.get("Content-Length") or "").split(",")}
    promised = lengths.pop() if len(lengths) == 1 else ""  # the same one twice is one (RFC 9110, 8.6)
    bodiless = response.status_code in (204, 304) or response.status_code < 200
    left = int(promised) if _LENGTH.match(promised) and not chunked and not bodiless else None
    read1 = _reader(raw)
    while left is None or left > 0:
        before_read()
        try:
            piece = read1(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
        except IncompleteRead:
            # http.client's own quotes, in its context, what it could not read
            raise IncompleteRead(b"", left) from None
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
        if getattr(raw, "chunked", False) and not inner.chunked:
            # "chunked" among others, or in a second line: http.client would read it as it is, to the connection's end
            inner.chunked, inner.chunk_left, inner.length = True, None, None
        # urllib3 before 2.1 has no read1 of its own; past it, a stream of an event a chunk is 1.5 times as fast
        return inner.read1
    if not isinstance(raw, Urllib3Response):
        return raw.read  # type: ignore[no-any-return]  # a file, of a Response made by hand
    # what a tool plays back, from a file of its own
    read = raw.read1 if hasattr(raw, "read1") and hasattr(inner, "read1") else raw.read
    return lambda size: read(size, decode_content=False)


def finish(raw: Any) -> None:
    """Give the connection back, which urllib3 does where its own reader has met the end."""
    inner = getattr(raw, "_fp", None)
    if isinstance(inner, HTTPResponse):
        # http.client before 3.12 does not notice that read1 has read a body of known length to its end
        inner.close()
    if isinstance(raw, Urllib3Response):
        if _has_more(raw, inner):
            raw.close()  # the next call would read it as its answer
        raw.release_conn()


def _has_more(raw: Any, inner: Any) -> bool:
    """True when the service said more than its answer: in http.client's buffer, or in what TLS has decrypted.

    What is still in the socket urllib3 sees before the next call.
    """
    if getattr(inner, "has_more", False):
        return True
    sock = getattr(raw.connection, "sock", None)
    # the TLS object of ssl, of urllib3's TLS within TLS, of pyOpenSSL
    holders: Any = (sock, getattr(sock, "sslobj", None), getattr(sock, "connection", None))
    return any(holder.pending() for holder in holders if hasattr(holder, "pending"))


def close(response: Any) -> None:
    """Close a response; requests cannot close one that was made by hand without a body."""
    if response.raw is not None:
        response.close()


def _inflate(pieces: Iterator[bytes], before_piece: Callable[[], None]) -> Iterator[bytes]:
    """Decompress gzip or deflate in pieces of bounded size, with no piece held back; few bytes may make many of them."""
    inflater = zlib.decompressobj(32 + zlib.MAX_WBITS)  # finds out by itself whether gzip or zlib
    begun = False
    try:
        for piece in pieces:
            if not begun and piece:
                begun = True
                if not (piece[:1] == b"\x1f" or piece[0] & 15 == 8):
                    # "deflate" without its header, as some servers send
                    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            while piece:
                if inflater.eof:
                    if piece[:1] != b"\x1f":
                        break  # padding after the end
                    inflater = zlib.decompressobj(32 + zlib.MAX_WBITS)  # the next member
                before_piece()
                plain = inflater.decompress(piece, _PIECE_BYTES)
                if plain:
                    yield plain
                piece = inflater.unconsumed_tail or inflater.unused_data
                if not piece and len(plain) == _PIECE_BYTES:
                    rest = inflater.decompress(b"", _PIECE_BYTES)
                    while rest:
                        yield rest
                        before_piece()
                        rest = inflater.decompress(b"", _PIECE_BYTES)
    except zlib.error as error:
        raise UnknownEncoding("the answer's compression is broken: {}".format(error)) from error
    if begun and not inflater.eof:
        raise IncompleteRead(b"")


# What http.client reads by, where a connection is ours.


class Response(http.client.HTTPResponse):
    """http.client's response, but for two things it misses in the head of an answer, and the one it forgets at its end."""

    def __init__(self, connection: Any, reads: LimitedReads, *args: Any, **kwargs: Any) -> None:
        self._connection = connection
        self._reads = reads
        super().__init__(reads, *args, **kwargs)  # type: ignore[arg-type]  # it asks for a makefile() and nothing more

    def begin(self) -> None:
        try:
            super().begin()
        except BaseException:
            self.close()  # http.client closes only when the exception is dropped
            raise
        if self._reads.ended:
            # to http.client the end of the connection ends the headers as a blank line does
            self.close()
            raise http.client.RemoteDisconnected("the connection was closed inside the answer's head")
        said = _KEPT_FOR.search(self.msg.get("Keep-Alive", ""))
        # one second less than it says: a request that is on its way then meets a service that still listens
        seconds = LONGEST_IDLE_SECONDS if said is None else min(LONGEST_IDLE_SECONDS, int(said.group(1)) - 1)
        self._connection.longest_idle_seconds = seconds
        mend_head(self)

    @property
    def has_more(self) -> bool:
        """The service has said more than its answer."""
        return self._reads.has_more

    def _read_status(self) -> Any:
        """Pass over interim answers (RFC 9110, 15.2); http.client knows 100 alone, and takes a 103 for the answer."""
        while True:
            try:
                version, status, reason = super()._read_status()  # type: ignore[misc]
            except http.client.BadStatusLine:
                if self._reads.ended:
                    raise http.client.RemoteDisconnected(
                        "the connection was closed before the answer"
                    ) from None
                raise http.client.BadStatusLine("") from None  # without the line, which may quote a key
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            http.client.parse_headers(self.fp)


# of a line without a colon, with a blank before it, or with nothing before it
_HEAD_DEFECTS = (
    FirstHeaderLineIsContinuationDefect,
    HeaderDefect,
    MisplacedEnvelopeHeaderDefect,
    MissingHeaderBodySeparatorDefect,
)


class MalformedHead(http.client.HTTPException):
    """The answer's head holds a line that is no header; http.client drops it, or all that follow."""


def mend_head(answer: Any) -> None:
    """Refuse a head that http.client could not parse to its end: the length of the body may be what it has dropped.

    A refusal's is mended instead, so far that its body is read at once: its status and trace id are worth having.
    """
    msg = answer.msg
    if any(isinstance(defect, _HEAD_DEFECTS) for defect in msg.defects):
        if answer.status < 400:
            answer.close()
            raise MalformedHead
        lines = [getattr(defect, "line", None) or "" for defect in msg.defects]
        for line in lines + str(msg.get_payload()).splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip():
                msg[name.strip()] = value.strip()
        length = (msg.get("Content-Length") or "").strip()
        answer.length = int(length) if length.isdigit() else answer.length
        answer.chunked = "chunked" in (msg.get("Transfer-Encoding") or "").lower()
        answer.chunk_left = None
    # urllib3 logs a header line that it cannot parse, whatever the line may quote
    msg.defects = []
    msg.set_payload("")


class LimitedReads(io.RawIOBase):
    """A socket's raw file that gives every read what is left of the limit."""

    def __init__(self, sock: socket.socket, wait_seconds: Callable[[], float]) -> None:
        super().__init__()
        self.ended = False
        self.is_over = False  # nothing more may be read
        self.has_more = False  # bytes were read that belong to no answer
        self._sock = sock
        self._wait_seconds = wait_seconds
        self._raw: Any = sock.makefile("rb", 0)  # a stand-in for a socket may name it otherwise

    def makefile(self, mode: str) -> io.BufferedReader:
        """Be what http.client takes for a socket."""
        return _Reader(self, _READ_BUFFER_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        if self.is_over:
            return None
        self._sock.settimeout(self._wait_seconds())
        size: Optional[int] = self._raw.readinto(buffer)
        self.ended = size == 0
        return size

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """The buffer over a socket's raw file; http.client closes it at the answer's end, whatever it still holds."""

    def close(self) -> None:
        if not self.closed:
            self.raw.is_over = True  # type: ignore[attr-defined]
            self.raw.has_more = bool(self.peek(1))  # type: ignore[attr-defined]
        super().close()


class WatchedFile:
    """What `_Reader` is for a connection of ours, for an answer of a lent session: put around http.client's own file."""

    def __init__(self, answer: Any, file: io.BufferedReader, sock: socket.socket) -> None:
        self._answer = answer
        self._file = file
        self._sock = sock
        self.read, self.read1, self.readline = file.read, file.read1, file.readline
        self.readinto, self.peek, self.flush = file.readinto, file.peek, file.flush

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Close the file, once it is known whether the service has said more than its answer."""
        if not self._file.closed:
            # urllib3 1.26's stand-in for a socket of pyOpenSSL has no gettimeout: an AttributeError; the socket in it has
            seconds = getattr(self._sock, "socket", self._sock).gettimeout()
            try:
                self._sock.settimeout(0)
                # its end as well: of a TLS connection urllib3 would not see it before the next call is sent
                raw: Any = self._file.raw
                self._answer.has_more = bool(self._file.peek(1)) or raw.readinto(bytearray(1)) is not None
            except (OSError, ValueError):
                pass  # TLS has nothing to read, or the connection is gone, which urllib3 notices
            try:
                self._sock.settimeout(seconds)
            except OSError:
                pass  # it is gone
        self._file.close()
