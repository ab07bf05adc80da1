"""The command line called in this process: arguments and standard input in, exit code and both outputs out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import textwrap
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple
from unittest import mock

import pytest

from hestiaos_lite.cli import main

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NEEDS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


DONE = {"type": "done"}  # the last event of a stream


class Called(NamedTuple):
    """What one call gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> Dict[str, Any]:
        """The error object on standard error, its last line."""
        found: Dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return found


def call(*argv: str, stdin: Any = b"", **streams: Any) -> Called:
    """Call ``hestiaos-lite`` in this process, with this input, and outputs that are captured.

    A standard stream of another kind may be given (stdin, stdout, stderr; None: one that is closed).
    """
    given = stdin.encode("utf-8") if isinstance(stdin, str) else stdin
    if isinstance(given, bytes):
        given = io.TextIOWrapper(io.BytesIO(given), encoding="utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with mock.patch.multiple(sys, **dict({"stdin": given, "stdout": out, "stderr": err}, **streams)):
        code = main(list(argv))
    texts = [stream.buffer.getvalue().decode("utf-8") for stream in (out, err)]  # type: ignore[attr-defined]
    return Called(code, *texts)


def stream_of(*events: Any) -> bytes:
    body = "".join("data: {}\n\n".format(json.dumps(event)) for event in events).encode("utf-8")
    from .faultserver import head  # here: it loads ssl, which a test's Python may be without

    return head(200, {"Content-Type": "text/event-stream", "Content-Length": len(body)}) + body


def token(text: str) -> Any:
    return {"type": "token", "data": {"text": text}}


def command(*argv: str) -> Sequence[str]:
    """Give the command line that runs ``hestiaos-lite`` in a process of its own."""
    return [sys.executable, "-m", "hestiaos_lite"] + list(argv)


def environment(**variables: str) -> Dict[str, str]:
    """Give the environment for such a process."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return dict(inherited, **dict({"PYTHONPATH": ROOT, "PYTHONWARNINGS": "error"}, **variables))


def ran(line: Sequence[Any], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command line with both outputs captured."""
    return subprocess.run(
        line, **dict({"env": environment(), "capture_output": True, "timeout": 120}, **options)
    )


def program(source: str, *arguments: str, path: Any = None) -> List[str]:
    """Run a Python program in a process of its own, warnings being errors; it ends with 0. Return the lines it prints."""
    source = textwrap.dedent(source)
    if path is not None:  # what spawn imports again must be a file
        path.write_text(source)
    line = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning"]
    line += ["-c", source] if path is None else [str(path)]
    done = ran(line + list(arguments), env=environment(PYTHONWARNINGS=""), text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout).splitlines()


def run(*argv: str, stdin: bytes = b"", **variables: str) -> Called:
    """Run ``hestiaos-lite`` in a process of its own."""
    done = ran(command(*argv), input=stdin, env=environment(**variables))
    return Called(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))


@contextlib.contextmanager
def file_size_limit(limit_bytes: int = 128 * 1024) -> Iterator[None]:
    """Within the block a file ends in the middle of what is printed, as where a disk is full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Makes the terminal on its standard input that of its session, and becomes the command that follows. (pty.fork would fork this
# process, which may have threads: a warning since 3.12, an error here.)
_TAKES_ITS_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"


def start_in_a_terminal(
    argv: Sequence[str], variables: Dict[str, str], folder: str
) -> Tuple[subprocess.Popen[bytes], int]:
    """Start a command with a terminal of its own on all three streams; give it, and the end at which its screen is read."""
    screen, terminal = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _TAKES_ITS_TERMINAL, *argv],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=variables,
        cwd=folder,
        start_new_session=True,
    )
    os.close(terminal)
    return child, screen


def in_a_terminal(*argv: str, typed: bytes = b"", **variables: str) -> Tuple[int, str]:
    """Run it with a terminal on all three streams; return the exit code and what the screen shows.

    In this process, but for one in which something is typed, and which needs a terminal of its own for it.
    """
    variables = dict({"TERM": "xterm"}, **variables)
    if typed:
        child, screen = start_in_a_terminal(command(*argv), environment(**variables), ROOT)
        try:
            shown = read_screen(screen, typed)
            return child.wait(timeout=60), shown
        finally:
            child.kill()
            child.wait()
    screen, terminal = os.openpty()
    with open(terminal, "r+b", buffering=0) as raw, mock.patch.dict(os.environ, variables):
        stream = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)  # type: ignore[type-var]
        code = call(*argv, stdin=stream, stdout=stream, stderr=stream).code
    return code, read_screen(screen)


def read_screen(screen: int, typed: bytes = b"") -> str:
    """Read what a terminal shows until nobody writes to it any more; type something once it is asked for."""
    shown = b""
    while select.select([screen], [], [], 60)[0]:
        try:
            data = os.read(screen, 4096)
        except OSError:  # Linux says EIO where the other end has gone
            break
        if not data:
            break
        shown += data
        if typed and b"not shown" in shown:
            os.write(screen, typed)
            typed = b""
    os.close(screen)
    return shown.replace(b"\r\n", b"\n").decode("utf-8")
