"""Names that a package offers and loads when they are first used (PEP 562), so that a script pays only for what it needs."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import Any, Callable, List, Mapping, Tuple

# A fork in the middle of an import would leave the child a module's lock that nobody gives back: the two wait for each other.
_loading = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
    )


def attach(
    package: str, homes: Mapping[str, str]
) -> Tuple[Callable[[str], Any], Callable[[], List[str]], List[str]]:
    """Return the package's ``__getattr__``, ``__dir__`` and the names for its ``__all__``.

    Args:
        package: its full name.
        homes: module below the package -> the names it is home to, separated by white space.
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError("module {!r} has no attribute {!r}".format(package, name))
        with _loading:
            value = getattr(importlib.import_module("{}.{}".format(package, home_of[name])), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> List[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return load, names, list(home_of)
