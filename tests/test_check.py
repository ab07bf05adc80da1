"""_check.py: what cannot be sent is refused before anything is, in one wording for each kind."""

from __future__ import annotations

import pathlib
from typing import Any, Callable, List

import pytest

from hestiaos_lite import AegisClient, Client, InvalidInput
from hestiaos_lite._check import (
    check_headers,
    check_optional_mapping,
    check_optional_text,
    check_seconds,
    check_segment,
    check_text,
    check_verify,
    check_whole_number,
)

GOOD = [
    (check_text, ("x", ""), ""),
    (check_text, ("x", "ä"), "ä"),
    (check_optional_text, ("x", None), None),
    (check_optional_text, ("x", "a"), "a"),
    (check_optional_mapping, ("x", None), None),
    (check_optional_mapping, ("x", {"a": 1}), {"a": 1}),
    (check_segment, ("x", "team/../admin"), "team%2F..%2Fadmin"),
    (check_segment, ("x", "ä b?#"), "%C3%A4%20b%3F%23"),
    (check_whole_number, ("x", 0), 0),
    (check_seconds, ("x", 5), 5.0),
    (check_verify, (None,), None),
    (check_verify, (True,), True),
    (check_verify, (False,), False),
    (check_verify, ("/ca.pem",), "/ca.pem"),
    (check_verify, (pathlib.PurePosixPath("/ca.pem"),), "/ca.pem"),
    (check_headers, ({},), {}),
    (check_headers, ({"X-A!#$%&'*+.^_`|~9": "a\tb ü"},), {"X-A!#$%&'*+.^_`|~9": "a\tb ü"}),
]
BAD = [
    (check_text, ("x", 5), "x must be a string, not int"),
    (check_optional_text, ("x", b"a"), "x must be a string, not bytes"),
    (check_segment, ("x", ""), "x must not be empty"),
    (check_segment, ("x", "\ud800"), "x is not valid text (it has a lone surrogate)"),
    (check_optional_mapping, ("x", [1]), "x must be a mapping, not list"),
    (check_segment, ("x", ".."), "x must not be '..': it cannot be a path segment"),
    (check_whole_number, ("x", True), "x must be a whole number, 0 or more, not True"),
    (check_whole_number, ("x", 1.0), "x must be a whole number, 0 or more, not 1.0"),
    (check_whole_number, ("x", -1), "x must be a whole number, 0 or more, not -1"),
    (check_seconds, ("x", 0), "x must be a number of seconds above 0, not 0"),
    (check_seconds, ("x", float("inf")), "x must be a number of seconds below 1e+08, not inf"),
]
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


def test_what_is_good_is_returned_ready_for_use() -> None:
    assert [check(*given) for check, given, _ in GOOD] == [returned for _, _, returned in GOOD]


def test_what_is_not_is_named() -> None:
    for check, given, message in BAD:
        error = refusal_of(check, *given)
        assert (error.message, error.delivered, error.exit_code) == (message, False, 2)


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


@pytest.mark.parametrize("client", [Client, AegisClient])
def test_a_client_that_could_not_be_made_can_be_shown(client: Any) -> None:
    """By a debugger, or a traceback that shows variables."""
    assert repr(client.__new__(client)) == "<{} of no service>".format(client.__name__)
