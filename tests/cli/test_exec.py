"""exec: the command that guard starts has everything as if guard had never been there."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from typing import Any

import pytest

from ..cli_call import command, environment, ran, run
from ..faultserver import FaultServer, answer, ok

if os.name != "posix":
    pytest.skip("exec, signals and descriptors as POSIX has them", allow_module_level=True)

ALLOW = answer(ok({"decision": "ALLOW"}))
PYTHON = sys.executable


def guarded(*words: Any, **options: Any) -> Any:
    """Run ``hestiaos-lite guard`` with these words in a process of its own, and a service that allows it."""
    with FaultServer(ALLOW) as server:
        return ran([*command("guard", "-u", server.url), *words], **options)


def test_a_command_by_a_relative_path_takes_guards_place(tmp_path: Any) -> None:
    script = tmp_path / "step"
    show = "import os, sys; print(os.getpid(), os.getppid(), os.getcwd(), sys.stdin.read())"
    script.write_text("#!{}\n{}\n".format(PYTHON, show))
    script.chmod(0o755)
    with FaultServer(ALLOW) as server:
        line = command("guard", "-u", server.url, "--", os.path.relpath(str(script)))
        process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        out, err = process.communicate(b"given", timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert out.decode("utf-8") == "{} {} {} given\n".format(process.pid, os.getpid(), os.getcwd())


DEADLY = sorted(
    {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGPIPE, signal.SIGUSR1}
)


@pytest.mark.parametrize(
    "codes",
    [[0, 1, 2, 75, 124, 125, 126, 127, 128, 130, 255], pytest.param(range(256), marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_exit_codes_and_deadly_signals_are_the_commands(codes: Any) -> None:
    """One process loads the command line and forks for each of them: loading it 256 times would take minutes."""
    driver = (
        "import os, sys\n"
        "import hestiaos_lite.client, hestiaos_lite.cli.connect, hestiaos_lite.cli.guard\n"
        "from hestiaos_lite.cli import main\n"
        "for script in sys.argv[2:]:\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        os._exit(main(['guard', '-u', sys.argv[1], '--', 'sh', '-c', script]))\n"
        "    print(os.waitpid(pid, 0)[1], flush=True)\n"
    )
    scripts = ["exit {}".format(code) for code in codes] + ["kill -{} $$".format(int(n)) for n in DEADLY]
    with FaultServer(ALLOW) as server:
        done = ran([PYTHON, "-c", driver, server.url] + scripts)
        assert server.hits == len(scripts)
    statuses = [int(line) for line in done.stdout.split()]
    assert done.stderr == b""
    assert [os.WEXITSTATUS(status) for status in statuses[: -len(DEADLY)]] == list(codes)
    assert [os.WTERMSIG(status) for status in statuses[-len(DEADLY) :]] == DEADLY


# fmt: off
ARGUMENTS = [b"", b" ", b"a b", b"$HOME", b"'\"`", b"*", b"--", b"-h", b"--json", b"\n", b"\xff\xfe\n", "ü€😀".encode(),
             b"x" * 100000, b"y" * 30000]
# fmt: on


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_arguments_arrive_byte_by_byte_and_are_told_as_text(locale: str) -> None:
    show = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])))"
    with FaultServer(ALLOW) as server:
        line = [os.fsencode(word) for word in command("guard", "-u", server.url, "--", PYTHON, "-c", show)]
        done = ran(line + ARGUMENTS, env=environment(LC_ALL=locale))
        told = json.loads(server.requests[0].body.decode("utf-8"))["command_input"]
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"|".join(ARGUMENTS))
    assert told["argv"] == [PYTHON, "-c", show] + [
        arg.decode("utf-8", "backslashreplace") for arg in ARGUMENTS
    ]
    assert shlex.split(told["command"]) == told["argv"]


def test_the_environment_is_the_one_that_guard_was_given() -> None:
    """Under cron there is no locale, and Python would hand on an LC_CTYPE of its own."""
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": environment()["PYTHONPATH"], "A": "b"}
    for given in (bare, dict(bare, LC_CTYPE="C.UTF-8"), dict(bare, LC_CTYPE="C", LANG="C")):
        done = guarded("--", "env", env=given)
        shown = dict(setting.split("=", 1) for setting in done.stdout.decode("utf-8").splitlines())
        assert (done.returncode, done.stderr, shown) == (0, b"", given)


IGNORED = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc on this system")
def test_signals_that_were_ignored_stay_ignored_and_no_others_are() -> None:
    show = ["grep", "SigIgn", "/proc/self/status"]

    def ignored(line: bytes) -> int:
        return int(line.split()[1], 16) & 0x7FFFFFFF  # glibc has uses of its own for signals 32 and 33

    def ignore() -> None:
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)

    inherited = ignored(subprocess.run(show, stdout=subprocess.PIPE).stdout)
    done = guarded("--", *show, preexec_fn=ignore)
    assert (done.returncode, done.stderr) == (0, b"")
    assert ignored(done.stdout) == inherited | sum(1 << (number - 1) for number in IGNORED)


def test_a_pipeline_ends_as_it_does_without_guard() -> None:
    with FaultServer(ALLOW) as server:
        line = " ".join(shlex.quote(word) for word in command("guard", "-u", server.url, "--", "yes"))
        done = ran(["bash", "-c", line + " | head -1; echo ${PIPESTATUS[0]}"])
    assert (done.stdout, done.stderr) == (b"y\n141\n", b"")


def test_sigterm_to_our_pid_is_the_commands() -> None:
    script = "trap 'echo cleaned; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with FaultServer(ALLOW) as server:
        process = subprocess.Popen(
            command("guard", "-u", server.url, "--", "sh", "-c", script),
            stdout=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert (process.communicate(timeout=30)[0], process.returncode) == (b"cleaned\n", 9)


def test_descriptors_are_the_ones_that_guard_was_given(tmp_path: Any) -> None:
    path = tmp_path / "given"
    path.write_text("through a descriptor")
    show = "import os, sys; print(sorted(set(os.listdir('/proc/self/fd')) - {str(os.open('/dev/null', 0))}), os.read(int(sys.argv[1]), 99))"
    with open(str(path)) as file:
        options: Any = {"stdin": subprocess.DEVNULL, "pass_fds": [file.fileno()]}
        line = [PYTHON, "-c", show, str(file.fileno())]
        done = guarded("--log", str(tmp_path / "log"), "--", *line, **options)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        plain = ran(line, **options)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", plain.stdout)
    assert b"through a descriptor" in done.stdout


def test_closed_standard_streams_stay_closed(tmp_path: Any) -> None:
    """What guard opens meanwhile (a socket, the log) gets the free numbers, and is closed when the command begins."""
    trace = tmp_path / "trace"
    show = 'ls -l /proc/$$/fd > "$0"; exit 4'
    line = ["--log", str(tmp_path / "log"), "--", "bash", "-c", show, str(trace)]
    with FaultServer(ALLOW) as server:
        shell = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash"]
        done = ran(shell + list(command("guard", "-u", server.url, *line)))
    assert (done.returncode, done.stdout, done.stderr) == (4, b"", b"")
    assert "socket:" not in trace.read_text()
    assert "/log" not in trace.read_text()


def test_guard_under_guard() -> None:
    inner = command("guard", "--", "sh", "-c", "echo twice; exit 5")
    with FaultServer(ALLOW) as server:
        done = run("guard", "-u", server.url, "--", *inner, HESTIAOS_BASE_URL=server.url)
        told = [
            json.loads(request.body.decode("utf-8"))["command_input"]["argv"] for request in server.requests
        ]
    assert done == (5, "twice\n", "")
    assert told == [list(inner), ["sh", "-c", "echo twice; exit 5"]]


NOT_FOUND = "not found (an alias, a builtin, a pipe or NAME=value needs sh -c)"


def test_allowed_but_it_cannot_be_started(tmp_path: Any) -> None:
    step = str(tmp_path / "step")
    with open(step, "w") as file:
        file.write("echo ran\n")
    os.chmod(step, 0o755)
    table = [
        (["/nonexistent/x"], 127, NOT_FOUND),
        (["no-such-command-anywhere"], 127, NOT_FOUND),
        (["ulimit", "-n"], 127, NOT_FOUND),  # a shell's own
        ([""], 127, NOT_FOUND),
        (["/"], 126, "Permission denied"),
        (["/etc/passwd"], 126, "Permission denied"),
        ([step], 126, "Exec format error (a script needs a first line such as #!/bin/sh)"),
    ]
    driver = (
        "import json, sys\n"
        "from hestiaos_lite.cli import main\n"
        "given = ['guard', '-u', sys.argv[1], '--not-run-exit', '9', '--']\n"
        "print([main(given + argv) for argv in json.loads(sys.argv[2])])\n"
    )
    with FaultServer(ALLOW) as server:
        line = [PYTHON, "-c", driver, server.url, json.dumps([argv for argv, _, _ in table])]
        done = ran(line)
    said = "hestiaos-lite: allowed, but cannot be started: {}: {}"
    assert done.stderr.decode("utf-8").splitlines() == [
        said.format(argv[0] or "''", why) for argv, _, why in table
    ]
    assert json.loads(done.stdout.decode("utf-8")) == [code for _, code, _ in table]


def test_more_arguments_than_the_system_takes_are_126(tmp_path: Any) -> None:
    """What guard was started with it can hand on, but for a smaller limit of its own: the stack's.

    A file that may not be run, before the command on PATH, is not what is wrong.
    """
    import resource

    (tmp_path / "true").touch()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))

    driver = (
        "import sys; from hestiaos_lite.cli import main; sys.exit(main(sys.argv[1:] + ['x' * 1000] * 400))"
    )
    with FaultServer(ALLOW) as server:
        line = [PYTHON, "-c", driver, "guard", "-u", server.url, "--", "true"]
        path = "{}:{}".format(tmp_path, os.environ["PATH"])
        done = ran(line, env=environment(PATH=path), preexec_fn=limit)
    assert done.stderr == b"hestiaos-lite: allowed, but cannot be started: true: Argument list too long\n"
    assert done.returncode == 126


def test_where_exec_does_not_replace_it_runs_waits_and_passes_the_code_on() -> None:
    """By a private name: all else of this process would not work under the name of another system."""
    driver = (
        "import os, subprocess, sys; from hestiaos_lite.cli import guard\n"
        "os.name = 'nt'\n"
        "print(guard._exec(['sh', '-c', 'echo ran; exit 6'], 'sh', None))"
    )
    done = ran([PYTHON, "-c", driver])
    assert (done.stdout, done.stderr) == (b"ran\n6\n", b"")
