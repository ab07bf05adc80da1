"""Build ``hestiaos-lite.pyz``, one file with everything inside, for hosts that have Python and no pip.

    python -m hestiaos_lite.zipapp [--output hestiaos-lite.pyz]

It packs this package and its dependencies as they are installed here, pure Python only, so nothing is downloaded. The file
runs on every Python that these versions support: built under 3.7 it runs on 3.7 to 3.13.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import sys
import tempfile
import zipapp
from typing import List, Optional, Tuple

_PACKAGES = ("hestiaos_lite", "requests", "urllib3", "idna", "certifi", "sseclient")
_DETECTORS = (
    "charset_normalizer",
    "chardet",
)  # requests takes either to guess an encoding; a JSON client needs no guess
_DATA = (
    ".py",
    ".pem",
    ".typed",
    ".bash",
    ".zsh",
    ".fish",
)  # a zip cannot load compiled modules; each has its .py

_MAIN = """import sys

if sys.version_info < {floor!r}:
    sys.exit("built for Python {floor[0]}.{floor[1]} or newer: build it under the oldest Python in use")

from hestiaos_lite.cli import main

sys.exit(main())
"""


def build(output: str) -> Tuple[int, int]:
    """Write the archive and return the oldest Python it runs on.

    Raises:
        OSError: the file cannot be written.
    """
    floor = (3, 7)
    with tempfile.TemporaryDirectory() as folder:
        packages = _PACKAGES + tuple(name for name in _DETECTORS if _find(name) is not None)
        for name in packages:
            source = _find(name)
            if source is None:
                raise ImportError("{} is not installed".format(name))
            shutil.copytree(source, os.path.join(folder, name), ignore=_not_wanted)
            floor = max(floor, _requires_python(name))
        with open(os.path.join(folder, "__main__.py"), "w", encoding="utf-8") as file:
            file.write(_MAIN.format(floor=floor))
        zipapp.create_archive(folder, output, interpreter="/usr/bin/env python3", compressed=True)
    return floor


def _find(name: str) -> Optional[str]:
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    return os.path.dirname(os.path.abspath(str(module.__file__)))


def _not_wanted(folder: str, names: List[str]) -> List[str]:
    return [
        name
        for name in names
        if name == "__pycache__" or not (name.endswith(_DATA) or os.path.isdir(os.path.join(folder, name)))
    ]


def _requires_python(package: str) -> Tuple[int, int]:
    """Read the oldest Python a dependency's metadata allows; on 3.7, what is installed runs on 3.7."""
    if sys.version_info < (3, 8):
        return (3, 7)
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        wanted = metadata({"sseclient": "sseclient-py"}.get(package, package))["Requires-Python"] or ""
    except PackageNotFoundError:
        wanted = ""
    match = re.search(r">=\s*3\.(\d+)", wanted)
    return (3, int(match.group(1))) if match else (3, 7)


def main(argv: Optional[List[str]] = None) -> int:
    """Build the archive that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m hestiaos_lite.zipapp", description=__doc__)
    parser.add_argument("--output", default="hestiaos-lite.pyz", metavar="FILE", help="default: %(default)s")
    output = parser.parse_args(argv).output
    floor = build(output)
    print("{}: {:.1f} MiB, for Python {}.{} or newer".format(output, os.path.getsize(output) / 2**20, *floor))
    return 0


if __name__ == "__main__":
    sys.exit(main())
