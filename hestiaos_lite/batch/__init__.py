"""Many inputs, any ``concurrent.futures`` executor, resumable.

`run` is the library's function; it and the command are built on `dispatch`, which fetches `rows` at the `rate` allowed, has them
sent by its own `threads` or by the executor that was lent, and makes a result of each. What only the command needs reads its
`input` and keeps its files: the `store`, which is the only truth, and the `output` that is made from it.
"""

from __future__ import annotations

from .rows import BatchResult
from .run import run_batch

__all__ = ["BatchResult", "run_batch"]
