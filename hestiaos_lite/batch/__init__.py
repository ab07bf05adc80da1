"""Many inputs, any ``concurrent.futures`` executor, resumable.

`run` is the library's function; it and the command stand on `dispatch`, which draws rows (`rows`) at the `rate` allowed, has
`worker`'s function executed for those in its `window` (by `threads` of its own, or by the executor that was lent), makes
`results` of them, and knows its `ending`. What only the command needs reads its files (`input`, `index`) and keeps them
(`files`, `ledger`).
"""

from __future__ import annotations

from .results import BatchResult
from .run import run_batch

__all__ = ["BatchResult", "run_batch"]
