"""Many inputs, any ``concurrent.futures`` executor, resumable.

`run` is the library's function; it and the command stand on `dispatch` (window, pauses, ends), which submits `worker`'s
function row by row (`rows`) at the `rate` allowed. What only the command needs reads its files (`input`, `index`) and keeps
them (`files`, `ledger`).
"""

from __future__ import annotations

from .rows import BatchResult
from .run import run_batch

__all__ = ["BatchResult", "run_batch"]
