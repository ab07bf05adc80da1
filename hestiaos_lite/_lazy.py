"""Names that a package offers and loads when they are first used (PEP 562), so that a script pays only for what it needs.

No lock is held here: the first to ask for a name imports its module, and the import system's own locks do the rest.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Callable, List, Mapping, Set, Tuple

_late: Set[str] = set()


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
        value = getattr(importlib.import_module("{}.{}".format(package, home_of[name])), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> List[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return load, names, list(home_of)


def load_before_fork(*modules: str) -> None:
    """Name modules that a call loads late; a thread that forks loads them first.

    Where another thread is in the middle of loading one, the child would wait for ever for the module's lock: the thread
    that holds it is not in the child.
    """
    if not _late and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_load_late)
    _late.update(modules)


def _load_late() -> None:
    for module in sorted(_late):
        importlib.import_module(module)
