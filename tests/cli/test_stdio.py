"""Standard streams: all that is printed is written whole or is exit 74, and standard input is read to its end.

In this process on descriptors of the system, as Python would open them; a few in one of their own.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import pytest

from ..batch.kit import Child, wait_until
from ..cli_call import Called, call, command, environment, file_size_limit, ran
from ..faultserver import FaultServer, answer, answer_and_hang, head, ok

if os.name != "posix":
    pytest.skip("descriptors and limits as POSIX has them", allow_module_level=True)

TEXT = "0123456789abcdef" * 25_000  # more than a pipe holds, and than the limit below
SAYS_TEXT = answer(ok({"result": TEXT, "trace_id": "t", "key": "k", "value": TEXT}))
FULL, CLOSED, NO_SPACE = (
    "hestiaos-lite: cannot write to standard output: {}\n".format,
    "it is closed",
    "No space left on device",
)
TOO_LARGE = FULL("File too large")


def output_to(target: Any, *, unbuffered: bool = False) -> Any:
    """A stream to a descriptor or path, as Python makes standard output, also with PYTHONUNBUFFERED."""
    raw: Any = io.FileIO(target, "w")
    return io.TextIOWrapper(raw if unbuffered else io.BufferedWriter(raw), "utf-8", write_through=unbuffered)


@contextlib.contextmanager
def meanwhile(do: Callable[[], Any]) -> Iterator[None]:
    """Do something in a thread while the block goes on, and wait for it."""
    thread = threading.Thread(target=do)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        assert not thread.is_alive()


def bytes_in(pipe: int) -> int:
    import fcntl
    import termios

    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


# fmt: off
PRINTING = [
    ("run -q x", False), ("run -q x", True), ("run --json x", True), ("run --get result x", True), ("chat x", True),
    ("secret get k", True), ("batch - --out -", True),
]
# fmt: on


@pytest.mark.parametrize("argv, unbuffered", PRINTING)
def test_half_a_result_is_74(argv: str, unbuffered: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "report")
    with FaultServer(SAYS_TEXT) as server, output_to(path, unbuffered=unbuffered) as out, file_size_limit():
        called = call("-u", server.url, *argv.split(), stdin=b"x\n", stdout=out)
    assert (called.code, os.stat(path).st_size) == (74, 128 * 1024)
    assert called.err.endswith(TOO_LARGE)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_half_a_result_of_a_process_is_74(unbuffered: str, tmp_path: Path) -> None:
    with FaultServer(SAYS_TEXT) as server, (tmp_path / "report").open("wb") as report, file_size_limit():
        done = subprocess.run(
            command("-u", server.url, "run", "-q", "x"),
            stdout=report,
            stderr=subprocess.PIPE,
            env=environment(PYTHONUNBUFFERED=unbuffered),
            timeout=60,
        )
    assert (done.returncode, done.stderr.decode()) == (74, TOO_LARGE)


def test_a_stream_without_its_last_line_break_is_74(box: Any, tmp_path: Path) -> None:
    with output_to(str(tmp_path / "report")) as out, file_size_limit(len("processed: x")):
        called = call("run", "--stream", "-q", "x", "-u", box.url, stdout=out)
    assert called == Called(74, "", TOO_LARGE)


@pytest.mark.parametrize("argv, unbuffered", [PRINTING[0], PRINTING[1], PRINTING[-1]])
def test_a_pipe_that_does_not_block_gets_all(argv: str, unbuffered: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    read = []

    def read_once_it_is_full() -> None:
        while bytes_in(reader) < 65536:
            time.sleep(0.01)
        with open(reader, "rb") as pipe:
            read.append(pipe.read())

    with FaultServer(SAYS_TEXT) as server, meanwhile(read_once_it_is_full):
        with output_to(writer, unbuffered=unbuffered) as out:
            called = call("-u", server.url, *argv.split(), stdin=b"x\n", stdout=out, stderr=out)
    assert (called.code, TEXT.encode() in read[0]) == (0, True)


@pytest.mark.parametrize("argv, name, values", [
    ("run -", "input", ["one\ntwo\n"]),
    ("chat -", "message", ["one\ntwo\n"]),
    ("secret set k", "secret", ["one\ntwo"]),
    ("hitl approve k --tenant t --thread t --payload -", "a", [1]),
    ("batch - --out - --jobs 1", "input", ["one", "two"]),
])  # fmt: skip
def test_an_input_that_does_not_block_is_read_to_its_end(box: Any, argv: str, name: str, values: Any) -> None:
    """It comes in pieces, and at first there is nothing yet."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def write_in_pieces() -> None:
        for piece in [b'{"a":', b" 1}"] if name == "a" else [b"one\n", b"two\n"]:
            time.sleep(0.2)  # it has found nothing there
            os.write(writer, piece)
        os.close(writer)

    with open(reader, encoding="utf-8") as given, meanwhile(write_in_pieces):
        called = call("-u", box.url, *argv.split(), stdin=given)
    assert (called.code, [request.json.get(name) for request in box.requests]) == (0, values), called.err


@pytest.mark.parametrize("argv", ["run -", "secret set k", "batch - --out -", "agent a -"])
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "write-only"])
def test_a_standard_input_that_cannot_be_read_is_2(box: Any, argv: str, is_closed: bool) -> None:
    with open(os.open(os.devnull, os.O_WRONLY), encoding="utf-8") as unreadable:
        called = call("-u", box.url, *argv.split(), stdin=None if is_closed else unreadable)
    assert (called.code, called.out, box.requests) == (2, "", [])


# fmt: off
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("argv, out, err, unbuffered, code, words", [
    ("health",     "/dev/full", "",          False, 74, FULL(NO_SPACE)),
    ("health",     "/dev/full", "",          True,  74, FULL(NO_SPACE)),
    ("--help",     "/dev/full", "",          False, 74, FULL(NO_SPACE)),
    ("--version",  "/dev/full", "/dev/full", False, 74, ""),
    ("health",     None,        "",          False, 74, FULL(CLOSED)),
    ("run x -vv",  "/dev/full", "/dev/full", False, 74, ""),
    ("run x -vv",  "",          "/dev/full", False,  0, ""),
    ("run x -vv",  "",          "/dev/full", True,   0, ""),
    ("run x -vv",  "",          None,        False,  0, ""),
    ("bogus",      "/dev/full", "/dev/full", False,  2, ""),
    ("trace none", "/dev/full", "/dev/full", True,   1, ""),
])
# fmt: on
def test_a_stream_that_takes_nothing(
    box: Any, argv: str, out: Any, err: Any, unbuffered: bool, code: int, words: str
) -> None:
    """Under standard output it is 74, where there was something to print; under standard error it changes nothing."""
    streams = {}
    with contextlib.ExitStack() as stack:
        for name, target in (("stdout", out), ("stderr", err)):
            if target is None:
                streams[name] = None
            elif target:
                streams[name] = stack.enter_context(output_to(target, unbuffered=unbuffered))
        called = call("-u", box.url, *argv.split(), **streams)
    assert (called.code, called.err) == (code, words)


# fmt: off
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("argv, redirection, code, err", [
    ("run x -vv",       ">/dev/full 2>/dev/full", 74, ""),
    ("health",          ">&-",                    74, FULL(CLOSED)),
    ("run x -q",        ">/dev/null 2>&-",         0, ""),
    ("batch - --out -", "<&-",                     2, "hestiaos-lite: [INVALID_INPUT] standard input is closed\n"),
])
# fmt: on
def test_a_shells_redirections(box: Any, argv: str, redirection: str, code: int, err: str) -> None:
    """A process says no more at its end than in its course."""
    shell = ["/bin/sh", "-c", 'exec "$@" ' + redirection, "sh"]
    done = ran([*shell, *command("-u", box.url, *argv.split())])
    assert (done.returncode, done.stdout, done.stderr.decode()) == (code, b"", err)


@pytest.mark.parametrize("extra", [[], ["--json"]], ids=["text", "json"])
def test_a_reader_that_goes_away_ends_it_quietly(box: Any, extra: Sequence[str]) -> None:
    box.token_delay_seconds = 0.01
    reader, writer = os.pipe()
    with meanwhile(lambda: (os.read(reader, 1), os.close(reader))), output_to(writer) as out:
        called = call("run", "--stream", "word " * 500, "-u", box.url, *extra, stdout=out)
    assert called == Called(141, "", "")


def test_a_reader_that_never_was() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = ran(command("--help"), capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_what_the_calling_program_has_printed_comes_first() -> None:
    reader, writer = os.pipe()
    with output_to(writer) as out:
        print("before", file=out)
        call("--version", stdout=out)
        print("after", file=out)
    with open(reader, encoding="utf-8") as pipe:
        before, version, after = pipe.read().splitlines()
    assert (before, version.split()[0], after) == ("before", "hestiaos-lite", "after")


def test_at_a_terminal_one_ctrl_d_ends_the_input(box: Any) -> None:
    screen, terminal = os.openpty()
    os.write(screen, b"hello\n\x04")
    with open(terminal, encoding="utf-8") as given:
        assert call("run", "-", "-q", "-u", box.url, stdin=given).code == 0
    assert [request.json["input"] for request in box.requests] == ["hello\n"]
    os.close(screen)


@pytest.mark.parametrize("number, code, is_blocking", [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)])
def test_one_signal_is_enough_where_nobody_reads(number: int, code: int, is_blocking: bool) -> None:
    """The open line is not ended then: that would wait for the reader again."""
    event = b'data: {"type": "token", "data": {"text": "' + TEXT.encode() + b'"}}\n\n'
    reader, writer = os.pipe()
    os.set_blocking(writer, is_blocking)
    with FaultServer(answer_and_hang(head(200, {"Content-Type": "text/event-stream"}) + event)) as server:
        child = Child(["run", "--stream", "x", "-u", server.url], lambda: os.dup2(writer, 2))
        os.close(writer)
        wait_until(lambda: bytes_in(reader) >= 65536)
        child.signal(number)
        assert child.ended().code == code
    os.close(reader)
