"""The tools that users have already: docs/compatibility.md names each with the test that shows it.

A tool that is not in the ``test`` extra is tried by tests marked ``compatibility``, and skipped where it is not installed.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any, Callable, List

import pytest

from ..cli_call import ROOT, environment

# what makes the threads of an interpreter green, to be run before anything else
GREEN = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}


def needs(*modules: str) -> List[Any]:
    """Mark a module's tests as ones that need a tool imported by these names."""
    missing = [name for name in modules if not _is_installed(name)]
    return [
        pytest.mark.compatibility,
        pytest.mark.skipif(bool(missing), reason="not installed: " + ", ".join(missing)),
    ]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def alone(function: Callable[..., None], *arguments: str, before: str = "") -> str:
    """Call a function of a test module in an interpreter of its own, since it patches what is global; return what it prints.

    ``before`` is run before anything is imported.
    """
    code = before + "\nimport sys; from {0} import {1}; {1}(*sys.argv[1:])".format(
        function.__module__, function.__name__
    )
    done = subprocess.run(
        [sys.executable, "-c", code] + list(arguments),
        cwd=ROOT,
        env=environment(PYTHONWARNINGS="ignore::DeprecationWarning"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    output = done.stdout.decode("utf-8")
    assert done.returncode == 0, output
    return output
