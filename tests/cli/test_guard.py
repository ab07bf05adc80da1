"""guard: a command runs once governance says ALLOW, and never otherwise; what is sent to governance and the log."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from typing import Any, Dict, List
from unittest import mock

import pytest

from ..batch.kit import Child, wait_until
from ..cli_call import Called, call, file_size_limit
from ..faultserver import FaultServer, answer, answer_and_close, closed_port, drop, hang, head, ok, reply

if os.name != "posix":
    pytest.skip("exec and file modes as POSIX has them", allow_module_level=True)

ALLOW = answer(ok({"decision": "ALLOW"}))


@pytest.fixture(autouse=True)
def this_process_stays(monkeypatch: Any) -> None:
    """Here a command runs as a child: in this process's place it would end the tests as if all had passed."""

    def execv(path: str, argv: List[str]) -> None:
        sys.exit(subprocess.call(argv, executable=path))

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.delattr(os, "execvp")  # nor by any other of its names
    monkeypatch.delattr(os, "execve")


def guard(url: str, *argv: str, **variables: str) -> Called:
    """Call ``hestiaos-lite guard`` in this process, without retries."""
    with mock.patch.dict(os.environ, variables):
        return call("guard", "-u", url, "--retries", "0", *argv)


@pytest.fixture
def trace(tmp_path: Any) -> Any:
    """A file that the command makes: where it is not, the command did not run."""
    return tmp_path / "trace"


# -- what is sent to governance


def test_nothing_but_the_command_is_told(tmp_path: Any) -> None:
    given = tmp_path / "more.json"
    given.write_text('{"ticket": "OPS-7", "argv": ["harmless"], "command": "harmless"}')
    with FaultServer(ALLOW) as server:
        done = guard(
            server.url, "--type", "db", "--input", "@{}".format(given), "--", "echo", "a b", SECRET="s"
        )
        told = json.loads(server.requests[0].body.decode("utf-8"))
    assert (done.code, done.err) == (0, "")
    assert told == {
        "command_type": "db",
        "command_input": {"ticket": "OPS-7", "argv": ["echo", "a b"], "command": "echo 'a b'"},
    }


def test_a_command_in_the_only_folder_of_path(trace: Any, tmp_path: Any) -> None:
    (tmp_path / "step").write_text("#!/bin/sh\n: > {}\n".format(trace))
    (tmp_path / "step").chmod(0o755)
    with FaultServer(ALLOW) as server:
        assert guard(server.url, "--", "step", PATH=str(tmp_path)) == Called(0, "", "")
    assert trace.exists()


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
    "408": (answer(reply(408)), 75, True),
    "503 that fails": (answer(reply(503, b'{"detail": "the look-up failed"}')), 75, True),
    "503 of a block": (answer(reply(503, b'{"decision": "BLOCK"}')), 75, False),
    "429 of a block": (answer(reply(429, b'{"detail": {"rulings": [{"result": "denied"}]}}')), 75, False),
    "500 of a block": (answer(reply(500, b'{"code": "GOVERNANCE_BLOCK"}')), 75, False),
    "500 of a block or two": (answer(reply(500, b'{"decision": "BLOCK", "decision": "ALLOW"}')), 75, False),
    "502 of a failure": (answer(reply(502, b'{"status": "Failed"}')), 75, False),
    "503 in words": (answer(reply(503, b"<html>This request was denied")), 75, False),
    "403 page": (answer(reply(403, b"<html>Attention required")), 75, False),
    "dropped": (drop, 75, True),
    "silent": (hang, 75, True),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_allowed_leaves_no_trace(name: str, trace: Any, tmp_path: Any) -> None:
    script, code, opens = REFUSALS[name]
    log = tmp_path / "log"
    options = ["--timeout", "0.5", "--log", str(log)]
    line = ["--", "touch", str(trace)]
    with FaultServer(script) as server:
        done = guard(server.url, *options, *line)
        assert (done.code, done.out, trace.exists()) == (code, "", False)
        assert done.err.startswith("hestiaos-lite: not run: ")
        assert len(done.err.splitlines()) == 1
        as_json = guard(server.url, "--json", "--not-run-exit", "7", *options, *line)
        assert (as_json.code, as_json.out, trace.exists()) == (7, "", False)
        assert as_json.error["exit_code"] == 7
        opened = guard(server.url, "--fail-open", "-q", *options, *line)
    assert (opened.code, trace.exists()) == ((0, True) if opens else (code, False))
    words = "run without a ruling, because of --fail-open: [" if opens else "not run: "
    assert opened.err.startswith("hestiaos-lite: " + words)
    assert len(opened.err.splitlines()) == 1
    outcomes = [json.loads(line)["outcome"] for line in log.read_text().splitlines()]
    assert outcomes == ["not run", "not run", "run" if opens else "not run"]


def test_a_service_that_is_not_there(trace: Any) -> None:
    url = "http://127.0.0.1:{}".format(closed_port())
    done = guard(url, "--", "touch", str(trace))
    assert (done.code, done.out, trace.exists()) == (75, "", False)
    assert "not run: [CONNECTION_FAILED] cannot connect: connection refused" in done.err
    assert guard(url, "--fail-open", "--", "touch", str(trace)).code == 0
    assert trace.exists()


def test_a_certificate_that_is_not_trusted_is_no_service_that_is_away(trace: Any) -> None:
    with FaultServer(ALLOW, tls=True) as server:
        done = guard(server.url, "--fail-open", "--", "touch", str(trace))
    assert (done.code, trace.exists()) == (125, False)
    assert "certificate is not trusted" in done.err


def test_throttle_runs_only_where_that_is_allowed(trace: Any) -> None:
    ruling = {"decision": "THROTTLE", "reason": "busy", "policy": "p", "trace_id": "t"}
    with FaultServer(answer(ok(ruling))) as server:
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


# fmt: off
@pytest.mark.parametrize(("argv", "words"), [
    ("guard",                             "no command: put it after --"),
    ("guard --",                          "no command: put it after --"),
    ("guard touch {}",                    "no command: put it after --"),
    ("guard df -h",                       "no command: put it after --"),
    ("guard touch -- touch {}",           "unrecognized arguments: touch"),
    ("guard --bogus -- touch {}",         "unrecognized arguments: --bogus"),
    ("--bogus guard -- touch {}",         "unrecognized arguments: --bogus"),
    ("--timeout 0 guard -- touch {}",     "argument --timeout: must be"),
    ("guard --not-run-exit 256 -- touch {}", "must be an exit code, 0 to 255"),
    ("guard --input - -- touch {}",       "standard input belongs to the command"),
    ("guard --input [] -- touch {}",      "must be a JSON object"),
    ("guard --input @/nonexistent -- touch {}", "cannot be read"),
    ("guard --mask UNSET -- touch {}",    "--mask UNSET: that variable is not set, or empty"),
    ("guard --mask EMPTY -- touch {}",    "--mask EMPTY: that variable is not set, or empty"),
    ("guard --log /nonexistent/log -- touch {}", "the log /nonexistent/log cannot be written"),
    ("guard --log /dev/full -- touch {}", "the log /dev/full cannot be written: No space"),
    ("guard -u ftp://x -- touch {}",      "must begin with http:// or https://"),
    ("guard --profile none -- touch {}",  "does not exist"),
    ("guard --api-key-file /nonexistent -- touch {}", "cannot be read"),
])
# fmt: on
def test_usage_and_settings_are_125_with_fail_open_too(
    box: Any, trace: Any, monkeypatch: Any, argv: str, words: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("HESTIAOS_BASE_URL", box.url)
    line = [str(trace) if word == "{}" else word for word in argv.split()]
    place = line.index("guard") + 1
    for options, code in ([], 125), (["--fail-open"], 125), (["--not-run-exit=9", "--fail-open"], 9):
        if "256" in line and code == 9:
            continue
        called = call(*line[:place], *options, *line[place:])
        assert (called.code, called.out, trace.exists()) == (code, "", False)
        assert words in called.err
        assert len(called.err.splitlines()) == 1


@pytest.mark.parametrize("argv", [
    ["--mask", "PIN", "--not-run-exit", "{}"],
    ["--mask=PIN", "--allow-{}"],
    ["{}", "--mask", "NONE", "--mask", "PIN"],
    ["--mask", "PIN", "--retries", "{}"],
])  # fmt: skip
@pytest.mark.parametrize("value", ["s3cret-of-mine", "it's \\ a \tsecret", '\u4f60\u597d "quoted"'])
def test_a_usage_error_shows_no_value_that_is_to_be_masked(
    argv: List[str], value: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PIN", value)
    called = call("guard", *[word.format(value) for word in argv], "--", "true")
    assert called.code == 125
    assert "error: " in called.err
    assert "$PIN" in called.err
    for shown in (value, repr(value)[1:-1], value.replace("\t", "\\x09"), value.split()[-1]):
        assert shown not in called.err


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


def test_a_bug_of_ours_does_not_run_it_either(trace: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("hestiaos_lite.config.resolve", lambda **options: {}["missing"])
    done = guard("http://127.0.0.1:9", "--fail-open", "--", "touch", str(trace))
    assert (done.code, done.out, trace.exists()) == (125, "", False)
    assert done.err.startswith("hestiaos-lite: this is a bug in hestiaos-lite, please report it: KeyError")
    error = guard("http://127.0.0.1:9", "-j", "--not-run-exit", "7", "--", "touch", str(trace)).error
    assert (error["code"], error["exit_code"], trace.exists()) == ("INTERNAL", 7, False)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_interrupted_while_asking_nothing_ran(trace: Any, number: int, code: int) -> None:
    with FaultServer(hang) as server:
        child = Child(["guard", "-u", server.url, "--fail-open", "--", "touch", str(trace)])
        wait_until(lambda: server.hits)
        child.signal(number)
        assert (child.ended(), trace.exists()) == (Called(code, "", ""), False)


# -- masks and the log


def test_a_masked_value_is_neither_sent_nor_logged_nor_said(tmp_path: Any, capfd: Any) -> None:
    token, longer, pin = 'it\'s a "tök€n"', 'it\'s a "tök€n" and more', "4711"
    log = tmp_path / "log"
    argv = ["printf", "%s|", token, "x" + longer + "y", "PIN=" + pin, token + token]
    given = json.dumps({token: [token, {"pin": 4711, "other": 471, "deep": longer}]})
    options = ["--mask", "PIN", "--mask", "TOKEN", "--mask", "LONGER", "--log", str(log), "--input", given]
    with FaultServer(answer(ok({"decision": "ALLOW", "reason": "as {} is".format(token)}))) as server:
        done = guard(server.url, "-v", *options, "--", *argv, TOKEN=token, LONGER=longer, PIN=pin)
        told = json.loads(server.requests[0].body.decode("utf-8"))["command_input"]
    assert (done.code, capfd.readouterr().out) == (0, "".join(word + "|" for word in argv[2:]))
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


@pytest.mark.parametrize("options", [[], ["--json"], ["--fail-open"]], ids=["text", "json", "fail-open"])
def test_what_a_service_or_a_path_says_of_it_is_masked_too(tmp_path: Any, options: List[str]) -> None:
    log = str(tmp_path / "log")
    for path in (log, "/nonexistent/secret-word"):
        with FaultServer(answer(reply(503, b'{"message": "no secret-word here"}'))) as server:
            line = ["--mask", "SECRET", "--log", path, *options, "--", "true"]
            done = guard(server.url, *line, SECRET="secret-word")
        assert "secret-word" not in done.err
        assert ("no $SECRET here" in done.err) or "/nonexistent/$SECRET" in done.err
    with open(log) as file:
        assert json.loads(file.read())["reason"] == "no $SECRET here"


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
        assert line.pop("pid") == os.getpid()
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


def test_without_a_ruling_a_log_that_cannot_be_written_is_what_keeps_it_from_running(trace: Any) -> None:
    """A later try would not help: --fail-open had let it run."""
    with FaultServer(answer(reply(503))) as server:
        called = guard(server.url, "--fail-open", "--log", "/nonexistent/log", "--", "touch", str(trace))
    assert (called.code, trace.exists(), len(called.err.splitlines())) == (125, False, 1)
    assert called.err.startswith("hestiaos-lite: not run: [CONFIGURATION] the log /nonexistent/log cannot be")


def test_a_disk_that_fills_up_within_the_line_does_not_let_it_run(trace: Any, tmp_path: Any) -> None:
    log = tmp_path / "log"
    with FaultServer(ALLOW) as server, file_size_limit(100):
        done = guard(server.url, "--log", str(log), "--", "touch", str(trace))
    words = "hestiaos-lite: not run: [CONFIGURATION] the log {} took only part of the line\n".format(log)
    assert (done, trace.exists()) == (Called(125, "", words), False)
    with FaultServer(ALLOW) as server:  # once there is room, a line is a line of its own
        codes = [guard(server.url, "--log", str(log), "--", "true").code for _ in range(2)]
    part, *whole = log.read_text().splitlines()
    assert (codes, len(part), [json.loads(line)["argv"] for line in whole]) == ([0, 0], 100, 2 * [["true"]])


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
