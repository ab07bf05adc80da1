"""Exit codes: every row of the table in docs/reference.md, brought about by a service, a socket or an argument that misbehaves."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from hestiaos_lite import errors
from hestiaos_lite.cli.exits import BadData, exit_code

from ..cli_call import call
from ..faultserver import (
    FaultServer,
    answer,
    answer_and_close,
    answer_and_hang,
    answer_and_reset,
    closed_port,
    drop,
    hang,
    head,
    reply,
)

FAST = ["--retries", "0", "--timeout", "0.4"]
READS = ["health", "trace t", "status", "secret get k", "explain x", "hitl status i"]
CHANGES = ["run x", "chat x", "agent a x", "secret delete k", "hitl approve k --tenant t --thread th"]


@pytest.mark.parametrize("command", READS + CHANGES)
@pytest.mark.parametrize(
    "status, of_a_read, of_a_change",
    [
        (401, 77, 77),
        # a page is a gateway's, whatever its status: it decides nothing
        (403, 69, 69),
        (404, 69, 69),
        (409, 69, 69),
        (422, 69, 69),
        (451, 69, 69),
        (408, 75, 75),
        (413, 2, 2),
        (425, 75, 75),
        (429, 75, 75),
        (500, 69, 3),
        (502, 69, 3),
        (503, 69, 69),
        (504, 69, 3),
        (524, 69, 3),
        (302, 76, 76),
        (200, 76, 76),
    ],
)
def test_answers(box: Any, command: str, status: int, of_a_read: int, of_a_change: int) -> None:
    code = of_a_read if command in READS else of_a_change
    box.fail_next(status, body="<html>no</html>")
    called = call(*command.split(), "-u", box.url, "-j", *FAST)
    assert (called.code, called.out) == (code, "")
    error = called.error
    assert (error["exit_code"], error["status"], error["delivered"]) == (code, status, True)


@pytest.mark.parametrize(
    "command, code", [("run x", 1), ("chat x", 1), ("agent a x", 1), ("health", 77), ("secret get k", 77)]
)
def test_403(box: Any, command: str, code: int) -> None:
    box.fail_next(403)
    assert call(*command.split(), "-u", box.url).code == code


def test_409_of_hestiaos(box: Any) -> None:
    box.fail_next(409)
    assert call("run", "x", "-u", box.url).code == 1


@pytest.mark.parametrize("command", READS + CHANGES)
def test_never_connected_is_69(command: str) -> None:
    called = call(*command.split(), "-u", "http://127.0.0.1:{}".format(closed_port()), "-j", *FAST)
    assert (called.code, called.out, called.error["delivered"]) == (69, "", False)


SCRIPTS: Dict[str, Any] = {
    "dropped": drop,
    "silent": hang,
    "broken-off": answer_and_reset(
        head(200, {"Content-Type": "application/json", "Content-Length": 100}) + b"{"
    ),
    "cut-short": answer_and_close(
        head(200, {"Content-Type": "application/json", "Content-Length": 100}) + b"{"
    ),
    "slow": answer_and_hang(head(200, {"Content-Type": "application/json", "Content-Length": 100}) + b"{"),
}


@pytest.mark.parametrize(
    "fault, of_a_read, of_a_change",
    [("dropped", 69, 3), ("silent", 75, 3), ("broken-off", 69, 76), ("cut-short", 69, 76), ("slow", 75, 3)],
)
def test_without_a_whole_answer(fault: str, of_a_read: int, of_a_change: int) -> None:
    for command, code in (
        ("health", of_a_read),
        ("explain x", of_a_read),
        ("run x", of_a_change),
        ("chat x", of_a_change),
    ):
        with FaultServer(SCRIPTS[fault]) as server:
            called = call(*command.split(), "-u", server.url, *FAST)
        assert (command, called.code, called.out) == (command, code, "")


def test_a_decision_whose_answer_was_lost_is_3(box: Any) -> None:
    box.lose_next_answer()
    called = call(
        "hitl", "approve", "k", "--tenant", "t", "--thread", "th", "-u", box.url, "-j", "--retries", "0"
    )
    assert (called.code, called.error["delivered"], len(box.actions())) == (3, None, 1)


def test_a_stream_cut_short_is_76_and_keeps_what_came(box: Any) -> None:
    box.drop_next_stream(after_events=3)
    called = call("run", "--stream", "one two three", "-u", box.url)
    assert (called.code, called.out) == (76, "processed: one\n")
    assert "[STREAM_INTERRUPTED]" in called.err or "[CONNECTION_FAILED]" in called.err


def test_a_stream_of_broken_events_is_76() -> None:
    events = head(200, {"Content-Type": "text/event-stream"}) + b"data: {oops\n\n"
    with FaultServer(answer_and_close(events)) as server:
        assert call("run", "--stream", "x", "-u", server.url).code == 76


def test_a_silent_stream_is_3() -> None:
    with FaultServer(answer_and_hang(head(200, {"Content-Type": "text/event-stream"}))) as server:
        assert call("run", "--stream", "x", "-u", server.url, "--timeout", "0.3").code == 3


def test_quota_is_75(box: Any) -> None:
    box.hitl.quota = 0
    assert (
        call("hitl", "approve", "k", "--tenant", "t", "--thread", "th", "-u", box.url, "--retries", "0").code
        == 75
    )


def test_one_key_for_two_decisions_is_1(box: Any, tmp_path: Any) -> None:
    options = ["--tenant", "t", "--thread", "th", "-u", box.url, "--outbox", str(tmp_path / "o.db")]
    assert call("hitl", "approve", "k", *options).code == 0
    called = call("hitl", "reject", "k", "-j", *options)
    assert (called.code, called.error["code"]) == (1, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize(
    "argv, stdin",
    [
        ("", b""),
        ("bogus", b""),
        ("run", b""),
        ("run x y", b""),
        ("run x --bogus", b""),
        ("run x --timeout 0", b""),
        ("run x --timeout nan", b""),
        ("run x --retries -1", b""),
        ("run x --timeout-ms 0", b""),
        ("run -", b""),
        ("run -", b" \n"),
        ("run -", b"\xff\xfe"),
        ("run \udcff", b""),
        ("chat -", b""),
        ("secret set k", b""),
        ("secret set k", b"\n"),
        ("secret set k", b"\xff"),
        ("secret set k value", b"v"),
        ("secret get ..", b""),
        ("explain x --input [1]", b""),
        ("explain x --input {", b""),
        ("explain x --input @/nonexistent", b""),
        ("agent a t --config -", b"nope"),
        ("health --warning 1", b""),
        ("hitl approve k", b""),
        ("hitl approve k --thread th", b""),
        ("hitl approve \u20ac --thread th --tenant t", b""),
        ("hitl key", b""),
        ("hitl key --field x", b""),
        ("hitl key --field x=1 --field x=2", b""),
        ("outbox list", b""),
        ("outbox drop x --outbox f", b""),
        ("sandbox --port 99999", b""),
        ("sandbox --host 0.0.0.0", b""),
        ("sandbox --fault 200", b""),
        ("sandbox --fault-rate 0", b""),
        ("completion tcsh", b""),
    ],
    ids=str,
)
def test_usage_and_invalid_input_are_2_and_nothing_is_sent(box: Any, argv: str, stdin: bytes) -> None:
    called = call(*argv.split(" ") if argv else [], *(["-u", box.url] if argv else []), stdin=stdin)
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith("hestiaos-lite: ")
    assert len(called.err.splitlines()) == 1
    assert box.requests == []


@pytest.mark.parametrize(
    "argv",
    [
        ["health", "-u", "ftp://x"],
        ["health", "-u", "http://user:pw@x"],
        ["health", "--profile", "none"],
        ["health", "--api-key-file", "/nonexistent"],
        ["health", "-k", "two words"],
        ["sandbox", "--db", "/nonexistent/folder/db", "--port", "0"],
        ["outbox", "list", "--outbox", __file__],
        ["outbox", "drop", "1", "--outbox", "/nonexistent"],
        ["hitl", "approve", "k", "--thread", "t", "--tenant", "t", "--outbox", "/nonexistent/folder/o.db"],
    ],
    ids=lambda argv: " ".join(argv[:3]),
)
def test_configuration_is_78(argv: List[str]) -> None:
    called = call(*argv)
    assert (called.code, called.out) == (78, "")
    assert "pw" not in called.err
    assert "two words" not in called.err


@pytest.mark.parametrize(
    "argv",
    ["health -u", "health -k", "-k= health", "health --api-key-file", "health --get", "health --profile"]
    + ["batch in --out", "batch in --out o --failed", "batch in --out o --column", "hitl key --field"]
    + [
        "hitl approve k --thread t --tenant",
        "hitl reject k --thread",
        "outbox list --outbox",
        "sandbox --db",
    ],
)
def test_an_empty_value_is_a_variable_that_a_script_forgot_to_set(
    box: Any, monkeypatch: Any, argv: str
) -> None:
    monkeypatch.setenv("HESTIAOS_BASE_URL", box.url)
    called = call(*argv.split(), *[] if "=" in argv else [""])
    assert (called.code, called.out, box.requests) == (2, "", [])
    assert ": must not be empty (see " in called.err


def test_a_bad_policy_is_65(tmp_path: Any) -> None:
    path = tmp_path / "rules.json"
    path.write_text('[{"pattern": "("}]')
    called = call("sandbox", "--port", "0", "--policy", str(path), "-j")
    assert (called.code, called.error["code"]) == (65, "BAD_DATA")
    assert "rule 1" in called.error["message"]


def test_a_port_in_use_is_69(box: Any) -> None:
    called = call("sandbox", "--port", str(box.port))
    assert (called.code, called.out) == (69, "")
    assert "cannot listen on 127.0.0.1 port {}".format(box.port) in called.err


def test_a_bug_is_one_line_with_a_hint(monkeypatch: Any) -> None:
    monkeypatch.setattr("hestiaos_lite.config.resolve", lambda **options: {}["missing"])
    called = call("health")
    assert called.code == 70
    assert called.err == (
        "hestiaos-lite: this is a bug in hestiaos-lite, please report it: KeyError: 'missing' (-vv shows where)\n"
    )
    assert "Traceback" in call("health", "-vv").err
    assert call("health", "-j").error["code"] == "INTERNAL"


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.RateLimited(), 75),
        (BadData("no"), 65),
        (ImportError("no"), 78),
        (PermissionError("no"), 78),
        (ValueError("no"), 70),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_has_its_own_code_and_another_exception_is_this_machines_or_ours(
    error: Exception, code: int
) -> None:
    assert exit_code(error) == code


def test_an_answer_that_is_whole_again_after_a_retry_is_0() -> None:
    good = reply(200, b'{"status": "ok"}')
    with FaultServer(answer(reply(503, headers={"Retry-After": 0}), good)) as server:
        assert call("health", "-u", server.url).code == 0
        assert server.hits == 2
