"""An answer's bytes as they arrive, whatever the framing and whatever urllib3: chunked, by length, to the close; gzip.

requests' own readers hold small pieces back until their buffer is full or the body ends, and decompress without a limit.
"""

from __future__ import annotations

import re
import zlib
from http.client import HTTPResponse, IncompleteRead
from typing import Any, Callable, Iterator

from urllib3.response import HTTPResponse as Urllib3Response

MAX_BODY_BYTES = 8 * 1024 * 1024  # decoding may take twenty times as much memory
_PIECE_BYTES = 64 * 1024
# the last three are none, and said by services that mean none; requests and curl pass over them
_NO_CODING = ("", "identity", "none", "utf-8", "utf8")
_LENGTH = re.compile(r"[0-9]{1,18}\Z")


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
        raise BodyGone("its body was read by somebody else, such as a hook of the session that was lent")
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
