"""What every test builds on: an environment that says nothing, and a sandbox of its own."""

from __future__ import annotations

import compileall
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

import hestiaos_lite
from hestiaos_lite import Outbox
from hestiaos_lite.sandbox import Sandbox

from .cli_call import ROOT

# A job started with `nohup ... &` ignores these signals, and so would every process that a test starts and sends one to.
# What has a handler is at its default in such a process.
for _name, _handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", lambda number, frame: None)):
    if signal.getsignal(getattr(signal, _name, signal.SIGINT)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _handler)

# Everything is compiled once, and by no process that a test starts: a disk that is full there would leave half a file (3.11).
sys.dont_write_bytecode = False
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

_OF_THE_USER = ("HESTIAOS_", "AEGIS_")
_OF_THE_NETWORK = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "requests_ca_bundle",
    "curl_ca_bundle",
    "netrc",
)


def pytest_configure(config: Any) -> None:
    judge_one_copy()
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(os.path.join(ROOT, "hestiaos_lite"), quiet=2)


def judge_one_copy() -> None:
    """Judge one copy: this process has the package that is installed, those that tests start have the checkout's."""
    installed, checkout = Path(hestiaos_lite.__file__).resolve().parent, Path(ROOT) / "hestiaos_lite"
    if installed != checkout:
        copies = [files_of(installed), files_of(checkout)]
        differing = sorted(
            name for name in set().union(*copies) if copies[0].get(name) != copies[1].get(name)
        )
        if differing:
            raise pytest.UsageError(
                "{} is not this checkout's: {} of its files differ, {} the first; once 'pip install -e .', or "
                "'pip install .' after each change".format(installed, len(differing), differing[0])
            )


def files_of(package: Path) -> Dict[str, bytes]:
    """A package's own files by their paths in it."""
    return {
        str(path.relative_to(package)): path.read_bytes()
        for path in package.rglob("*")
        if path.suffix in (".py", ".typed")
    }


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: Any) -> str:
    """A home folder with nothing in it."""
    return str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: Any, empty_home: str) -> None:
    """No setting, proxy, certificate, netrc or configuration file of the user reaches a test."""
    for name in list(os.environ):
        if name.startswith(_OF_THE_USER) or name.lower() in _OF_THE_NETWORK:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", empty_home)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.path.join(empty_home, ".config"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    report = (yield).get_result()  # type: ignore[func-returns-value]
    item.has_failed = getattr(item, "has_failed", False) or report.failed


@pytest.fixture(autouse=True)
def no_process_is_left(request: Any, monkeypatch: Any) -> Iterator[None]:
    """A test ends the processes that it starts; those of one that failed are ended here, and disturb no other."""
    started = []

    class Started(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Started)
    yield
    left = [process.args for process in started if process.poll() is None]
    for process in started:
        process.kill()
        with contextlib.suppress(OSError):  # what it did not read
            process.__exit__(None, None, None)
    assert request.node.has_failed or left == []


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An outbox of the test's own, at the path ``outbox.path``."""
    with Outbox(tmp_path / "outbox.db") as opened:
        yield opened


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A running sandbox of the test's own."""
    with Sandbox() as running:
        yield running
