"""Standard streams: all that is printed is written whole or is exit 74, and standard input is read to its end."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, List

import pytest

from ..cli_call import ROOT, command, environment, ran, start_in_a_terminal
from ..faultserver import FaultServer, answer, answer_and_hang, head, ok

if os.name != "posix":
    pytest.skip("descriptors and limits as POSIX has them", allow_module_level=True)

TEXT = "0123456789abcdef" * 25_000  # more than a pipe holds, and than the limit below
LIMIT_BYTES = 128 * 1024
SAYS_TEXT = answer(ok({"result": TEXT, "trace_id": "t", "key": "k", "value": TEXT}))

# fmt: off
PRINTING = [
    ("run -q x", ""),
    ("run -q x", "1"),  # PYTHONUNBUFFERED: Python's stream is a raw one
    ("run --json x", "1"), ("run --get result x", "1"), ("chat x", "1"), ("secret get k", "1"), ("batch - --out -", "1"),
]
# fmt: on


def printed_to_a_file(path: Path, limit_bytes: int, url: str, argv: str, unbuffered: str = "") -> Any:
    """Run it with a file size limit, which ends in the middle of what it prints as a disk would."""
    import resource

    with path.open("wb") as report:
        return subprocess.run(
            command("-u", url, *argv.split()),
            input=b"x\n",
            stdout=report,
            stderr=subprocess.PIPE,
            env=environment(PYTHONUNBUFFERED=unbuffered),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
            timeout=60,
        )


TOO_LARGE = b"hestiaos-lite: cannot write to standard output: File too large"


@pytest.mark.parametrize("argv, unbuffered", PRINTING)
def test_half_a_result_is_74(argv: str, unbuffered: str, tmp_path: Path) -> None:
    with FaultServer(SAYS_TEXT) as server:
        done = printed_to_a_file(tmp_path / "report", LIMIT_BYTES, server.url, argv, unbuffered)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (74, TOO_LARGE)


def test_a_stream_without_its_last_line_break_is_74(box: Any, tmp_path: Path) -> None:
    done = printed_to_a_file(tmp_path / "report", len("processed: x"), box.url, "run --stream -q x")
    assert (done.returncode, done.stderr.splitlines()) == (74, [TOO_LARGE])


@pytest.mark.parametrize("argv, unbuffered", [PRINTING[0], PRINTING[1], PRINTING[-1]])
def test_a_pipe_that_does_not_block_gets_all(argv: str, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with FaultServer(SAYS_TEXT) as server, open(reader, "rb") as pipe:
        process = subprocess.Popen(
            command("-u", server.url, *argv.split()),
            stdin=subprocess.PIPE,
            stdout=writer,
            stderr=writer,
            env=environment(PYTHONUNBUFFERED=unbuffered),
        )
        os.close(writer)
        assert process.stdin is not None
        process.stdin.write(b"x\n")
        process.stdin.close()
        while process.poll() is None and bytes_in(reader) < 65536:
            time.sleep(0.01)
        out = pipe.read()
        assert (process.wait(60), TEXT.encode() in out) == (0, True)


def bytes_in(pipe: int) -> int:
    import fcntl
    import termios

    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


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
    process = subprocess.Popen(
        command("-u", box.url, *argv.split()),
        stdin=reader,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    os.close(reader)
    for piece in [b'{"a":', b" 1}"] if name == "a" else [b"one\n", b"two\n"]:
        time.sleep(0.5)  # it has found nothing there
        os.write(writer, piece)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, [request.json.get(name) for request in box.requests]) == (0, values), err


@pytest.mark.parametrize("argv", ["run -", "secret set k", "batch - --out -", "agent a -"])
@pytest.mark.parametrize("redirection", ["<&-", "0>/dev/null"], ids=["closed", "write-only"])
def test_a_standard_input_that_cannot_be_read_is_2(box: Any, argv: str, redirection: str) -> None:
    done = in_a_shell(redirection, "-u", box.url, *argv.split())
    assert (done.returncode, done.stdout, box.requests) == (2, b"", []), done.stderr


def in_a_shell(redirection: str, *argv: str, **variables: str) -> Any:
    """Run ``hestiaos-lite`` with a shell's redirections."""
    return ran(
        ["/bin/sh", "-c", 'exec "$@" ' + redirection, "sh", *command(*argv)],
        stdin=subprocess.DEVNULL,
        env=environment(**variables),
    )


FULL, CLOSED = "hestiaos-lite: cannot write to standard output: {}\n".format, "it is closed"
NO_SPACE = "No space left on device"


# fmt: off
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("argv, redirection, unbuffered, code, err", [
    ("health",     ">/dev/full",             "",  74, FULL(NO_SPACE)),
    ("health",     ">/dev/full",             "1", 74, FULL(NO_SPACE)),
    ("--help",     ">/dev/full",             "",  74, FULL(NO_SPACE)),
    ("--version",  ">/dev/full 2>/dev/full", "",  74, ""),
    ("health",     ">&-",                    "",  74, FULL(CLOSED)),
    ("run x -vv",  ">/dev/full 2>/dev/full", "",  74, ""),
    ("run x -vv",  "2>/dev/full",            "",   0, ""),
    ("run x -vv",  "2>/dev/full",            "1",  0, ""),
    ("run x -vv",  "2>&-",                   "",   0, ""),
    ("bogus",      ">/dev/full 2>/dev/full", "",   2, ""),
    ("trace none", ">/dev/full 2>/dev/full", "1",  1, ""),
])
# fmt: on
def test_a_stream_that_takes_nothing(
    box: Any, argv: str, redirection: str, unbuffered: str, code: int, err: str
) -> None:
    """Under standard output it is 74, where there was something to print; under standard error it changes nothing."""
    done = in_a_shell(redirection, "-u", box.url, *argv.split(), PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr.decode()) == (code, err)


@pytest.mark.parametrize("extra", [[], ["--json"]], ids=["text", "json"])
def test_a_reader_that_goes_away_ends_it_quietly(box: Any, extra: List[str]) -> None:
    box.token_delay_seconds = 0.01
    argv = command("run", "--stream", "word " * 500, "-u", box.url, *extra)
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert (process.stderr.read(), process.wait(30)) == (b"", 141)


def test_a_reader_that_never_was() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("--help"), stdout=writer, stderr=subprocess.PIPE, env=environment(), timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_what_the_calling_program_has_printed_comes_first() -> None:
    code = "import hestiaos_lite.cli as cli; print('before'); cli.main(['--version']); print('after')"
    done = ran([sys.executable, "-c", code])
    before, version, after = done.stdout.splitlines()
    assert (before, version.split()[0], after) == (b"before", b"hestiaos-lite", b"after")


def test_at_a_terminal_one_ctrl_d_ends_the_input(box: Any) -> None:
    child, screen = start_in_a_terminal(command("run", "-", "-q", "-u", box.url), environment(), ROOT)
    os.write(screen, b"hello\n\x04")
    assert (child.wait(60), [request.json["input"] for request in box.requests]) == (0, ["hello\n"])
    os.close(screen)


@pytest.mark.parametrize("is_blocking", [True, False])
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_is_enough_where_nobody_reads(number: int, code: int, is_blocking: bool) -> None:
    """The open line is not ended then: that would wait for the reader again."""
    event = b'data: {"type": "token", "data": {"text": "' + TEXT.encode() + b'"}}\n\n'
    reader, writer = os.pipe()
    os.set_blocking(writer, is_blocking)
    with FaultServer(answer_and_hang(head(200, {"Content-Type": "text/event-stream"}) + event)) as server:
        process = subprocess.Popen(
            command("run", "--stream", "x", "-u", server.url), stdout=writer, env=environment()
        )
        os.close(writer)
        while bytes_in(reader) < 65536:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        try:
            assert process.wait(60) == code
        finally:
            process.kill()
            process.wait()
            os.close(reader)
