"""Many inputs, any ``concurrent.futures`` executor, resumable.

`run` is the library's function; it and the command stand on `dispatch`, which draws rows (`rows`) at the `rate` allowed, has
`worker`'s function executed for them (by the threads of its `pool`, or by the executor that was lent), makes `results` of
them, and lets signals wait until nothing is lost by them (`interrupts`). What only the command needs reads its `input` and
keeps its `files`: the `store`, which is the only truth, and the `output` that is made from it.
"""

from __future__ import annotations

from .results import BatchResult
from .run import run_batch

__all__ = ["BatchResult", "run_batch"]
