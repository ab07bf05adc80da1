"""The command line as a process: signals, pipes, terminals, encodings, and what it imports."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ..batch.kit import Child, wait_until
from ..cli_call import Called, call, command, environment, in_a_terminal, ran, run
from ..faultserver import FaultServer, answer, answer_and_hang, head, reply

if os.name != "posix":
    pytest.skip("signals and pipes as POSIX has them", allow_module_level=True)


def test_the_module_and_a_pipeline(box: Any) -> None:
    called = run("run", "-", "-u", box.url, "--json", stdin=b"hello")
    assert (called.code, json.loads(called.out)["output"], called.err) == (0, "processed: hello", "")


PARSER = {"", "_lazy", "_stdio", "_version", "cli", "cli.output", "cli.parser", "cli.commands"}
OF_RUN = {"cli.calls", "cli.connect", "cli.exits", "errors", "_redact"}
SHOWS_WHAT_IS_LOADED = """
import os, sys, hestiaos_lite.cli as cli
for argv in sys.argv[1:]:
    cli.main(argv.split())
    print(*sys.modules, file=sys.stderr)
"""


def test_what_a_command_loads(box: Any) -> None:
    """Help loads the parser, and a call loads the client, and no more than that; each adds to the one before."""
    commands = ["--help", "bogus", "run --help", "health -u " + box.url]
    done = ran([sys.executable, "-c", SHOWS_WHAT_IS_LOADED, *commands])
    assert done.returncode == 0
    loaded = [set(line.split()) for line in done.stderr.decode("utf-8").splitlines() if "sys" in line.split()]
    heavy = {"requests", "urllib3", "sseclient", "ssl", "socket", "asyncio", "sqlite3"}
    if sys.version_info < (3, 14):  # whose argparse loads them for its colours
        heavy.add("dataclasses")
    for modules, allowed in zip(loaded, (PARSER, PARSER | {"_redact"}, PARSER | OF_RUN)):
        assert modules.isdisjoint(heavy)
        ours = {name for name in modules if name.startswith("hestiaos_lite")}
        assert {name[len("hestiaos_lite.") :] for name in ours} <= allowed
    assert "hestiaos_lite.client" in loaded[3]
    ours_heavy = {"hestiaos_lite." + name for name in ("sandbox", "aegis", "batch", "_sqlite")}
    assert loaded[3].isdisjoint({"sqlite3", "asyncio"} | ours_heavy)


IN_OUR_PROCESS = """
import os, sys, hestiaos_lite.__main__ as entry
entry._put_off_charset_detection()
import requests
print(type(requests.compat.chardet).__name__)
os.write(2, requests.get(sys.argv[1]).text.encode("utf-8"))
"""
IN_ANOTHERS_PROCESS = """
import os, sys, hestiaos_lite.cli as cli
cli.main(["health", "-u", sys.argv[1]])
import requests
os.write(2, requests.get(sys.argv[1]).text.encode("utf-8"))
"""


@pytest.mark.parametrize("code", [IN_OUR_PROCESS, IN_ANOTHERS_PROCESS], ids=["ours", "another's"])
def test_requests_still_guesses_encodings(code: str) -> None:
    """What it guesses with is loaded later in a process of ours, and as ever where somebody calls `cli.main`."""
    guessed = reply(
        200, "Grüße aus Köln, schöne Ärzte".encode("latin-1"), {"Content-Type": "application/octet-stream"}
    )
    replies = [reply(200, b'{"status": "ok"}')] * (code is IN_ANOTHERS_PROCESS) + [guessed]
    with FaultServer(answer(*replies)) as server:
        done = ran([sys.executable, "-c", code, server.url])
    assert (done.returncode, done.stderr[:2]) == (0, b"Gr")
    if code is IN_OUR_PROCESS:
        assert done.stdout == b"_LoadedLater\n"


ELSEWHERE = """
import errno, os, socket, sys, urllib3.connection
del os.geteuid, os.environ["USERNAME"], socket.TCP_KEEPIDLE
if urllib3.__version__ >= "2":  # the older one uses them itself, and Pyodide has the newer
    del urllib3.connection.HTTPConnection.default_socket_options
socket.TCP_KEEPALIVE = {keepalive}
sys.modules["pwd"] = None
from hestiaos_lite.cli import main
code = main(sys.argv[1:])
os.name = "nt"
from hestiaos_lite.cli.output import OutputClosed
print(code, OutputClosed(OSError(errno.EINVAL, "")).is_broken_pipe)
"""


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="takes away what Linux has")
def test_what_windows_macos_and_pyodide_lack(box: Any, tmp_path: Path) -> None:
    """No user id, no USERNAME, no ``pwd``, another name of keep-alive, no socket options; EINVAL for EPIPE."""
    (tmp_path / "config.ini").write_text("[default]\nbase_url = {}\n".format(box.url))
    log = tmp_path / "log"
    done = ran(
        [sys.executable, "-c", ELSEWHERE.format(keepalive=int(socket.TCP_KEEPIDLE))]
        + ["guard", "--not-run-exit", "9", "--log", str(log), "--", "/nonexistent"],
        env=environment(HESTIAOS_CONFIG=str(tmp_path / "config.ini"), USERNAME="x"),
    )
    assert (done.stdout, json.loads(log.read_text())["user"]) == (b"127 True\n", "unknown"), done.stderr


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_a_signal_inside_a_stream(number: int, code: int) -> None:
    event = b'data: {"type": "token", "data": {"text": "half a "}}\n\n'
    with FaultServer(answer_and_hang(head(200, {"Content-Type": "text/event-stream"}) + event)) as server:
        child = Child(["run", "--stream", "x", "-u", server.url])
        wait_until(lambda: child.said() == "half a ")  # printed while the service is still talking
        child.signal(number)
        assert child.wait() == Called(code, "", "half a \n")


def test_another_process_keeps_its_handler_of_sigterm(box: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert call("health", "-u", box.url).code == 0
    assert signal.getsignal(signal.SIGTERM) is before
    with ThreadPoolExecutor(1) as pool:  # where none may be set
        assert pool.submit(call, "health", "-u", box.url).result().code == 0


@pytest.mark.parametrize("argv", ["run x", "batch - --out -", "guard -- true"])
def test_signals_that_were_ignored_at_the_start_stay_ignored(box: Any, argv: str) -> None:
    """As nohup and ``trap ""`` ask for: whoever sends them to the group does not mean this one."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.stdin = io.TextIOWrapper(io.BytesIO(b"x\n"))

    box.delay_next(0.5)
    child = Child(["-u", box.url, "--timeout", "30", *argv.split()], ignore)
    wait_until(lambda: box.requests)
    child.signal(signal.SIGINT)
    child.signal(signal.SIGTERM)
    assert child.ended().code == 0


SHOWN_POLICY = next(line for line in call("help", "sandbox").out.splitlines() if line.startswith("  [{"))
APPROVE = "hitl approve --tenant t --thread th "


@pytest.mark.parametrize("options, codes, number", [
    ("--db {}/box.db --hitl-delay 60 --hitl-quota 1", {"run x": 0, APPROVE + "k": 0, APPROVE + "k2": 75}, signal.SIGINT),
    ("-k right --policy {}/rules.json --fault drop --fault-rate 1e-9",
     {"health": 77, "health -k right": 0, "run x -k right": 0, "run payroll -k right": 1}, signal.SIGTERM),
    ("--fault 503 --fault-rate 1", {"run x": 69}, signal.SIGKILL),
    ("--fault 504 --fault-rate 1", {"run x": 3}, signal.SIGKILL),
    ("--fault lose --fault-rate 1", {APPROVE + "k": 3}, signal.SIGKILL),
    ("--delay 30", {"health --timeout 0.3": 75}, signal.SIGKILL),
])  # fmt: skip
def test_the_sandbox(tmp_path: Path, options: str, codes: Any, number: int) -> None:
    """It can demand a key, be slow and failing, and serves until it is told to end."""
    (tmp_path / "rules.json").write_text(SHOWN_POLICY)
    argv = command("sandbox", "--port", "0", *options.format(tmp_path).split())
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stderr is not None
    try:
        url = process.stderr.readline().decode("utf-8").split()[5]
        assert {asked: call("-u", url, "--retries", "0", *asked.split()).code for asked in codes} == codes
    finally:
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    code = -number if number == signal.SIGKILL else 128 + number
    assert (process.returncode, out, err) == (code, b"", b"")


def test_a_signal_that_another_thread_gets_ends_the_sandbox() -> None:
    """As it may under a debugger: it does not interrupt what the main thread waits for."""

    def send() -> None:
        while not callable(signal.getsignal(signal.SIGTERM)):
            time.sleep(0.05)
        time.sleep(0.3)  # by now it waits
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    child = Child(["sandbox", "--port", "0"], lambda: threading.Thread(target=send, daemon=True).start())
    assert child.ended().code == 143


@pytest.mark.parametrize(
    "variables, coloured",
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["plain", "no-color", "dumb"],
)
def test_colour_only_on_a_terminal_and_only_where_wanted(box: Any, variables: Any, coloured: bool) -> None:
    code, shown = in_a_terminal("trace", "none", "-u", box.url, **variables)
    assert code == 1
    assert shown.startswith(
        "\033[31mhestiaos-lite:\033[0m [NOT_FOUND]" if coloured else "hestiaos-lite: [NOT_FOUND]"
    )
    assert "\033" not in call("trace", "none", "-u", box.url).err


def test_a_services_text_cannot_steer_the_terminal(box: Any) -> None:
    code, shown = in_a_terminal("run", "a\033]0;title\007b\u00e4", "-q", "-u", box.url)
    assert (code, shown) == (0, "processed: a\\x1b]0;title\\x07b\u00e4\n")


def test_the_demo_has_its_titles_in_bold_on_a_terminal() -> None:
    code, shown = in_a_terminal("demo", "-q")
    assert (code, shown.splitlines()[:2]) == (0, ["\033[1m", "1. Run one input\033[0m"])


def test_json_is_indented_for_a_reader_at_a_terminal(box: Any) -> None:
    code, shown = in_a_terminal("health", "-j", "-u", box.url)
    assert (code, shown.splitlines()[:2]) == (0, ["{", '  "status": "ok",'])
    code, shown = in_a_terminal("run", "x", "--stream", "-j", "-u", box.url)
    assert [json.loads(line)["type"] for line in shown.splitlines()][-2:] == ["final", "done"]  # one a line


def test_a_secret_is_asked_for_without_an_echo(box: Any) -> None:
    code, shown = in_a_terminal("secret", "set", "k", "-q", "-u", box.url, typed=b"hidden value\n")
    assert (code, box.requests[-1].json["secret"]) == (0, "hidden value")
    assert "hidden" not in shown


def test_ctrl_d_instead_of_a_secret_is_2(box: Any) -> None:
    code, shown = in_a_terminal("secret", "set", "k", "-u", box.url, typed=b"\x04")
    assert code == 2
    assert "no value was given" in shown
    assert box.requests == []


@pytest.mark.parametrize("encoding, out", [
    ("ascii", b"processed: \\xe4\\u20ac\n"),
    ("latin-1", b"processed: \xe4\\u20ac\n"),
])  # fmt: skip
def test_a_result_survives_a_poor_encoding(box: Any, encoding: str, out: bytes) -> None:
    def printed(*options: str, given: str) -> bytes:
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        assert call("run", "-", "-u", box.url, *options, stdin=given, stdout=stream).code == 0
        return stream.buffer.getvalue()  # type: ignore[attr-defined,no-any-return]

    assert printed("-q", given="\u00e4\u20ac") == out
    assert (
        json.loads(printed("-j", given="\u00e4\u20ac\U0001f600"))["output"]
        == "processed: \u00e4\u20ac\U0001f600"
    )
