"""doctor: each fault it looks for, brought about."""

from __future__ import annotations

import json
import os
import platform
import ssl
import sys
import time
from email.utils import formatdate
from typing import Any, Dict, List
from unittest import mock

import pytest
import requests
import urllib3

import hestiaos_lite

from ..cli_call import ROOT, call, run
from ..faultserver import FaultServer, answer, chunked, closed_port, hang, head, ok, reply

HEALTHY = {"status": "ok"}


def findings(*argv: str, **variables: str) -> Dict[str, List[Any]]:
    """Run it with these variables set, and give its findings by check: level, text and cure."""
    with mock.patch.dict(os.environ, variables):
        called = call("doctor", "-j", *argv)
    found: Dict[str, List[Any]] = {}
    for finding in called.json["findings"]:
        found.setdefault(finding["check"], []).append((finding["level"], finding["text"], finding["cure"]))
    problems = [finding for finding in called.json["findings"] if finding["level"] == "problem"]
    assert (called.code, called.json["ok"]) == ((1, False) if problems else (0, True))
    return found


def aegis(box: Any, *argv: str, **variables: str) -> List[Any]:
    """Its findings of AEGIS, where HestiaOS is well."""
    found: List[Any] = findings("-u", box.url, "--no-stream", *argv, **variables)["aegis"]
    return found


@pytest.fixture
def ini(tmp_path: Any, monkeypatch: Any) -> Any:
    """Write the configuration file, and give its path."""

    def write(text: str, mode: int = 0o600) -> Any:
        path = tmp_path / "of {me}.ini"  # braces are a path's own
        path.write_text(text)
        path.chmod(mode)
        monkeypatch.setenv("HESTIAOS_CONFIG", str(path))
        return path

    return write


def test_nothing_to_find(box: Any) -> None:
    box.token_delay_seconds = 0.15
    called = call("doctor", "-u", box.url)
    assert (called.code, called.err) == (0, "")
    lines = [line.split(None, 2) for line in called.out.splitlines()]
    checks = ["packages", "tls", "hestiaos", "service", "clock", "stream", "aegis"]
    assert [(level, check) for level, check, _ in lines] == [("ok", check) for check in checks]
    versions = "hestiaos-lite {}, Python {}, requests {}, urllib3 "
    assert lines[0][2].startswith(
        versions.format(hestiaos_lite.__version__, platform.python_version(), requests.__version__)
    )
    assert lines[-2][2].startswith("arrives live")
    assert lines[-1][2] == "not set up: no setting names it"
    assert [request.json["input"] for request in box.requests if request.method == "POST"] == ["hello"]


def test_nothing_is_run_where_that_is_asked_for_or_the_service_is_not_healthy(box: Any) -> None:
    assert "stream" not in findings("-u", box.url, "--no-stream")
    box.fail_next(200, body={"status": "degraded"})
    assert findings("-u", box.url)["service"][0][0] == "problem"
    assert [request.method for request in box.requests] == ["GET"] * 2


def test_each_service_of_the_profile_is_asked_once(box: Any, ini: Any) -> None:
    """Unless --retries says otherwise: somebody waits for the finding."""
    box.fail_next(503, times=9)
    ini("[work]\nbase_url = {0}\naegis_base_url = {0}\n".format(box.url))
    found = findings("--profile", "work")
    assert (found["service"][0][0], found["aegis"][-1][0]) == ("problem", "problem")
    assert [request.path.rpartition("/")[0] for request in box.requests] == ["/api/v1", "/api/v1/hitl/status"]


def test_a_service_that_is_not_there(ini: Any) -> None:
    """The cure names what named it."""
    url = "http://127.0.0.1:{}".format(closed_port())
    path = ini("[default]\nbase_url = {0}\naegis_base_url = {0}\n".format(url))

    def named(*argv: str, **variables: str) -> List[str]:
        found = findings(*argv, **variables)
        last = found["service"] + found["aegis"][-1:]
        assert all(level == "problem" and "refused" in text for level, text, _ in last)
        return [cure[len("check that the service runs and that ") : -len(" names it")] for _, _, cure in last]

    of_file = "{} in [default] of {}".format
    assert named() == [of_file("base_url", path), of_file("aegis_base_url", path)]
    assert named("-u", url)[0] == "--base-url"
    variables = ["HESTIAOS_BASE_URL", "AEGIS_BASE_URL"]
    assert named(**dict.fromkeys(variables, url)) == variables


def test_a_key_or_a_base_url_that_is_wrong(box: Any) -> None:
    with FaultServer(answer(reply(308, headers={"Location": "https://elsewhere.invalid/api"}))) as server:
        level, text, cure = findings("-u", server.url)["redirect"][0]
    assert (level, cure) == ("problem", "set the base URL to where it is")
    assert "https://elsewhere.invalid/api" in text
    assert findings("-u", box.url + "/api/v1")["service"][0][2] == "leave /api/v1 out of the base URL"
    box.fail_next(401)
    assert findings("-u", box.url)["service"][0][2] == "set HESTIAOS_API_KEY to a key of this service"


@pytest.mark.parametrize("date, level, text", [
    (lambda: formatdate(time.time() - 300, usegmt=True), "problem", "ahead of the service's"),
    (lambda: formatdate(time.time() + 300, usegmt=True), "problem", "behind the service's"),
    (lambda: formatdate(time.time(), usegmt=True), "ok", "agrees"),
    (lambda: "yesterday", "note", "no readable Date"),
], ids=["ahead", "behind", "right", "unreadable"])  # fmt: skip
def test_the_clock(date: Any, level: str, text: str) -> None:
    with FaultServer(answer(ok(HEALTHY, {"Date": date()}))) as server:
        found = findings("-u", server.url, "--no-stream")["clock"][0]
    assert (found[0], text in found[1]) == (level, True)


def events(stamps: List[str]) -> bytes:
    kinds = ["start"] + ["token"] * (len(stamps) - 2) + ["done"]
    rows = [{"type": kind, "data": {"text": "x"}, "timestamp": stamp} for kind, stamp in zip(kinds, stamps)]
    return b"".join(b"data: " + json.dumps(row).encode("utf-8") + b"\n\n" for row in rows)


SLOW = ["2026-11-21T10:00:0{}.500Z".format(second) for second in range(5)]
EVENT_STREAM = {"Content-Type": "text/event-stream"}


@pytest.mark.parametrize("stream", [
    head(200, dict(EVENT_STREAM, **{"Transfer-Encoding": "chunked"})) + chunked([events(SLOW)]),
    reply(200, events(["", "", ""]), EVENT_STREAM),
], ids=["sent-over-seconds-came-at-once", "content-length"])  # fmt: skip
def test_a_stream_that_is_held_back(stream: bytes) -> None:
    with FaultServer(answer(ok(HEALTHY), stream)) as server:
        level, text, cure = findings("-u", server.url)["stream"][0]
    assert level == "problem"
    assert "holds it back" in text
    assert "proxy_buffering off" in cure


def test_a_stream_without_timestamps_that_comes_late_and_in_one_piece_is_a_note() -> None:
    def script(wire: Any) -> None:
        wire.request()
        wire.send(ok(HEALTHY))
        wire.request()
        wire.pause(1.1)
        stream = chunked([events([""] * 5)])
        wire.send(head(200, dict(EVENT_STREAM, **{"Transfer-Encoding": "chunked"})) + stream)

    with FaultServer(script) as server:
        level, text, cure = findings("-u", server.url)["stream"][0]
    assert (level, text.partition(" after ")[0]) == ("note", "5 events came at once")
    assert "proxy_buffering off" in cure


@pytest.mark.parametrize(
    "stamp", [".\u00b2", "\u0661" * 19, "", "2026-11-21T10:00:00." + "9" * 400, "9" * 50]
)
def test_an_odd_timestamp_is_survived(stamp: str) -> None:
    for stamps in ([stamp] * 3, [SLOW[0], SLOW[0] + stamp, SLOW[0][:19] + stamp]):
        stream = head(200, dict(EVENT_STREAM, **{"Transfer-Encoding": "chunked"})) + chunked([events(stamps)])
        with FaultServer(answer(ok(HEALTHY), stream)) as server:
            assert "arrives" in findings("-u", server.url)["stream"][0][1]


def test_a_stream_that_breaks(box: Any) -> None:
    box.drop_next_stream(after_events=2)
    assert findings("-u", box.url)["stream"][0][0] == "problem"


def test_files_that_others_can_read(box: Any, tmp_path: Any, ini: Any) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o644)
    text = "[default]\napi_key_file = {}\naegis_api_key = k\n".format(key)
    path = ini(text, 0o644)
    assert findings("-u", box.url, "--no-stream")["file"] == [
        ("problem", "others can read {}, which holds an API key".format(path), "chmod 600 {}".format(path)),
        ("problem", "others can read the API key file {}".format(key), "chmod 600 {}".format(key)),
    ]
    key.chmod(0o600)
    ini(text)
    assert "file" not in findings("-u", box.url, "--no-stream")


# fmt: off
@pytest.mark.parametrize("argv, variables, text, mode, words, cure", [
    ([], {}, "[prod]\nbase_url = http://h\n", 0o600,
     "the configuration file {} has no section [default], only [prod]", "call it that, or name a profile"),
    ([], {}, "[default]\nbase_url = http://h\n", 0o666,
     "base_url would be read from it, but others may write to the configuration file {}", "check what it holds, then chmod go-w {}"),
    (["--api-key-file", "/nonexistent"], {}, "", 0o600,
     "the API key file /nonexistent cannot be read: No such file or directory", ""),
    ([], {"HESTIAOS_TIMEOUT": "soon"}, "", 0o600,
     "the timeout must be a number of seconds above 0, not 'soon' (HESTIAOS_TIMEOUT)", ""),
])
# fmt: on
def test_a_setting_that_commands_refuse(
    ini: Any, argv: List[str], variables: Any, text: str, mode: int, words: str, cure: str
) -> None:
    path = ini(text, mode)
    found = findings(*argv, **variables)
    assert found["hestiaos"] == [("problem", words.format(path), cure.format(path))]
    assert "service" not in found
    with mock.patch.dict(os.environ, variables):
        assert call("health", *argv).code == 78


def test_what_commands_warn_of(box: Any, ini: Any) -> None:
    path = ini("[work]\nbase_url = {}\ntimout = 3\n".format(box.url))
    unknown = "'timout' in [work] of {} is not a setting; did you mean timeout?".format(path)
    unread = "the configuration file {} has no section [default], only [work]".format(path)
    for argv, text, cure in (
        (("--profile", "work"), unknown, ""),
        (("-u", box.url), unread, "call it that, or name a profile"),
    ):
        assert findings(*argv, "--no-stream")["file"] == [("problem", text, cure)]
        line = "hestiaos-lite: warning: {}\n".format(text + "; cure: " * bool(cure) + cure)
        called = call("health", *argv)
        assert (called.code, called.err) == (0, line)


def test_where_each_setting_came_from(box: Any, tmp_path: Any, ini: Any) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o600)
    path = ini("[default]\ntimeout = 3\naegis_tenant_id = acme\n")
    found = findings(
        "-u", box.url, "--no-stream", HESTIAOS_API_KEY_FILE=str(key), AEGIS_BASE_URL=box.url
    )
    text = "{} (argument), API key (HESTIAOS_API_KEY_FILE), timeout 3 s (timeout in [default] of {})"
    assert found["hestiaos"] == [("ok", text.format(box.url, path), "")]
    text = "{} (AEGIS_BASE_URL), no API key (default), timeout 10 s (default), tenant acme (aegis_tenant_id in [default] of {})"
    assert found["aegis"][0] == ("ok", text.format(box.url, path), "")


# -- AEGIS


@pytest.mark.parametrize(("variables", "notes"), [
    ({}, ["set AEGIS_TENANT_ID", "set AEGIS_THREAD_ID"]),
    ({"AEGIS_API_KEY": "k"}, ["set AEGIS_THREAD_ID"]),
    ({"AEGIS_TENANT_ID": "t", "AEGIS_THREAD_ID": "th"}, []),
], ids=["nothing", "hosted", "both"])  # fmt: skip
def test_aegis_is_asked_for_a_request_that_it_cannot_know(
    box: Any, variables: Dict[str, str], notes: List[str]
) -> None:
    """A tenant or thread that is not set is a note."""
    found = aegis(box, AEGIS_BASE_URL=box.url, **variables)
    cures = [("ok", "")] + [("note", note) for note in notes] + [("ok", "")]
    assert [(level, cure) for level, _, cure in found] == cures
    assert found[-1][1].startswith("{} answers in ".format(box.url))
    request = box.requests[-1]
    assert (request.method, request.path.rpartition("/")[0]) == ("GET", "/api/v1/hitl/status")
    assert box.actions() == []


WELL, MISLED = "check that AEGIS_BASE_URL names the service, and the service itself", "check that AEGIS_BASE_URL names the service"


# fmt: off
@pytest.mark.parametrize("status, body, level, text, cure", [
    (401, b"<html>no</html>",            "problem", "",                                         "set AEGIS_API_KEY to a key of this service"),
    (400, b"{}",                         "problem", "",                                         WELL),
    (500, b"<html>no</html>",            "problem", "",                                         WELL),
    (200, b"<html>no</html>",            "problem", "",                                         WELL),
    (404, b'{"detail": "Not Found"}',    "note",    ", but any web server might answer with its 404",   MISLED),
    (404, b"",                           "note",    ", but any web server might answer with its 404",   MISLED),
    (404, b"<html><title>404 nginx</title>", "problem", "404 nginx",                            MISLED),
])
# fmt: on
def test_an_aegis_that_is_not_well(
    box: Any, status: int, body: bytes, level: str, text: str, cure: str
) -> None:
    with FaultServer(answer(reply(status, body))) as server:
        found = aegis(box, AEGIS_BASE_URL=server.url)[-1]
    assert (found[0], found[2], found[1].endswith(text)) == (level, cure, True)


def test_an_aegis_that_knows_what_was_never_made(box: Any) -> None:
    def script(wire: Any) -> None:
        request_id = wire.request().target.rpartition("/")[2]
        wire.send(ok({"request_id": request_id, "status": "COMMITTED"}))

    with FaultServer(script) as server:
        found = aegis(box, AEGIS_BASE_URL=server.url)[-1]
    assert found == ("problem", "{} knows a request that was never made".format(server.url), MISLED)


def test_the_timeout_holds_for_both_services(box: Any) -> None:
    with FaultServer(hang) as server:
        found = aegis(box, "--timeout", "0.5", AEGIS_BASE_URL=server.url)
    assert "timeout 0.5 s (argument)" in found[0][1]
    assert found[-1][0::2] == ("problem", "check the network in between; --timeout allows more time")
    assert aegis(box, "--timeout", "5") == [("ok", "not set up: no setting names it", "")]


# -- the way to a service


def test_a_netrc_entry(box: Any, tmp_path: Any) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    text = "~/.netrc has an entry for 127.0.0.1, which this library never sends"
    assert findings("-u", box.url, HOME=str(tmp_path), AEGIS_BASE_URL=box.url)["netrc"] == [
        ("note", text, "if it is meant for this service, set {}_API_KEY".format(service))
        for service in ("HESTIAOS", "AEGIS")
    ]
    assert not any("authorization" in request.headers for request in box.requests)


def test_variables_of_the_network(box: Any) -> None:
    proxy = "http://user:secret@proxy.invalid:3128"
    variables = {"REQUESTS_CA_BUNDLE": "/nonexistent.pem", "SSL_CERT_FILE": "/some.pem", "SSL_CERT_DIR": ""}
    found = findings("-u", "https://hestia.invalid", "--timeout", "2", HTTPS_PROXY=proxy, **variables)
    missing = "REQUESTS_CA_BUNDLE names /nonexistent.pem, which does not exist"
    assert found["certificates"] == [
        ("problem", missing, "name an existing file, or unset REQUESTS_CA_BUNDLE"),
        ("note", "SSL_CERT_FILE has no effect on requests", "use REQUESTS_CA_BUNDLE"),
    ]
    text = "the environment sends requests for hestia.invalid through http://proxy.invalid:3128"
    assert found["proxy"] == [("note", text, "NO_PROXY=hestia.invalid goes past it")]
    found = findings("-u", box.url, HTTP_PROXY=proxy)
    assert found["proxy"] == [("ok", "127.0.0.1 is this machine: the environment's proxy is not used", "")]
    assert found["service"][0][0] == "ok"


def test_a_key_over_plain_http() -> None:
    found = findings("-u", "http://hestia.invalid", "-k", "k", "--timeout", "2")
    assert [level for level, _, _ in found["key"]] == ["note", "problem"]


def test_a_package_that_is_missing(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    assert findings()["packages"][0][0::2] == ("problem", "pip install requests sseclient-py")


def test_the_wrong_sseclient(tmp_path: Any) -> None:
    (tmp_path / "sseclient.py").write_text("class SSEClient:\n    pass\n")
    path = os.pathsep.join([str(tmp_path), ROOT])
    called = run("doctor", "-j", PYTHONPATH=path)
    assert called.code == 1
    finding = called.json["findings"][0]
    assert (finding["check"], finding["level"]) == ("packages", "problem")
    assert finding["cure"].startswith("pip uninstall")
    stream = run("run", "--stream", "x", PYTHONPATH=path)  # the only call that needs it
    assert stream.code == 78
    assert "sseclient-py" in stream.err


OLD = "urllib3 {} has known vulnerabilities that a hostile service can exploit"
UPGRADE = "pip install 'urllib3>=1.26.5'"


# fmt: off
@pytest.mark.parametrize(("module", "versions", "problems"), [
    (urllib3, {"__version__": "1.26.4"},   [("problem", OLD.format("1.26.4"), UPGRADE)]),
    (urllib3, {"__version__": "1.9.dev1"}, [("problem", OLD.format("1.9.dev1"), UPGRADE)]),
    (urllib3, {"__version__": "1.26.5"},   []),
    (ssl, {"OPENSSL_VERSION_INFO": (1, 0, 2, 11, 15), "OPENSSL_VERSION": "OpenSSL 1.0.2k"},
     [("problem", "OpenSSL 1.0.2k is old, and has no TLS 1.3", "use a Python that is built with OpenSSL 1.1.1 or later")]),
    (ssl, {"OPENSSL_VERSION_INFO": (1, 1, 1, 0, 15), "OPENSSL_VERSION": "OpenSSL 1.1.1"}, []),
], ids=["urllib3", "a strange version", "the oldest urllib3", "OpenSSL", "the oldest OpenSSL"])
# fmt: on
def test_an_old_dependency(
    box: Any, monkeypatch: Any, module: Any, versions: Dict[str, Any], problems: List[Any]
) -> None:
    """Only its version is another: an old OpenSSL cannot be installed here."""
    for name, version in versions.items():
        monkeypatch.setattr(module, name, version)
    found = findings("--no-stream", "-u", box.url)
    assert [finding for rows in found.values() for finding in rows if finding[0] == "problem"] == problems
    assert found["service"][0][0] == "ok"
