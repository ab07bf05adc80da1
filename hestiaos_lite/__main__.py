"""The command line as a process of its own: ``hestiaos-lite``, or ``python -m hestiaos_lite``.

What is done to the process as a whole is done here, so that `hestiaos_lite.cli.main` may be called in anybody's process.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, NoReturn

from hestiaos_lite.cli import main  # by its full name: this file may be copied to the root of a zip file


def run() -> NoReturn:
    """Run the command line, and end the process with its exit code."""
    _put_off_charset_detection()
    code = main()
    # the interpreter's last collection would walk all that ends with the process anyway: a fifteenth of a one-shot call
    gc.freeze()
    sys.exit(code)


class _LoadedLater(ModuleType):
    """Stands for a module until something of it is used, and then loads it; of itself it has a name and a version."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # an import statement asks for __path__
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _put_off_charset_detection() -> None:
    """Load what requests guesses encodings with when something is to be guessed: buys a fourteenth of a one-shot call.

    requests (to 2.34 at least) imports chardet or charset_normalizer at once, and looks at its version. It is used by
    ``Response.text`` alone, and JSON is UTF-8. The versions named here are accepted by every requests.
    """
    for name, version in (("chardet", "4.0.0"), ("charset_normalizer", "2.1.0")):
        if name not in sys.modules and importlib.util.find_spec(name) is not None:
            sys.modules[name] = module = _LoadedLater(name)
            module.__dict__["__version__"] = version


if __name__ == "__main__":
    run()
