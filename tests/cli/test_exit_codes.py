"""Exit codes: every row of the table in docs/reference.md, brought about by a service, a socket or an argument that misbehaves."""

from __future__ import annotations

import errno
import os
from typing import Any, Dict, List, Sequence

import pytest

from hestiaos_lite.cli.exits import exit_code

from ..cli_call import call
from ..faultserver import (
    FaultServer,
    answer_and_close,
    answer_and_hang,
    answer_and_reset,
    closed_port,
    drop,
    hang,
    head,
)

FAST = ["--retries", "0", "--timeout", "0.4"]
SENDER = "--tenant t --thread th"
READS = ["health", "trace t", "status", "secret get k", "explain x", "hitl status i"]
CHANGES = ["run x", "chat x", "agent a x", "secret delete k", "hitl approve k " + SENDER]


# fmt: off
@pytest.mark.parametrize("statuses, of_a_read, of_a_change", [
    ((401,), 77, 77),
    ((403, 404, 409, 422, 451), 69, 69),  # a page is a gateway's, whatever its status: it decides nothing
    ((408, 425, 429), 75, 75),
    ((413,), 2, 2),
    ((500, 502, 504, 524), 69, 3),
    ((503,), 69, 69),
    ((302, 200), 76, 76),
], ids=str)
# fmt: on
def test_answers(box: Any, statuses: Sequence[int], of_a_read: int, of_a_change: int) -> None:
    for status in statuses:
        for command in READS + CHANGES:
            code = of_a_read if command in READS else of_a_change
            box.fail_next(status, body="<html>no</html>")
            called = call(*command.split(), "-u", box.url, "-j", "--retries", "0")
            error = called.error
            facts = (called.code, called.out, error["exit_code"], error["status"], error["delivered"])
            assert (command, *facts) == (command, code, "", code, status, True)


@pytest.mark.parametrize("status, codes", [
    (403, {"run x": 1, "chat x": 1, "agent a x": 1, "health": 77, "secret get k": 77}),
    (404, {"run x": 1, "health": 1, "hitl status i": 1}),
    (409, {"run x": 1}),
    (422, {"run x": 2, "health": 2, "secret delete k": 2}),
])  # fmt: skip
def test_what_the_service_itself_says_no_with(box: Any, status: int, codes: Dict[str, int]) -> None:
    box.fail_next(status, times=len(codes))
    assert {command: call(*command.split(), "-u", box.url).code for command in codes} == codes


def test_never_connected_is_69() -> None:
    for command in READS + CHANGES:
        called = call(*command.split(), "-u", "http://127.0.0.1:{}".format(closed_port()), "-j", *FAST)
        assert (command, called.code, called.out, called.error["delivered"]) == (command, 69, "", False)


HALF = head(200, {"Content-Type": "application/json", "Content-Length": 100}) + b"{"
SCRIPTS: Dict[str, Any] = {
    "dropped": drop,
    "silent": hang,
    "broken-off": answer_and_reset(HALF),
    "cut-short": answer_and_close(HALF),
    "slow": answer_and_hang(HALF),
}


@pytest.mark.parametrize(
    "fault, of_a_read, of_a_change",
    [("dropped", 69, 3), ("silent", 75, 3), ("broken-off", 69, 76), ("cut-short", 69, 76), ("slow", 75, 3)],
)
def test_without_a_whole_answer(fault: str, of_a_read: int, of_a_change: int) -> None:
    for command, code in (("health", of_a_read), ("explain x", of_a_read), ("run x", of_a_change)):
        with FaultServer(SCRIPTS[fault]) as server:
            called = call(*command.split(), "-u", server.url, *FAST)
        assert (command, called.code, called.out) == (command, code, "")


EVENTS = head(200, {"Content-Type": "text/event-stream"})
TOKEN = b'data: {"type": "token", "data": {"text": "half"}}\n\n'


@pytest.mark.parametrize("script, code, out", [
    (answer_and_close(EVENTS + TOKEN), 76, "half\n"),
    (answer_and_reset(EVENTS + TOKEN), 76, "half\n"),
    (answer_and_close(EVENTS + b"data: {oops\n\n"), 76, ""),
    (answer_and_hang(EVENTS), 3, ""),
], ids=["cut-short", "broken-off", "not-json", "silent"])  # fmt: skip
def test_a_stream_without_its_end_keeps_what_came(script: Any, code: int, out: str) -> None:
    with FaultServer(script) as server:
        called = call("run", "--stream", "x", "-u", server.url, *FAST)
    assert (called.code, called.out) == (code, out)


def test_decisions(box: Any, tmp_path: Any) -> None:
    """One whose answer was lost, one over the quota, and two for one key."""
    where = [*SENDER.split(), "-u", box.url, "-j", "--retries", "0"]
    box.lose_next_answer()
    lost = call("hitl", "approve", "k", *where)
    assert (lost.code, lost.error["delivered"], len(box.actions())) == (3, None, 1)
    where += ["--outbox", str(tmp_path / "o.db")]
    assert call("hitl", "approve", "k2", *where).code == 0
    other = call("hitl", "reject", "k2", *where)
    assert (other.code, other.error["code"]) == (1, "IDEMPOTENCY_CONFLICT")
    box.hitl.quota = 0
    assert call("hitl", "approve", "k3", *where[:-2]).code == 75


# fmt: off
@pytest.mark.parametrize("stdin, lines", [
    (b"v", [
        "", "-q", "-u", "bogus", "- run x", "secret", "run", "run x y", "run x --bogus", "--stream run x", "-1 run", "run x --timeout 0",
        "run x --timeout nan", "run x --retries -1", "run x --timeout-ms 0", "run \udcff", "secret get ..", "secret set k value",
        "explain x --input [1]", "explain x --input {", "explain x --input @/nonexistent", "health --warning 1",
        "hitl approve k", "hitl approve k --thread th", "hitl approve \u20ac --thread th --tenant t",
        "hitl key", "hitl key --field x", "hitl key --field x=1 --field x=2", "outbox list", "outbox drop x --outbox f",
        "sandbox --port 99999", "sandbox --host 0.0.0.0", "sandbox --fault 200", "sandbox --fault-rate 0", "completion tcsh",
    ]),
    # an input that is none
    (b"", ["run -", "chat -", "secret set k"]),
    (b" \n", ["run -"]),
    (b"\n", ["secret set k"]),
    (b"\xff\xfe", ["run -", "secret set k"]),
    (b"nope", ["agent a t --config -"]),
])
def test_usage_errors_are_2_and_nothing_is_sent(box: Any, monkeypatch: Any, stdin: bytes, lines: Sequence[str]) -> None:
    monkeypatch.setenv("HESTIAOS_BASE_URL", box.url)
    for argv in lines:
        check_usage_error(box, argv, stdin)


def test_an_empty_value_is_a_variable_that_a_script_forgot_to_set(box: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("HESTIAOS_BASE_URL", box.url)
    for argv in (
        "health -u", "health -k", "-k= health", "health --api-key-file", "health --get", "health --profile",
        "batch in --out", "batch in --out o --failed", "batch in --out o --column", "hitl key --field",
        "hitl approve k --thread t --tenant", "hitl reject k --thread", "outbox list --outbox", "sandbox --db",
    ):
        assert ": must not be empty (see " in check_usage_error(box, argv if "=" in argv else argv + " ")
# fmt: on


def check_usage_error(box: Any, argv: str, stdin: bytes = b"") -> str:
    """The words of it: one line."""
    called = call(*argv.split(" ") if argv else [], stdin=stdin)
    assert (argv, called.code, called.out, box.requests) == (argv, 2, "", [])
    assert called.err.startswith("hestiaos-lite: ")
    assert len(called.err.splitlines()) == 1
    return called.err


@pytest.mark.parametrize("argv", [
    ["health", "-u", "ftp://x"],
    ["health", "-u", "http://user:pw@x"],
    ["health", "--profile", "none"],
    ["health", "--api-key-file", "/nonexistent"],
    ["health", "-k", "two words"],
    ["sandbox", "--db", "/nonexistent/folder/db", "--port", "0"],
    ["outbox", "list", "--outbox", __file__],
    ["outbox", "drop", "1", "--outbox", "/nonexistent"],
    ["hitl", "approve", "k", *SENDER.split(), "--outbox", "/nonexistent/folder/o.db"],
], ids=lambda argv: " ".join(argv[:3]))  # fmt: skip
def test_configuration_is_78(argv: List[str]) -> None:
    called = call(*argv)
    assert (called.code, called.out) == (78, "")
    assert "pw" not in called.err
    assert "two words" not in called.err


def test_a_bad_policy_is_65(tmp_path: Any) -> None:
    path = tmp_path / "rules.json"
    path.write_text('[{"pattern": "("}]')
    called = call("sandbox", "--port", "0", "--policy", str(path), "-j")
    facts = (called.code, called.error["type"], called.error["code"])
    assert facts == (65, "InvalidInput", "BAD_DATA")
    assert "rule 1" in called.error["message"]


def test_a_port_in_use_is_69(box: Any) -> None:
    fault = "cannot listen on 127.0.0.1 port {}: {}".format(box.port, os.strerror(errno.EADDRINUSE))
    error = call("sandbox", "--port", str(box.port), "-j").error
    assert (error["message"], error["exit_code"], error["effect"]) == (fault, 69, "none")


def test_a_bug_is_one_line_with_a_hint(monkeypatch: Any) -> None:
    monkeypatch.setattr("hestiaos_lite.config.resolve", lambda **options: {}["missing"])
    line = "this is a bug in hestiaos-lite, please report it: KeyError: 'missing' (-vv shows where)\n"
    assert call("health") == (70, "", "hestiaos-lite: " + line)
    assert "Traceback" in call("health", "-vv").err
    assert call("health", "-j").error["code"] == "INTERNAL"


@pytest.mark.parametrize("error, code", [(ImportError(), 78), (PermissionError(), 78), (ValueError(), 70)])
def test_an_exception_that_is_not_ours_is_this_machines_or_a_bug(error: Exception, code: int) -> None:
    assert exit_code(error) == code
