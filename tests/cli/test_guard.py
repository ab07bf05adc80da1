"""guard: a command runs once governance says ALLOW, as if guard had never been there; and never otherwise."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import pytest

from ..cli_call import call, command, environment
from ..faultserver import (
    FaultServer,
    answer,
    answer_and_close,
    closed_port,
    drop,
    hang,
    head,
    ok,
    reply,
)

if os.name != "posix":
    pytest.skip("exec, signals and descriptors as POSIX has them", allow_module_level=True)

ALLOW = answer(ok({"decision": "ALLOW"}))
PYTHON = sys.executable


class Done(NamedTuple):
    code: int
    out: bytes
    err: str


def guard(
    url: str, *argv: str, before: Optional[Callable[[], None]] = None, stdin: bytes = b"", **env: str
) -> Done:
    """Run ``hestiaos-lite guard`` in a process of its own, without retries."""
    done = subprocess.run(
        command("guard", "-u", url, "--retries", "0", *argv),
        input=stdin,
        capture_output=True,
        env=environment(**env),
        preexec_fn=before,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr.decode("utf-8"))


@pytest.fixture(autouse=True)
def this_process_stays(monkeypatch: Any) -> None:
    """A command that takes the place of the tests themselves would end them as if all had passed."""

    def execvp(file: str, argv: List[str]) -> None:
        pytest.fail("it ran: {}".format(argv))

    monkeypatch.setattr(os, "execvp", execvp)


@pytest.fixture
def trace(tmp_path: Any) -> Any:
    """A file that the command makes: where it is not, the command did not run."""
    return tmp_path / "trace"


# -- it runs, as if guard had never been there


def test_the_command_takes_guards_place() -> None:
    show = "import os, sys; print(os.getpid(), os.getppid(), os.getcwd(), sys.stdin.read())"
    with FaultServer(ALLOW) as server:
        process = subprocess.Popen(
            command("guard", "-u", server.url, "--", PYTHON, "-c", show),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        out, err = process.communicate(b"given", timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert out.decode("utf-8").split() == [str(process.pid), str(os.getpid()), os.getcwd(), "given"]


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
        done = subprocess.run(
            [PYTHON, "-c", driver, server.url] + scripts, capture_output=True, env=environment(), timeout=120
        )
        assert server.hits == len(scripts)
    statuses = [int(line) for line in done.stdout.split()]
    assert done.stderr == b""
    assert [os.WEXITSTATUS(status) for status in statuses[: -len(DEADLY)]] == list(codes)
    assert [os.WTERMSIG(status) for status in statuses[-len(DEADLY) :]] == DEADLY


ARGUMENTS = [
    b"",
    b" ",
    b"a b",
    b"$HOME",
    b"'\"`",
    b"*",
    b"--",
    b"-h",
    b"--json",
    b"\n",
    b"\xff\xfe\n",
    "ü€😀".encode(),
]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_arguments_arrive_byte_by_byte_and_are_told_as_text(locale: str) -> None:
    show = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])))"
    with FaultServer(ALLOW) as server:
        line = [os.fsencode(word) for word in command("guard", "-u", server.url, "--", PYTHON, "-c", show)]
        done = subprocess.run(
            line + ARGUMENTS, capture_output=True, env=environment(LC_ALL=locale), timeout=30
        )
        told = json.loads(server.requests[0].body.decode("utf-8"))["command_input"]
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"|".join(ARGUMENTS))
    assert told["argv"] == [PYTHON, "-c", show] + [
        arg.decode("utf-8", "backslashreplace") for arg in ARGUMENTS
    ]
    assert shlex.split(told["command"]) == told["argv"]


def test_nothing_but_the_command_is_told(tmp_path: Any) -> None:
    given = tmp_path / "more.json"
    given.write_text('{"ticket": "OPS-7", "argv": ["harmless"], "command": "harmless"}')
    with FaultServer(ALLOW) as server:
        done = guard(
            server.url, "--type", "db", "--input", "@{}".format(given), "--", "echo", "a b", SECRET="s"
        )
        told = json.loads(server.requests[0].body.decode("utf-8"))
    assert (done.code, done.out, done.err) == (0, b"a b\n", "")
    assert told == {
        "command_type": "db",
        "command_input": {"ticket": "OPS-7", "argv": ["echo", "a b"], "command": "echo 'a b'"},
    }


def test_the_environment_is_the_one_that_guard_was_given() -> None:
    """Under cron there is no locale, and Python would hand on an LC_CTYPE of its own."""
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": environment()["PYTHONPATH"], "A": "b"}
    for given in (bare, dict(bare, LC_CTYPE="C.UTF-8"), dict(bare, LC_CTYPE="C", LANG="C")):
        with FaultServer(ALLOW) as server:
            line = command("guard", "-u", server.url, "--", "env")
            done = subprocess.run(line, capture_output=True, env=given, timeout=30)
        shown = dict(setting.split("=", 1) for setting in done.stdout.decode("utf-8").splitlines())
        assert (done.returncode, done.stderr, shown) == (0, b"", given)


IGNORED = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc on this system")
def test_signals_that_were_ignored_stay_ignored_and_no_others_are() -> None:
    show = ["grep", "SigIgn", "/proc/self/status"]

    def ignored(line: bytes) -> int:
        return int(line.split()[1], 16) & 0x7FFFFFFF  # glibc has uses of its own for signals 32 and 33

    def under_guard(before: Optional[Callable[[], None]]) -> int:
        with FaultServer(ALLOW) as server:
            done = guard(server.url, "--", *show, before=before)
        assert (done.code, done.err) == (0, "")
        return ignored(done.out)

    def ignore() -> None:
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)

    inherited = ignored(subprocess.run(show, stdout=subprocess.PIPE).stdout)
    assert under_guard(None) == inherited
    assert under_guard(ignore) == inherited | sum(1 << (number - 1) for number in IGNORED)


def test_a_pipeline_ends_as_it_does_without_guard() -> None:
    with FaultServer(ALLOW) as server:
        line = " ".join(shlex.quote(word) for word in command("guard", "-u", server.url, "--", "yes"))
        done = subprocess.run(
            ["bash", "-c", line + " | head -1; echo ${PIPESTATUS[0]}"], capture_output=True, env=environment()
        )
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
    with FaultServer(ALLOW) as server, open(str(path)) as file:
        number = file.fileno()
        show = "import os, sys; print(sorted(set(os.listdir('/proc/self/fd')) - {str(os.open('/dev/null', 0))}), os.read(int(sys.argv[1]), 99))"
        line = command(
            "guard", "-u", server.url, "--log", str(tmp_path / "log"), "--", PYTHON, "-c", show, str(number)
        )
        done = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=[number],
            env=environment(),
            timeout=30,
        )
        plain = subprocess.run(
            line[line.index("--") + 1 :], stdin=subprocess.DEVNULL, capture_output=True, pass_fds=[number]
        )
        os.lseek(number, 0, os.SEEK_SET)
    assert done.stderr == b""
    assert done.stdout.split(b"]")[0] == plain.stdout.split(b"]")[0]
    assert b"through a descriptor" in done.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_stay_closed(trace: Any, tmp_path: Any, closed: str) -> None:
    """What guard opens meanwhile (a socket, the log) gets the free numbers, and is closed when the command begins."""
    show = 'ls -l /proc/$$/fd > "$0"; exit 4'
    options = ["-u", "{url}", "--log", str(tmp_path / "log"), "--", "bash", "-c", show, str(trace)]
    with FaultServer(ALLOW) as server:
        line = [word.replace("{url}", server.url) for word in command("guard", *options)]
        done = subprocess.run(
            ["bash", "-c", 'exec "$@" ' + closed, "bash"] + line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            timeout=30,
        )
    assert done.returncode == 4
    assert "socket:" not in trace.read_text()
    assert "/log" not in trace.read_text()


def test_guard_under_guard(trace: Any) -> None:
    inner = command("guard", "--", "sh", "-c", "echo twice; exit 5")
    with FaultServer(ALLOW) as server:
        done = guard(server.url, "--", *inner, HESTIAOS_BASE_URL=server.url)
        told = [
            json.loads(request.body.decode("utf-8"))["command_input"]["argv"] for request in server.requests
        ]
    assert (done.code, done.out, done.err) == (5, b"twice\n", "")
    assert told == [list(inner), ["sh", "-c", "echo twice; exit 5"]]


def test_a_long_command_line() -> None:
    words = ["x" * 100000, "y" * 30000]
    with FaultServer(ALLOW) as server:
        done = guard(server.url, "--", "printf", "%s", *words)
        told = json.loads(server.requests[0].body.decode("utf-8"))["command_input"]
    assert (done.code, done.out.decode("ascii"), done.err) == (0, "".join(words), "")
    assert told["argv"] == ["printf", "%s"] + words


def test_a_relative_command(tmp_path: Any) -> None:
    script = tmp_path / "step"
    script.write_text("#!/bin/sh\necho here\n")
    script.chmod(0o755)
    with FaultServer(ALLOW) as server:
        done = guard(server.url, "--", os.path.relpath(str(script)))
    assert (done.code, done.out) == (0, b"here\n")


NOT_FOUND = "not found (an alias, a builtin, a pipe or NAME=value needs sh -c)"


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["/nonexistent/x"], 127, NOT_FOUND),
        (["no-such-command-anywhere"], 127, NOT_FOUND),
        (["ulimit", "-n"], 127, NOT_FOUND),  # a shell's own
        ([""], 127, NOT_FOUND),
        (["/"], 126, "Permission denied"),
        (["/etc/passwd"], 126, "Permission denied"),
        (["{}/step"], 126, "Exec format error (a script needs its first line, such as #!/bin/sh)"),
    ],
    ids=["path", "name", "builtin", "empty", "folder", "no program", "no first line"],
)
def test_allowed_but_it_cannot_be_started(argv: List[str], code: int, words: str, tmp_path: Any) -> None:
    (tmp_path / "step").write_text("echo ran\n")
    (tmp_path / "step").chmod(0o755)
    argv = [word.replace("{}", str(tmp_path)) for word in argv]
    with FaultServer(ALLOW) as server:
        done = guard(server.url, "--not-run-exit", "9", "--", *argv)
    line = "hestiaos-lite: allowed, but cannot be started: {}: {}\n".format(argv[0], words)
    assert (done.code, done.out, done.err) == (code, b"", line)


def test_more_arguments_than_the_system_takes_are_126() -> None:
    """What guard was started with it can hand on, but for a smaller limit of its own: the stack's."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))

    driver = (
        "import sys; from hestiaos_lite.cli import main; sys.exit(main(sys.argv[1:] + ['x' * 1000] * 400))"
    )
    with FaultServer(ALLOW) as server:
        line = [PYTHON, "-c", driver, "guard", "-u", server.url, "--", "true"]
        done = subprocess.run(line, capture_output=True, env=environment(), preexec_fn=limit, timeout=30)
    assert done.stderr == b"hestiaos-lite: allowed, but cannot be started: true: Argument list too long\n"
    assert done.returncode == 126


def test_where_exec_does_not_replace_it_runs_waits_and_passes_the_code_on() -> None:
    driver = (
        "import os, subprocess, sys; from hestiaos_lite.cli import become\n"
        "os.name = 'nt'\n"
        "print(become.become(['sh', '-c', 'echo ran; exit 6']))"
    )
    done = subprocess.run([PYTHON, "-c", driver], capture_output=True, env=environment(), timeout=30)
    assert (done.stdout, done.stderr) == (b"ran\n6\n", b"")


# -- it does not run


CUT = head(200, {"Content-Type": "application/json", "Content-Length": 100}) + b'{"decision": "BLOCK"'
REFUSALS: Dict[str, Any] = {  # what the service does; the exit code; does --fail-open run it?
    "block": (answer(ok({"decision": "BLOCK"})), 125, False),
    "deny": (answer(ok({"decision": "DENY"})), 125, False),
    "lower case": (answer(ok({"decision": "block"})), 125, False),
    "strictest": (answer(ok({"decision": "ALLOW", "result": "BLOCK"})), 125, False),
    "throttle": (answer(ok({"decision": "THROTTLE"})), 75, False),
    "empty": (answer(ok({"decision": ""})), 125, False),
    "null": (answer(ok({"decision": None})), 125, False),
    "unknown": (answer(ok({"decision": "MAYBE", "result": "ALLOW"})), 125, False),
    "none": (answer(ok({})), 125, False),
    "a list": (answer(ok([])), 125, False),
    "html": (answer(reply(200, b"<html>ALLOW</html>")), 125, False),
    "redirect": (answer(reply(302, headers={"Location": "/ALLOW"})), 125, False),
    "cut short": (answer_and_close(CUT), 75, False),
    "400": (answer(reply(400)), 125, False),
    "401": (answer(reply(401)), 125, False),
    "403": (answer(reply(403)), 125, False),
    "404": (answer(reply(404)), 125, False),
    "407": (answer(reply(407)), 125, False),
    "422": (answer(reply(422)), 125, False),
    "429": (answer(reply(429)), 75, True),
    "500": (answer(reply(500)), 75, True),
    "502": (answer(reply(502)), 75, True),
    "503": (answer(reply(503)), 75, True),
    "504": (answer(reply(504)), 75, True),
    "dropped": (drop, 75, True),
    "silent": (hang, 75, True),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_allowed_leaves_no_trace(name: str, trace: Any, tmp_path: Any) -> None:
    script, code, opens = REFUSALS[name]
    log = tmp_path / "log"
    options = ["--retries", "0", "--timeout", "0.5", "--log", str(log)]
    line = ["--", "touch", str(trace)]
    with FaultServer(script) as server:
        done = call("guard", "-u", server.url, *options, *line)
        assert (done.code, done.out, trace.exists()) == (code, "", False)
        assert done.err.startswith("hestiaos-lite: not run: ")
        assert len(done.err.splitlines()) == 1
        as_json = call("guard", "-u", server.url, "--json", "--not-run-exit", "7", *options, *line)
        assert (as_json.code, as_json.out, trace.exists()) == (7, "", False)
        assert as_json.error["exit_code"] == 7
        options += ["--fail-open", "-q"]
        if opens:  # in a process of its own, whose place the command takes
            opened: Any = guard(server.url, *options, *line)
        else:
            opened = call("guard", "-u", server.url, *options, *line)
    words = "run without a verdict, since --fail-open says so: [" if opens else "not run: "
    assert opened.err.startswith("hestiaos-lite: " + words)
    assert len(opened.err.splitlines()) == 1
    outcomes = [json.loads(line)["outcome"] for line in log.read_text().splitlines()]
    assert outcomes == ["not run", "not run", "run" if opens else "not run"]


def test_a_service_that_is_not_there(trace: Any) -> None:
    url = "http://127.0.0.1:{}".format(closed_port())
    done = guard(url, "--", "touch", str(trace))
    assert (done.code, done.out, trace.exists()) == (75, b"", False)
    assert "not run: [CONNECTION_FAILED] cannot connect: connection refused" in done.err
    assert guard(url, "--fail-open", "--", "touch", str(trace)).code == 0
    assert trace.exists()


def test_a_certificate_that_is_not_trusted_is_no_service_that_is_away(trace: Any) -> None:
    with FaultServer(ALLOW, tls=True) as server:
        done = guard(server.url, "--fail-open", "--", "touch", str(trace))
    assert (done.code, trace.exists()) == (125, False)
    assert "certificate is not trusted" in done.err


def test_throttle_runs_only_where_that_is_allowed(trace: Any) -> None:
    with FaultServer(
        answer(ok({"decision": "THROTTLE", "reason": "busy", "policy": "p", "trace_id": "t"}))
    ) as server:
        done = guard(server.url, "--", "touch", str(trace))
        line = "hestiaos-lite: not run: governance says THROTTLE: busy (policy p, trace id t)\n"
        assert (done.code, done.err, trace.exists()) == (75, line, False)
        done = guard(server.url, "--allow-throttle", "-v", "--", "touch", str(trace))
        assert (done.code, trace.exists()) == (0, True)
        assert done.err == "governance says THROTTLE: busy (policy p, trace id t)\n"


def test_a_refusal_in_one_line_and_as_json(box: Any) -> None:
    blocked = call("guard", "-u", box.url, "--", "rm", "-rf", "/nowhere")
    said = "governance says BLOCK: deletes files by force (policy destructive-shell)"
    assert blocked == (125, "", "hestiaos-lite: not run: {}\n".format(said))
    error = call("guard", "-j", "-u", box.url, "--", "rm", "-rf", "/nowhere").error
    assert (error["code"], error["message"], error["exit_code"]) == ("GOVERNANCE_BLOCK", said, 125)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["guard"], "no command: it goes after --"),
        (["guard", "--"], "no command: it goes after --"),
        (["guard", "touch", "{}"], "no command: it goes after --"),
        (["guard", "df", "-h"], "no command: it goes after --"),
        (["guard", "touch", "--", "touch", "{}"], "unrecognized arguments: touch"),
        (["guard", "--bogus", "--", "touch", "{}"], "unrecognized arguments: --bogus"),
        (["--bogus", "guard", "--", "touch", "{}"], "unrecognized arguments: --bogus"),
        (["--timeout", "0", "guard", "--", "touch", "{}"], "argument --timeout: must be"),
        (["guard", "--not-run-exit", "256", "--", "touch", "{}"], "must be an exit code, 0 to 255"),
        (["guard", "--input", "-", "--", "touch", "{}"], "standard input is the command's"),
        (["guard", "--input", "[]", "--", "touch", "{}"], "must be a JSON object"),
        (["guard", "--input", "@/nonexistent", "--", "touch", "{}"], "cannot be read"),
        (
            ["guard", "--mask", "UNSET", "--", "touch", "{}"],
            "--mask UNSET: that variable is not set, or empty",
        ),
        (
            ["guard", "--mask", "EMPTY", "--", "touch", "{}"],
            "--mask EMPTY: that variable is not set, or empty",
        ),
        (
            ["guard", "--log", "/nonexistent/log", "--", "touch", "{}"],
            "the log /nonexistent/log cannot be written",
        ),
        (
            ["guard", "--log", "/dev/full", "--", "touch", "{}"],
            "the log /dev/full cannot be written: No space",
        ),
        (["guard", "-u", "ftp://x", "--", "touch", "{}"], "must begin with http:// or https://"),
        (["guard", "--profile", "none", "--", "touch", "{}"], "does not exist"),
        (["guard", "--api-key-file", "/nonexistent", "--", "touch", "{}"], "cannot be read"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_usage_and_settings_are_125_with_fail_open_too(
    box: Any, trace: Any, monkeypatch: Any, argv: List[str], words: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("HESTIAOS_BASE_URL", box.url)
    argv = [word.replace("{}", str(trace)) if word == "{}" else word for word in argv]
    place = argv.index("guard") + 1
    for options, code in ([], 125), (["--fail-open"], 125), (["--not-run-exit=9", "--fail-open"], 9):
        if "256" in argv and code == 9:
            continue
        called = call(*argv[:place], *options, *argv[place:])
        assert (called.code, called.out, trace.exists()) == (code, "", False)
        assert words in called.err
        assert len(called.err.splitlines()) == 1


@pytest.mark.parametrize("depth", [300, 700, 5000])
def test_an_input_of_any_depth_is_told_or_refused(trace: Any, depth: int) -> None:
    with FaultServer(ALLOW) as server:
        done = guard(server.url, "--input", '{"a":' * depth + "1" + "}" * depth, "--", "touch", str(trace))
    assert (done.code, trace.exists()) in ((0, True), (125, False))
    assert ("[INVALID_INPUT]" in done.err) == (done.code == 125)


def test_a_base_url_that_ends_in_the_prefix_is_hinted_at(box: Any) -> None:
    called = call("guard", "-u", box.url + "/api", "--", "true")
    hint, refusal = called.err.splitlines()
    assert called.code == 125
    assert hint.startswith("the base URL {}/api ends in /api".format(box.url))
    assert refusal.startswith("hestiaos-lite: not run: [NOT_FOUND]")


def test_of_other_commands_a_usage_error_stays_2() -> None:
    assert call("run", "guard", "--bogus").code == 2
    assert call("health", "--", "guard").code == 2


def test_help_is_no_usage_error() -> None:
    for argv in (["guard", "-h"], ["guard", "--help"], ["-q", "guard", "--help"]):
        called = call(*argv)
        assert (called.code, called.err) == (0, "")
        assert "-- COMMAND [ARGUMENT]..." in called.out


def test_a_bug_of_ours_does_not_run_it_either(trace: Any, tmp_path: Any) -> None:
    (tmp_path / "sseclient.py").write_text("raise ValueError('broken')\n")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = guard("http://127.0.0.1:9", "--fail-open", "--", "touch", str(trace), PYTHONPATH=path)
    assert (done.code, done.out, trace.exists()) == (125, b"", False)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_interrupted_while_asking_nothing_ran(trace: Any, number: int, code: int) -> None:
    with FaultServer(hang) as server:
        process = subprocess.Popen(
            command("guard", "-u", server.url, "--fail-open", "--", "touch", str(trace)),
            stderr=subprocess.PIPE,
            env=environment(),
        )
        while not server.hits:
            time.sleep(0.01)
        process.send_signal(number)
        err = process.communicate(timeout=30)[1]
    assert (process.returncode, err, trace.exists()) == (code, b"", False)


def test_a_sigterm_that_is_ignored_does_not_end_the_asking() -> None:
    def script(wire: Any) -> None:
        wire.request()
        process.send_signal(signal.SIGTERM)
        wire.pause(0.2)
        wire.send(ok({"decision": "ALLOW"}))

    with FaultServer(script) as server:
        process = subprocess.Popen(
            command("guard", "-u", server.url, "--", "echo", "ran"),
            stdout=subprocess.PIPE,
            env=environment(),
            preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN) and None,
        )
        assert process.communicate(timeout=30)[0] == b"ran\n"
    assert process.returncode == 0


# -- masks and the log


def test_a_masked_value_is_neither_sent_nor_logged_nor_said(tmp_path: Any) -> None:
    token, longer, pin = 'it\'s a "tök€n"', 'it\'s a "tök€n" and more', "4711"
    log = tmp_path / "log"
    argv = ["printf", "%s|", token, "x" + longer + "y", "PIN=" + pin, token + token]
    given = json.dumps({token: [token, {"pin": 4711, "other": 471, "deep": longer}]})
    options = ["--mask", "PIN", "--mask", "TOKEN", "--mask", "LONGER", "--log", str(log), "--input", given]
    with FaultServer(answer(ok({"decision": "ALLOW", "reason": "as {} is".format(token)}))) as server:
        done = guard(server.url, "-v", *options, "--", *argv, TOKEN=token, LONGER=longer, PIN=pin)
        told = json.loads(server.requests[0].body.decode("utf-8"))["command_input"]
    assert (done.code, done.out.decode("utf-8")) == (0, "".join(word + "|" for word in argv[2:]))
    shown = ["printf", "%s|", "$TOKEN", "x$LONGERy", "PIN=$PIN", "$TOKEN$TOKEN"]
    assert told == {
        "$TOKEN": ["$TOKEN", {"pin": "$PIN", "other": 471, "deep": "$LONGER"}],
        "argv": shown,
        "command": " ".join(shlex.quote(word) for word in shown),
    }
    record = json.loads(log.read_text())
    assert (record["argv"], record["reason"]) == (shown, "as $TOKEN is")
    assert done.err == "governance says ALLOW: as $TOKEN is\n"


def test_a_name_that_holds_anothers_value_is_left_alone() -> None:
    with FaultServer(ALLOW) as server:
        done = guard(
            server.url, "--mask", "A", "--mask", "WORD", "--", "echo", "WORD-1", A="WORD-1", WORD="A"
        )
        told = json.loads(server.requests[0].body.decode("utf-8"))["command_input"]
    assert (done.code, told["argv"]) == (0, ["echo", "$A"])


def test_what_cannot_be_started_is_named_by_its_mask() -> None:
    with FaultServer(ALLOW) as server:
        done = guard(server.url, "--mask", "SECRET", "--", "/secret-word/x", SECRET="secret-word")
    assert (done.code, "secret-word" in done.err) == (127, False)
    assert "/$SECRET/x" in done.err


def test_the_log_has_a_line_for_each(box: Any, tmp_path: Any) -> None:
    import pwd

    log = tmp_path / "log"
    before = time.time()
    for argv in (["true"], ["rm", "-rf", "/nowhere"]):
        guard(box.url, "--log", str(log), "--", *argv)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        then = time.mktime(time.strptime(line.pop("time"), "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
        assert before - 1 <= then <= time.time() + 1
        assert line.pop("pid") != os.getpid()
    common = {"user": pwd.getpwuid(os.getuid()).pw_name, "cwd": os.getcwd(), "trace_id": None}
    allowed = {"decision": "ALLOW", "reason": "no rule matched", "policy": "default-allow"}
    blocked = {"decision": "BLOCK", "reason": "deletes files by force", "policy": "destructive-shell"}
    assert lines == [
        dict(common, argv=["true"], outcome="run", **allowed),
        dict(common, argv=["rm", "-rf", "/nowhere"], outcome="not run", **blocked),
    ]


def test_a_log_that_cannot_be_written_does_not_hide_the_refusal(box: Any) -> None:
    called = call("guard", "-u", box.url, "--log", "/nonexistent/log", "--", "rm", "-rf", "/nowhere")
    assert called.code == 125
    first, last = called.err.splitlines()
    assert first == "hestiaos-lite: the log /nonexistent/log cannot be written: No such file or directory"
    assert last.startswith("hestiaos-lite: not run: governance says BLOCK")


def test_a_disk_that_fills_up_within_the_line_does_not_let_it_run(trace: Any, tmp_path: Any) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    with FaultServer(ALLOW) as server:
        line = ["--log", str(tmp_path / "log"), "--", "touch", str(trace)]
        done = guard(server.url, *line, before=limit)
    words = "the log {} took only a part of its line".format(tmp_path / "log")
    assert (done.code, trace.exists()) == (125, False)
    assert done.err == "hestiaos-lite: not run: [CONFIGURATION] {}\n".format(words)


def test_a_fifo_as_a_log_is_not_waited_for(box: Any, tmp_path: Any) -> None:
    os.mkfifo(str(tmp_path / "log"))
    called = call("guard", "-u", box.url, "--log", str(tmp_path / "log"), "--", "true")
    assert (called.code, "cannot be written" in called.err) == (125, True)


@pytest.mark.skipif(os.getuid() != 0, reason="another user's link can only be made by root")
def test_a_log_through_another_users_link_is_refused(box: Any, tmp_path: Any) -> None:
    target, link = tmp_path / "target", tmp_path / "log"
    target.write_text("")
    link.symlink_to(target)
    assert guard(box.url, "--log", str(link), "--", "true").code == 0
    assert len(target.read_text().splitlines()) == 1
    os.lchown(str(link), 65534, 65534)
    called = call("guard", "-u", box.url, "--log", str(link), "--", "true")
    assert (called.code, "cannot be written" in called.err) == (125, True)
    assert len(target.read_text().splitlines()) == 1
