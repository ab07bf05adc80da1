"""The commands: what they send, print and return."""

from __future__ import annotations

import json
import re
from typing import Any, List

import pytest

from hestiaos_lite import __version__

from ..cli_call import DONE, Called, call, stream_of, token
from ..faultserver import FaultServer, answer, closed_port, ok, reply
from ..sandbox_call import name_of

WORDS = ["processed:", " one", " two"]


def test_run_prints_the_text_and_notices_the_trace(box: Any) -> None:
    called = call("run", "create a report", "-u", box.url)
    assert (called.code, called.out) == (0, "processed: create a report\n")
    assert re.match(r"trace id .*, mode ALLOW\n\Z", called.err)


def test_run_sends_what_it_is_told_and_grants_no_more_time_than_the_caller_has(box: Any) -> None:
    options = ["--session-id", "s", "--agent-id", "a", "--mode-hint", "m", "--timeout-ms", "1234"]
    assert call("-u", box.url, "run", "hello", *options).code == 0
    context = {"session_id": "s", "agent_id": "a", "mode_hint": "m"}
    body = {"input": "hello", "context": context, "options": {"timeout_ms": 1234, "stream": False}}
    assert box.requests[-1].json == body
    for timeout, granted_ms in ("7.5", 7500), ("60", 30000):
        assert call("run", "hello", "-u", box.url, "--timeout", timeout).code == 0
        assert box.requests[-1].json["options"]["timeout_ms"] == granted_ms


@pytest.mark.parametrize("argv", ["-j run hello", "run hello --json", "--json run -j hello"])
def test_json_before_and_after_the_command(box: Any, argv: str) -> None:
    called = call(*argv.split(), "-u", box.url)
    assert called.code == 0
    answer = called.json
    trace_id, latency_ms = answer.pop("trace_id"), answer.pop("latency_ms")
    assert answer == {"result": "ALLOW", "output": "processed: hello", "mode": "ALLOW", "budget": 1.0}
    assert trace_id
    assert latency_ms >= 0
    assert called.err == ""


@pytest.mark.parametrize("before, after", [
    (["-u", "{url}", "--timeout", "9", "--retries", "0", "-k", "key"], []),
    ([], ["-u", "{url}", "--timeout", "9", "--retries", "0", "-k", "key"]),
    (["-u", "http://127.0.0.1:9", "-k", "other"], ["-u", "{url}", "-k", "key"]),
    (["-qju", "{url}", "--get=value", "-kkey"], ["-vv"]),
], ids=["before", "after", "after-wins", "joined"])  # fmt: skip
def test_global_options_before_and_after(box: Any, before: List[str], after: List[str]) -> None:
    called = call(*[word.format(url=box.url) for word in before + ["secret", "get", "k"] + after])
    assert called.code == 1
    assert box.requests[-1].headers["authorization"] == "Bearer key"


def test_stream_prints_the_tokens(box: Any) -> None:
    called = call("run", "--stream", "one two", "-u", box.url)
    assert (called.code, called.out) == (0, "processed: one two\n")
    assert called.err.startswith("trace id ")


def test_stream_as_json_is_one_object_a_line(box: Any) -> None:
    called = call("run", "--stream", "one two", "-u", box.url, "--json")
    events = [json.loads(line) for line in called.out.splitlines()]
    assert [event["type"] for event in events] == ["start", "token", "token", "token", "final", "done"]
    assert [event["data"]["text"] for event in events[1:4]] == WORDS
    assert (called.code, called.err) == (0, "")


@pytest.mark.parametrize("events, code, out, err", [
    ([{"type": "final", "data": {"output": "whole"}}, DONE], 0, "whole\n", ""),
    ([{"type": "delta", "data": {"delta": "a\n"}}, DONE], 0, "a\n", ""),
    ([token("a"), {"type": "final", "data": {"output": "a"}}, DONE], 0, "a\n", ""),
    ([{"type": "tool_call", "data": {"name": "grep"}}, DONE], 0, "", "tool call: grep\n"),
    ([{"type": "later", "data": {"x": 1}}, DONE], 0, "", ""),
    ([DONE], 0, "", ""),
    (
        [token("half"), {"type": "error", "data": {"message": "no"}, "trace_id": "t"}, DONE],
        1,
        "half\n",
        "trace id t\nhestiaos-lite: the stream ended in an error: no (trace id t)\n",
    ),
], ids=["only-final", "line-ended", "final-repeats", "tool-call", "unknown", "nothing", "error"])  # fmt: skip
def test_stream_forms(events: List[Any], code: int, out: str, err: str) -> None:
    with FaultServer(answer(stream_of(*events))) as server:
        assert call("run", "--stream", "x", "-u", server.url) == Called(code, out, err)


def test_run_reads_standard_input_as_it_is(box: Any) -> None:
    called = call("run", "-", "-u", box.url, stdin="zwei\nZeilen, äöü\n")
    assert (called.code, called.out) == (0, "processed: zwei\nZeilen, äöü\n")
    assert box.requests[-1].json["input"] == "zwei\nZeilen, äöü\n"


def test_a_block_names_its_trace(box: Any) -> None:
    called = call("run", "rm -rf /", "-u", box.url, "-j")
    assert (called.code, called.out) == (1, "")
    error = called.error
    facts = [error[name] for name in ("type", "code", "status", "exit_code")]
    assert facts == ["GovernanceBlock", "GOVERNANCE_BLOCK", 403, 1]
    shown = call("trace", error["trace_id"], "-u", box.url)
    assert shown.code == 0
    assert "decision    BLOCK\n" in shown.out
    assert call("trace", error["trace_id"], "-u", box.url, "-j").json["policy"] == "destructive-shell"


# fmt: off
@pytest.mark.parametrize("argv, body, out, err", [
    ("run x", {"result": "BLOCK", "output": None, "trace_id": "t"}, "BLOCK\n",
     "trace id t\nhestiaos-lite: the service says BLOCK (trace id t)\n"),
    ("agent a x", {"agent_id": "a", "status": "FAILED", "output": None, "error": "no disk", "trace_id": "t"}, "",
     "trace id t, status FAILED\nhestiaos-lite: the agent ended FAILED: no disk (trace id t)\n"),
], ids=["block", "agent"])
# fmt: on
def test_a_good_answer_that_says_no_is_no_success(argv: str, body: Any, out: str, err: str) -> None:
    with FaultServer(answer(ok(body))) as server:
        assert call(*argv.split(), "-u", server.url) == Called(1, out, err)


@pytest.mark.parametrize("argv, stdin, path, sent, out, said", [
    ("chat hello --session-id s1", "", "/api/chat", {"message": "hello", "session_id": "s1"},
     "processed: hello\n", "trace id .*, session id s1\n"),
    ("chat -", "hi\n", "/api/chat", {"message": "hi\n", "session_id": None}, "processed: hi\n", "trace id .*, session id .*\n"),
    ('agent reporter count --config {"depth":2}', "", "/api/agents/run",
     {"agent_id": "reporter", "task": "count", "config": {"depth": 2}}, "processed: count\n", "trace id .*, status COMPLETED\n"),
    ("health", "", "/api/v1/health", None, "status          ok\nversion .*", ""),
    ("status", "", "/api/system/status", None, ".*dsgk .*", ""),
    ("config", "", "/api/system/config", None, ".*policy .*", ""),
    ("metrics", "", "/api/system/metrics", None, ".*requests_total .*", ""),
    ("stability", "", "/api/governance/stability", None, ".*rules .*", ""),
    ("explain report", "", "/api/governance/explain", {"command_type": "report", "command_input": {}}, "decision +ALLOW\n.*", ""),
    ('explain shell --input {"argv":["rm","-rf","/"]}', "", "/api/governance/explain",
     {"command_type": "shell", "command_input": {"argv": ["rm", "-rf", "/"]}}, "decision +BLOCK\n.*", ""),
], ids=name_of)  # fmt: skip
def test_what_each_sends_and_prints(
    box: Any, argv: str, stdin: str, path: str, sent: Any, out: str, said: str
) -> None:
    called = call(*argv.split(), "-u", box.url, stdin=stdin)
    assert called.code == 0
    assert re.fullmatch(out, called.out, re.DOTALL)
    assert re.fullmatch(said, called.err)
    request = box.requests[-1]
    assert (request.path, json.loads(request.body or "null")) == (path, sent)
    as_json = call(*argv.split(), "-j", "-u", box.url, stdin=stdin)
    assert (as_json.code, as_json.err, isinstance(as_json.json, dict)) == (0, "", True)


@pytest.mark.parametrize(
    "status, code", [("OK", 0), ("healthy", 0), ("degraded", 1), ("error", 1), ("new", 1)]
)
def test_unhealthy_is_1(status: str, code: int) -> None:
    with FaultServer(answer(ok({"status": status}))) as server:
        called = call("health", "-u", server.url, "-j")
    assert (called.code, called.json["status"]) == (code, status)
    words = "hestiaos-lite: the service reports its status as {}\n".format(status)
    assert called.err == ("" if code == 0 else words)


@pytest.mark.parametrize("stdin, value", [
    (b"s3cret", "s3cret"),
    (b"s3cret\n", "s3cret"),
    (b"two\n\n", "two\n"),
    (b"dos\r\n", "dos"),
    (b" \xc3\xa4 ", " ä "),
], ids=["bare", "line", "one-line-end-only", "crlf", "spaces-and-utf8"])  # fmt: skip
def test_a_secrets_life(box: Any, stdin: bytes, value: str) -> None:
    where = ["-u", box.url]
    assert call("secret", "set", "team/../db", *where, stdin=stdin) == Called(0, "", "stored team/../db\n")
    stored = call("secret", "set", "team/../db", "-j", *where, stdin=stdin)
    assert (stored.json, stored.err) == ({"key": "team/../db", "stored": True}, "")
    assert box.requests[-1].json["credential_ref"] == "team/../db"
    assert call("secret", "get", "team/../db", *where) == Called(0, value + "\n", "")
    assert call("secret", "get", "team/../db", "-j", *where).json == {"key": "team/../db", "value": value}
    assert call("secret", "delete", "team/../db", *where) == Called(0, "", "deleted team/../db\n")
    assert call("secret", "get", "team/../db", *where).code == 1
    assert call("secret", "set", "k", *where, stdin=stdin).code == 0
    assert call("secret", "delete", "k", "-j", *where).json == {"key": "k", "deleted": True}


def test_a_secrets_value_is_never_shown_by_a_failure(box: Any) -> None:
    box.fail_next(
        422, body={"detail": [{"loc": ["body", "secret"], "msg": "hunter2-hunter2 is bad", "type": "x"}]}
    )
    called = call("secret", "set", "k", "-u", box.url, "-vv", stdin="hunter2-hunter2")
    assert called.code == 2
    assert "hunter2" not in called.out + called.err


def test_quiet_silences_notices_and_never_errors(box: Any) -> None:
    assert call("run", "hello", "-q", "-u", box.url).err == ""
    assert call("-q", "run", "rm -rf /", "-u", box.url).err.startswith("hestiaos-lite: [GOVERNANCE_BLOCK]")


RETRY = "INFO retry GET /api/v1/health in "
ATTEMPT = ["DEBUG > GET /api/v1/health; ", "DEBUG < {}; ", "DEBUG GET /api/v1/health {} in "]


@pytest.mark.parametrize("flag, lines", [
    ("-v", [RETRY]),
    ("-vv", [line.format(503) for line in ATTEMPT] + [RETRY] + [line.format(200) for line in ATTEMPT]),
])  # fmt: skip
def test_verbose_logs_to_standard_error(box: Any, flag: str, lines: List[str]) -> None:
    box.fail_next(503, retry_after=0)
    called = call("health", flag, "-u", box.url, "-k", "very-secret-key")
    assert called.code == 0
    logged = [line.split(" ", 2)[2] for line in called.err.splitlines()]  # without the date and the time
    assert [shown[: len(line)] for shown, line in zip(logged, lines)] == lines
    assert len(logged) == len(lines)
    assert "very-secret-key" not in called.err


def test_a_key_file(box: Any, tmp_path: Any) -> None:
    path = tmp_path / "key"
    path.write_text("from-the-file\n")
    assert call("health", "--api-key-file", str(path), "-u", box.url).code == 0
    assert box.requests[-1].headers["authorization"] == "Bearer from-the-file"


def test_a_config_file_that_others_can_read_earns_one_warning(
    box: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[default]\nbase_url = {}\napi_key = k\n".format(box.url))
    path.chmod(0o644)
    monkeypatch.setenv("HESTIAOS_CONFIG", str(path))
    called = call("health")
    assert (called.code, called.err.count("hestiaos-lite: warning: others can read")) == (0, 1)
    assert len(called.err.splitlines()) == 1
    assert call("health", "-q").err == ""
    path.chmod(0o600)
    assert call("health").err == ""


def test_a_key_over_plain_http_is_a_warning_of_ours(monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    called = call("health", "-u", "http://hestia.invalid", "-k", "k", "--retries", "0")
    assert called.code == 69
    words = "hestiaos-lite: warning: the API key goes over plain http: anyone on the way can read it"
    assert called.err.splitlines()[0] == words


# fmt: off
@pytest.mark.parametrize("status, uptime, options, code, line", [
    ("ok",       "7.2",      "", 0, "OK - status ok, version 1 | time=0s;;;0 uptime=7s;;;0"),
    ("degraded", "7.2",      "", 1, "WARNING - status degraded, version 1 | time=0s;;;0 uptime=7s;;;0"),
    ("error",    "7.2",      "", 2, "CRITICAL - status error, version 1 | time=0s;;;0 uptime=7s;;;0"),
    ("odd|\\n",  "7.2",      "", 3, "UNKNOWN - status odd/ , version 1 | time=0s;;;0 uptime=7s;;;0"),
    ("ok",       "0",        "--warning 60 --critical 99", 0, "OK - status ok, version 1 | time=0s;60;99;0 uptime=0s;;;0"),
    ("ok",       "-5",       "--warning 1e-6", 1, "WARNING - status ok, version 1, answered in 0s (limit 1e-06 s) | time=0s;1e-06;;0"),
    ("ok",       "NaN",      "--warning 1e-6 --critical 2e-6", 2,
     "CRITICAL - status ok, version 1, answered in 0s (limit 2e-06 s) | time=0s;1e-06;2e-06;0"),
    ("error",    "Infinity", "--warning 1e-6", 2, "CRITICAL - status error, version 1 | time=0s;1e-06;;0"),
    ("ok",       "1" * 401,  "", 0, "OK - status ok, version 1 | time=0s;;;0"),
    ("ok",       "1e300",    "", 0, "OK - status ok, version 1 | time=0s;;;0"),
], ids=name_of)
# fmt: on
def test_nagios(status: str, uptime: str, options: str, code: int, line: str) -> None:
    """One line; an uptime that is none is left out."""
    body = '{{"status": "{}", "version": "1", "uptime_seconds": {}}}'.format(status, uptime).encode("ascii")
    with FaultServer(answer(reply(200, body))) as server:
        called = call("health", "--nagios", "-u", server.url, *options.split())
    assert (called.code, called.err) == (code, "")
    assert re.sub(r"\d+\.\d{3} ?s", "0s", called.out) == "HESTIAOS {}\n".format(line)


@pytest.mark.parametrize("options, fault, code", [
    (["-u", "http://127.0.0.1:{closed}"], None, 2),
    ([], (503, "down"), 2),
    ([], (401, ""), 3),
    ([], (200, "<html>"), 3),
    (["--timeout", "1", "--profile", "none"], (200, ""), 3),
], ids=["unreachable", "5xx", "key", "contract", "configuration"])  # fmt: skip
def test_nagios_when_there_is_no_health(box: Any, options: List[str], fault: Any, code: int) -> None:
    if fault:
        box.fail_next(fault[0], body=fault[1], times=9)
    options = [option.format(closed=closed_port()) for option in options]
    called = call("-u", box.url, "--retries", "0", "health", "--nagios", *options)
    assert called.code == code
    (took_seconds,) = re.findall(r"^HESTIAOS .* \| time=(\d+\.\d{3})s;;;0\n$", called.out)
    assert float(took_seconds) < 3600


@pytest.mark.parametrize("argv, what", [
    ("health --nagios --bogus", "unrecognized arguments: --bogus"),
    ("--bogus health --nagios", "unrecognized arguments: --bogus"),
    ("health --warning x --nagios", "argument --warning: must be a number of seconds above 0, not 'x'"),
    ("--profile= health --nagios", "argument --profile: must not be empty"),
])  # fmt: skip
def test_a_check_that_cannot_be_understood_is_unknown(argv: str, what: str) -> None:
    """Exit 2 would be CRITICAL, and standard error nobody's to read."""
    line = "HESTIAOS UNKNOWN - error: {} (see hestiaos-lite health --help)\n"
    assert call(*argv.split()) == Called(3, line.format(what), "")


def test_a_check_that_meets_a_bug_is_unknown_too(monkeypatch: Any) -> None:
    monkeypatch.setattr("hestiaos_lite.config.resolve", lambda **options: {}["missing"])
    called = call("health", "--nagios")
    assert (called.code, called.err, len(called.out.splitlines())) == (3, "", 1)
    assert called.out.startswith("HESTIAOS UNKNOWN - KeyError('missing') | time=")


@pytest.mark.parametrize("flag", ["--version", "run --version", "-j --version"], ids=str)
def test_version(flag: str) -> None:
    assert call(*flag.split()) == Called(0, "hestiaos-lite {}\n".format(__version__), "")
