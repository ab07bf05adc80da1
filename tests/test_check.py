"""_check.py: what cannot be sent is refused before anything is, in one wording for each kind."""

from __future__ import annotations

import pathlib
import re
from typing import Any, Callable, List

import pytest
import requests

from hestiaos_lite import AegisClient, Client, HestiaError, InvalidInput, Outbox, run_batch

from .faultserver import TLS_AUTHORITY, FaultServer, answer, ok

IMPURE = "the header X is empty, begins or ends with white space, or holds a control character"
BAD_HEADERS: List[Any] = [
    ({"": "a"}, "'' cannot be the name of a header"),
    ({"X Y": "a"}, "'X Y' cannot be the name of a header"),
    ({"X:": "a"}, "'X:' cannot be the name of a header"),
    ({"X\r\nY": "a"}, "'X\\r\\nY' cannot be the name of a header"),
    ({"X\n": "a"}, "'X\\n' cannot be the name of a header"),
    ({"ü": "a"}, "'ü' cannot be the name of a header"),
    ({5: "a"}, "5 cannot be the name of a header"),
    ({"X": 5}, "the header X must be a string, not int"),
    ({"X": "世"}, "the header X holds a character beyond latin-1"),
    *(({"X": value}, IMPURE) for value in ("", " ", " a", "a ", "a\r\nY: b", "a\x00", "a\x7f")),
]


def test_a_header_that_can_be_sent_is_sent_as_it_is() -> None:
    headers = {"X-A!#$%&'*+.^_`|~9": "a\tb ü"}
    with FaultServer(answer(ok({"status": "ok"}))) as server, Client(server.url, headers=headers) as client:
        client.health()
    assert server.requests[0].headers["x-a!#$%&'*+.^_`|~9"] == "a\tb ü"


def test_a_bundle_may_be_a_path() -> None:
    with FaultServer(answer(ok({"status": "ok"})), tls=True) as server:
        with Client(server.url, verify=pathlib.Path(TLS_AUTHORITY)) as client:
            assert client.health().ok


def test_a_header_that_cannot_be_sent_is_named() -> None:
    for headers, message in BAD_HEADERS:
        assert refusal_of(Client, "http://127.0.0.1:1", headers=headers).message == message


def refusal_of(call: Callable[..., Any], *given: Any, **settings: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        call(*given, **settings)
    return caught.value


@pytest.mark.parametrize("verify", [0, 1, 0.0, "", b"", b"/ca.pem", [], (), {}, object], ids=repr)
@pytest.mark.parametrize("client", [Client, AegisClient])
def test_nothing_but_false_switches_the_certificate_check_off(
    client: Callable[..., Any], verify: Any
) -> None:
    with pytest.raises(InvalidInput, match="verify must be True, False or the path of a CA bundle") as caught:
        client("https://127.0.0.1:1", verify=verify)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    "prefix", ["/../admin", "/a?b", "/a#b", "a/./b", "/a b", "/ü", "/a\n", "/%2e%2e", "/a%2fb"]
)
def test_a_prefix_cannot_lead_elsewhere(prefix: str) -> None:
    with pytest.raises(InvalidInput, match="is not a plain path such as /api/v1"):
        AegisClient("http://127.0.0.1:1", api_prefix=prefix)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None, "8"], ids=repr)
@pytest.mark.parametrize("client", [Client, AegisClient])
def test_a_limit_of_bytes_is_a_whole_number_above_0(client: Callable[..., Any], limit: Any) -> None:
    with pytest.raises(InvalidInput, match="max_body_bytes must be a whole number, 1 or more"):
        client("http://127.0.0.1:1", max_body_bytes=limit)


@pytest.mark.parametrize("session", [5, "x", requests.Session, {}])
@pytest.mark.parametrize("client", [Client, AegisClient])
def test_what_is_no_session_is_refused_at_once(client: Callable[..., Any], session: Any) -> None:
    with pytest.raises(InvalidInput, match="session must be a requests.Session, not of the type"):
        client("http://127.0.0.1:1", session=session)


@pytest.mark.parametrize("headers", [5, "X-Team: blue", [("X-Team", "blue")]], ids=repr)
def test_what_is_no_mapping_of_headers_is_refused(headers: Any) -> None:
    with pytest.raises(InvalidInput, match="headers must be a mapping, not"):
        Client("http://127.0.0.1:1", headers=headers)


@pytest.mark.parametrize("client", [Client, AegisClient])
def test_a_client_that_could_not_be_made_can_be_shown(client: Any) -> None:
    """By a debugger, or a traceback that shows variables."""
    assert repr(client.__new__(client)) == "<{} of no service>".format(client.__name__)


NESTED: List[Any] = []
for _ in range(100000):
    NESTED = [NESTED]
TOO_LONG = "x" * 1000


@pytest.mark.parametrize(
    "call",
    [
        lambda value: Client("http://127.0.0.1:1", timeout=value),
        lambda value: Client("http://127.0.0.1:1", retries=value),
        lambda value: Client("http://127.0.0.1:1", verify=[value]),
        lambda value: Client("http://127.0.0.1:1").run("x", timeout_ms=value),
        lambda value: AegisClient("http://127.0.0.1:1", tenant_id="t", thread_id="t").execute(value, "k"),
        lambda value: Outbox([value]),
        lambda value: run_batch(Client, [], call=value),
        lambda value: run_batch(Client, [], rate=value),
    ],
    ids=range(8),
)
def test_a_value_that_python_does_not_print_is_refused_as_any_other(call: Callable[[Any], Any]) -> None:
    """A whole number of more than 4,300 digits since Python 3.11; a list nested deeper than the stack."""
    for value in (-(10**5000), NESTED, [TOO_LONG]):
        with pytest.raises((HestiaError, ValueError)) as caught:
            call(value)
        assert re.search(r"cannot be shown|xxx\.\.\.", str(caught.value))
        assert len(str(caught.value)) < 700
