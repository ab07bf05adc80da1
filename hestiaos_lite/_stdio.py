"""Standard streams: what is written is written whole or is an error, what is read is read to its end or is an error.

Python's text streams promise neither. A raw stream under them (``PYTHONUNBUFFERED=1``) takes a part of a text where a disk or
a file size limit ends, and the rest is dropped in silence; on a descriptor that does not block (left so by another program
on the same terminal or pipe) a part of the input looks like all of it.
"""

from __future__ import annotations

import codecs
import os
import sys
from typing import Any, Iterator, Optional, TextIO

_CHUNK_BYTES = 65536


class Writer:
    """Writes text to a stream whole, and at once; what its encoding does not have is shown as ``\\xe4``."""

    def __init__(self, stream: Optional[TextIO]) -> None:
        self.encoding = getattr(stream, "encoding", None) or "ascii"
        self.is_terminal = stream is not None and stream.isatty()
        self._stream = stream
        self._encode = codecs.getincrementalencoder(self.encoding)("backslashreplace").encode
        buffer = getattr(stream, "buffer", None)  # a notebook's stream has none
        self._raw: Any = getattr(buffer, "raw", buffer)

    def write(self, text: str) -> None:
        """Write all of it; raises OSError where that cannot be."""
        if self._stream is None:
            raise OSError("it is closed")
        self._stream.flush()  # what others have printed comes first
        if self._raw is None:
            self._stream.write(text)
            self._stream.flush()
            return
        left = memoryview(self._encode(text.replace("\n", os.linesep)))
        while left:
            written = self._raw.write(left)
            if not written:  # None: it does not block, and is full
                _wait_until_ready(self._raw, is_output=True)
            else:
                left = left[written:]

    def is_ready(self) -> bool:
        """Tell whether a few bytes can be written without waiting for a reader."""
        try:
            return _wait_until_ready(self._raw, is_output=True, timeout_seconds=0)
        except (OSError, ValueError):
            return True  # a regular file, which no selector takes, or none of the system's

    def flush(self) -> None:
        """Do nothing: all is written at once (tqdm asks for it)."""

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self.is_terminal

    def fileno(self) -> int:
        """Return the descriptor; raises OSError where there is none."""
        return -1 if self._stream is None else self._stream.fileno()


def read_stdin() -> Iterator[bytes]:
    """Yield the bytes of standard input until it ends, waiting where there are none yet.

    Raises:
        InvalidInput: it is closed, or cannot be read.
    """
    from .errors import InvalidInput  # here: --help prints without

    if sys.stdin is None:
        raise InvalidInput("standard input is closed")
    buffer = sys.stdin.buffer
    raw: Any = getattr(buffer, "raw", buffer)
    while True:
        try:
            data = raw.read(_CHUNK_BYTES)
        except OSError as error:
            why = error.strerror or str(error)
            raise InvalidInput("standard input cannot be read: {}".format(why)) from error
        if data is None:
            _wait_until_ready(raw, is_output=False)
        elif data:
            yield data
        else:
            return


def _wait_until_ready(raw: Any, *, is_output: bool, timeout_seconds: Optional[float] = None) -> bool:
    import selectors  # here: almost every stream blocks

    with selectors.DefaultSelector() as selector:
        selector.register(raw, selectors.EVENT_WRITE if is_output else selectors.EVENT_READ)
        return bool(selector.select(timeout_seconds))
