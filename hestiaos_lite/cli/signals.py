"""SIGTERM ends a command as Ctrl-C does: connections are closed, leases given back, the sandbox stopped."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any, Iterator


@contextlib.contextmanager
def terminable(exit_code: int) -> Iterator[None]:
    """Within the block SIGTERM raises SystemExit with this code; only the main thread may ask for that."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(exit_code)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
