"""A row of an outbox belongs to the service and the mode it was recorded for, and goes to no other."""

from __future__ import annotations

import time
from typing import Any, Dict, Iterator, List

import pytest

from hestiaos_lite import Conflict, FlushReport, InvalidInput, Outbox
from hestiaos_lite.aegis.rows import service_of
from hestiaos_lite.sandbox import Sandbox

from ..aegis.kit import Service, client_of, flushed, leave_claimed, nobody_there, queue
from ..cli_call import call

SENDER = ("--tenant", "t", "--thread", "th", "--retries", "0")


@pytest.fixture(name="other")
def _other() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


def keys_of(box: Sandbox) -> List[str]:
    return [action["idempotency_key"] for action in box.actions()]


def test_rows_of_one_service_are_not_flushed_to_another(box: Sandbox, other: Sandbox, outbox: Outbox) -> None:
    queue(outbox, "k", base_url=box.url)
    called = call("outbox", "flush", "-u", other.url, "--outbox", outbox.path)
    assert (called.code, called.out.splitlines()[-1]) == (75, "elsewhere  1")
    assert "1 queued for another service" in called.err
    assert (keys_of(box), keys_of(other)) == ([], [])
    flushed = call("outbox", "flush", "-u", box.url, "--outbox", outbox.path)
    assert (flushed.code, keys_of(box)) == (0, ["k"])


TENANT, ACCOUNT = {"tenant_id": "acme"}, {"tenant_id": None, "api_key": "s3cr3t"}
# fmt: off
APART: Dict[str, Any] = {
    "another service":             ({"base_url": "http://a"}, {"base_url": "http://b"}),
    "another prefix":              ({}, {"api_prefix": ""}),
    "a tenant's, to an account":   (TENANT, ACCOUNT),
    "an account's, to a tenant":   (ACCOUNT, TENANT),
}
# fmt: on


@pytest.mark.parametrize(("of", "to"), APART.values(), ids=APART.keys())
def test_a_row_leaves_for_its_own_service_and_mode_alone(outbox: Outbox, of: Any, to: Any) -> None:
    queue(outbox, "k", **of)
    service = Service()
    assert flushed(outbox, service, **to) == FlushReport(elsewhere=1)
    with client_of(outbox, service, **to) as client:
        assert client.approve("k").accepted  # another decision
    assert [(row.id, row.state) for row in outbox.list()] == [(1, "queued"), (2, "settled")]
    assert flushed(outbox, service, **of) == FlushReport(sent=1)
    assert service.keys == ["k", "k"]


SPELLINGS = [
    ("http://h", "HTTP://H:80/", True),
    ("https://h", "https://H:443", True),
    ("http://h/base", "http://h/base/", True),
    ("http://[::1]:8000", "http://[::1]:8000/", True),
    ("http://h", "https://h", False),
    ("http://h", "http://h:8000", False),
    ("http://h/a", "http://h/A", False),
    ("http://h:443", "https://h:443", False),
]


@pytest.mark.parametrize(("one", "two", "same"), SPELLINGS)
def test_two_spellings_of_one_url_are_one_service(one: str, two: str, same: bool) -> None:
    assert (service_of(one, "/api/v1") == service_of(two, "/api/v1")) is same


# Moving


@pytest.mark.parametrize("suffix", ["", "/", "/api/v1"])
def test_the_rows_follow_a_service_that_has_moved(
    box: Sandbox, other: Sandbox, tmp_path: Any, suffix: str
) -> None:
    options = ("--outbox", str(tmp_path / "o.db"))
    assert call("hitl", "approve", "sent", "-u", box.url, *SENDER, *options).code == 0
    box.stop()
    assert call("hitl", "approve", "k", "-u", box.url, *SENDER, *options).code == 75
    moved = call("outbox", "move", "--from", box.url + suffix, "--to", other.url + suffix, "-j", *options)
    assert (moved.code, moved.json) == (0, {"moved": 2})
    assert call("outbox", "flush", "-u", other.url, *options).code == 0
    assert keys_of(other) == ["k"]
    again = call("hitl", "approve", "sent", "-u", other.url, *SENDER, *options)
    assert again.out.split()[0] == "duplicate"  # what was settled there is known here


def test_a_url_that_only_begins_alike_is_another(outbox: Outbox) -> None:
    for n, url in enumerate(["http://h:8", "http://h:81", "http://h:8/b", "http://h/x"]):
        queue(outbox, "k{}".format(n), base_url=url)
    queue(outbox, "k", base_url="http://h:8", api_prefix="")
    assert outbox.move("http://h:8", "http://new/base") == 3
    assert [row.service for row in outbox.list()] == [
        "http://new/base/api/v1",
        "http://h:81/api/v1",
        "http://new/base/b/api/v1",
        "http://h/x/api/v1",
        "http://new/base",
    ]


def test_a_move_that_would_lose_a_decision_moves_nothing(outbox: Outbox) -> None:
    queue(outbox, "first", "k", base_url="http://old")
    with client_of(outbox, nobody_there(), base_url="http://new") as client:
        client.reject("k")
    before = outbox.list()
    with pytest.raises(
        Conflict, match="row 2 of the outbox .* cannot be moved: row 3 already has its key there"
    ):
        outbox.move("http://old", "http://new")
    assert outbox.list() == before


def test_what_is_no_url_is_refused(outbox: Outbox) -> None:
    with pytest.raises(InvalidInput, match="old_url must be a string, not int"):
        outbox.move(5, "http://new")  # type: ignore[arg-type]


def test_what_is_being_sent_does_not_move(outbox: Outbox) -> None:
    queue(outbox, "k", base_url="http://old")
    leave_claimed(outbox, 1, time.time() + 60)
    with pytest.raises(Conflict, match="row 1 of the outbox .* is being sent"):
        outbox.move("http://old", "http://new")
    assert outbox.move("http://old:81", "http://new") == 0


@pytest.mark.parametrize("url", ["ftp://h", "h", "http://user:password@h", "http://h?x"])
def test_a_url_that_is_none_is_refused(outbox: Outbox, url: str) -> None:
    for options in (("--from", url, "--to", "http://h"), ("--from", "http://h", "--to", url)):
        assert call("outbox", "move", "--outbox", outbox.path, *options).code == 78
