"""SIGTERM ends a command as Ctrl-C does: connections are closed, leases given back, the sandbox stopped."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any, Iterator


@contextlib.contextmanager
def terminable(exit_code: int) -> Iterator[None]:
    """Within the block SIGTERM raises SystemExit with this code, unless it is ignored, as nohup and trap "" ask for.

    Only the main thread may ask for that.
    """

    def end(number: int, frame: Any) -> None:
        raise SystemExit(exit_code)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
