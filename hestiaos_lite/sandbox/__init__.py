"""HestiaOS and AEGIS in one process, for demos and tests; standard library only.

>>> from hestiaos_lite.sandbox import Sandbox
>>> with Sandbox() as box:
...     print(box.url)  # doctest: +SKIP

``Sandbox`` is loaded at its first use: the pytest plugin costs nothing to a run that does not ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .box import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    if name == "Sandbox":
        from .box import Sandbox

        return Sandbox
    raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
