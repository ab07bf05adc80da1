"""A sandbox without a key serves the programs of its machine: no web page, and no other user who reads its file."""

from __future__ import annotations

import http.client
import os
import stat
from typing import Any, Dict

import pytest

from hestiaos_lite.sandbox import Sandbox
from hestiaos_lite.sandbox.policy import load_policy

from ..sandbox_call import Answer, call

CANARY = "s3cret-canary"


@pytest.fixture
def secretive(box: Any) -> Any:
    """A sandbox with a secret in it."""
    stored = call(box, "POST", "/api/secrets", {"credential_ref": "db", "secret": CANARY})
    assert stored.status == 200
    return box


def read_secret(box: Any, headers: Dict[str, str]) -> Answer:
    return call(box, "GET", "/api/secrets/db", headers=headers)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:{port}",
        "app.localhost",
        "127.0.0.1:{port}",
        "127.8.9.10",
        "[::1]:{port}",
    ],
)
def test_a_loopback_host_is_answered(secretive: Any, host: str) -> None:
    assert read_secret(secretive, {"Host": host.format(port=secretive.port)}).body == {"value": CANARY}


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "attacker.example:{port}",
        "127.0.0.1.attacker.example",
        "localhost.attacker.example",
        "attacker-localhost",
        "localhost@attacker.example",
        "192.0.2.1",
        "0.0.0.0",
        "[::2]",
        "[::1",
        "",
    ],
)
def test_a_name_that_a_page_lets_point_here_is_not(secretive: Any, host: str) -> None:
    answer = read_secret(secretive, {"Host": host.format(port=secretive.port)})
    assert (answer.status, answer.body["code"]) == (421, "FOREIGN_HOST")
    assert CANARY not in str(answer)


def test_every_host_field_counts(secretive: Any) -> None:
    connection = http.client.HTTPConnection(secretive.host, secretive.port, timeout=10)
    connection.putrequest("GET", "/api/secrets/db")  # with a Host of its own
    connection.putheader("Host", "attacker.example")
    connection.endheaders()
    assert connection.getresponse().status == 421
    connection.close()


@pytest.mark.parametrize("host", ["127.1.2.3", "127.1"])
def test_the_host_it_is_bound_to_is_answered(host: str) -> None:
    with Sandbox(host=host) as box:
        assert call(box, "GET", "/api/v1/health").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_a_page_of_this_machine_is_answered(secretive: Any, headers: Dict[str, str]) -> None:
    assert read_secret(secretive, headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.attacker.example"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_a_page_of_another_site_is_not(box: Any, headers: Dict[str, str]) -> None:
    answer = call(box, "POST", "/api/secrets", {"credential_ref": "k", "secret": "planted"}, headers)
    assert (answer.status, answer.body["code"]) == (403, "FOREIGN_ORIGIN")
    assert call(box, "GET", "/api/secrets/k").status == 404


def test_neither_uses_up_a_scripted_fault(box: Any) -> None:
    box.fail_next(503, body=CANARY)
    assert CANARY not in str(read_secret(box, {"Host": "attacker.example"}))
    assert read_secret(box, {}).status == 503


def test_with_a_key_any_host_may_be_named() -> None:
    with Sandbox(api_key="K") as box:
        headers = {"Host": "build.example", "Origin": "https://build.example", "Authorization": "Bearer K"}
        assert call(box, "GET", "/api/v1/health", headers=headers).status == 200


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "multipart/form-data"])
@pytest.mark.parametrize("path", ["/api/secrets", "/api/v1/hitl/approve"])
def test_a_body_that_does_not_say_it_is_json_is_a_422(box: Any, path: str, content_type: Any) -> None:
    headers = {"Tenant-Id": "t", "Thread-Id": "t", "Idempotency-Key": "k"}
    if content_type is not None:
        headers["Content-Type"] = content_type
    body = b'{"credential_ref": "k", "secret": "planted"}'
    assert call(box, "POST", path, body, headers).status == 422
    assert (call(box, "GET", "/api/secrets/k").status, box.actions()) == (404, [])


# -- the file


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_the_file_and_what_goes_with_it_are_the_owners_alone(tmp_path: Any) -> None:
    umask = os.umask(0)
    try:
        with Sandbox(db=tmp_path / "sandbox.db") as box:
            call(box, "POST", "/api/secrets", {"credential_ref": "db", "secret": CANARY})
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {"sandbox.db": 0o600, "sandbox.db-wal": 0o600, "sandbox.db-shm": 0o600}


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
@pytest.mark.parametrize("there", [True, False], ids=["a file of the victim", "nothing yet"])
def test_a_link_that_somebody_planted_is_not_followed(tmp_path: Any, there: bool) -> None:
    target = tmp_path / "target"
    if there:
        target.write_bytes(b"")
    (tmp_path / "sandbox.db").symlink_to(target)
    with pytest.raises(ValueError, match="sandbox.db: it is a symbolic link"):
        Sandbox(db=tmp_path / "sandbox.db").start()
    assert (target.read_bytes() == b"") if there else not target.exists()


# -- a policy


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)*$",
        "a*",
        "a+",
        "a{2,}",
        "a{,}",
        "(ab){2}",
        "(?:.{0,9}){9}",
        ".{0,400}.{0,400}",
        "[]*]*",
        r"\\*",
    ],
)
def test_a_pattern_that_may_take_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="policy: rule 1: pattern repeats"):
        load_policy([{"pattern": pattern, "decision": "ALLOW"}])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("x 17", "rule-1"),
        ("17 word", "rule-2"),
        ("WORD 1", "rule-3"),
        ("first\nlast", "rule-4"),
        ("2 * 3", "rule-5"),
        ("[]*+{", "rule-6"),
        ("no", "default-allow"),
    ],
)
def test_the_first_pattern_that_is_found_decides(text: str, rule: str) -> None:
    patterns = ["x [0-9]{1,8}", r"[0-9]{2}", "word", "^la.?t", r"\d \*", "[]][*][+][{]"]
    policy = load_policy([{"pattern": pattern, "decision": "BLOCK"} for pattern in patterns])
    assert policy.judge(text).policy == rule
