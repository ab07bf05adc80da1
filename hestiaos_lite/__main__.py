"""The command line as a process of its own: ``hestiaos-lite``, or ``python -m hestiaos_lite``.

What is done to the process as a whole is done here, so that `hestiaos_lite.cli.main` may be called in anybody's process.
"""

from __future__ import annotations

import gc
import os
import sys
from types import ModuleType
from typing import NoReturn, Optional, TextIO

from hestiaos_lite.cli import main  # by its full name: this file may be copied to the root of a zip file


def run() -> NoReturn:
    """Run the command line, and end the process with its exit code."""
    _spare_charset_detection()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        _let_go_if_broken(stream)
    # the interpreter's last collection would walk all that ends with the process anyway: a fifteenth of a one-shot call
    gc.freeze()
    sys.exit(code)


def _let_go_if_broken(stream: Optional[TextIO]) -> None:
    """Point a stream that takes no more nowhere: the interpreter's last flush would fail, and make any exit code 120."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _spare_charset_detection() -> None:
    """Keep requests from loading what it guesses encodings with: buys a tenth of a one-shot call.

    requests (to 2.34 at least) imports chardet and charset_normalizer at once, to be used by ``Response.text`` alone. JSON
    is UTF-8, and nothing in this process guesses.
    """
    for name, version in (
        ("chardet", "4.0.0"),
        ("charset_normalizer", "3.0.0"),
    ):  # that every requests accepts
        sys.modules[name] = ModuleType(name, "not loaded by hestiaos-lite")
        sys.modules[name].__dict__["__version__"] = version


if __name__ == "__main__":
    run()
