"""What is the caller's fault costs no decision: the row stays queued, the flush ends and says so; dead rows are reported."""

from __future__ import annotations

from typing import Any

import pytest

from hestiaos_lite import AegisClient, HestiaError, Outbox
from hestiaos_lite.sandbox import Sandbox

from ..aegis.kit import queue
from ..cli_call import call
from ..faultserver import FaultServer, answer, reply

# What a service answers to every row -> the flush's exit code, what becomes of the rows, and what is said.
# fmt: off
STAYS = ("queued", "it stays queued in the outbox ")  # about the credentials, the address or a setting: all would fail alike
DIES = ("dead", "outbox requeue --all --outbox ")     # about this decision alone
LATER = ("queued", "")                                # about the moment
FLUSHES = {
    **dict.fromkeys((401, 403, 407), (77, *STAYS)),
    **dict.fromkeys((301, 302, 303, 304, 307, 308, 404, 405, 421, 426), (78, *STAYS)),
    **dict.fromkeys((400, 410, 413, 415, 422, 451), (1, *DIES)),
    **dict.fromkeys((408, 425, 429, 500, 501, 502, 503, 504, 520), (75, *LATER)),
}
# fmt: on

SENDER = ("--tenant", "acme", "--thread", "T", "--retries", "0")


def answering(status: int) -> FaultServer:
    body = b'{"detail": "no"}' if status >= 400 else b""
    headers = {"Location": "http://127.0.0.1:1/"} if status < 400 else None
    return FaultServer(answer(reply(status, body, headers)))


@pytest.mark.parametrize(("status", "expected"), FLUSHES.items())
def test_whose_fault_it_is_decides_what_becomes_of_the_rows(
    outbox: Outbox, status: int, expected: Any
) -> None:
    code, state, said = expected
    with answering(status) as server:
        for n in range(2):
            queue(outbox, "k{}".format(n), thread_id="T{}".format(n), base_url=server.url)
        called = call("outbox", "flush", "-u", server.url, "--outbox", outbox.path, "-q", "--retries", "0")
        assert (called.code, said in called.err, bool(called.err)) == (code, True, bool(said))
        assert [row.state for row in outbox.list()] == [state] * 2
        is_callers = said.startswith("it stays")
        assert len(server.requests) == (1 if is_callers else 2)
        assert outbox.get(1).status_code == status
        if is_callers:
            options = ("-u", server.url, *SENDER, "--outbox", outbox.path)
            approved = call("hitl", "approve", "new", *options)
            assert (approved.code, approved.out, outbox.counts()["queued"]) == (code, "", 3)


def test_once_it_is_put_right_all_go_out(box: Sandbox, outbox: Outbox) -> None:
    with AegisClient(box.url, tenant_id="acme", thread_id="T", outbox=outbox, max_retries=0) as client:
        box.fail_next(401, times=2)
        for _ in range(2):
            with pytest.raises(HestiaError) as caught:
                client.approve("k")
            assert (caught.value.status, caught.value.exit_code) == (401, 77)
        assert client.approve("k").accepted
    assert len(box.actions()) == 1


def test_a_setting_at_fault_ends_it_too(outbox: Outbox) -> None:
    queue(outbox, "k", base_url="https://127.0.0.1:1")
    options = {"tenant_id": "acme", "outbox": outbox, "verify": "/no/such/file"}
    with AegisClient("https://127.0.0.1:1", **options) as client, pytest.raises(HestiaError) as caught:
        client.flush()
    assert (caught.value.exit_code, outbox.get(1).state) == (78, "queued")


def test_an_older_row_of_the_thread_ends_a_call_alike(box: Sandbox, outbox: Outbox) -> None:
    queue(outbox, "older", base_url=box.url)
    box.fail_next(403)
    with AegisClient(box.url, tenant_id="acme", thread_id="T", outbox=outbox) as client:
        with pytest.raises(HestiaError) as caught:
            client.approve("newer")
    assert caught.value.exit_code == 77
    assert [row.state for row in outbox.list()] == ["queued", "queued"]


# Dead rows


def test_dead_rows_are_reported_until_somebody_looks_after_them(box: Sandbox, outbox: Outbox) -> None:
    queue(outbox, "k0", thread_id="T0", base_url=box.url)
    queue(outbox, "k1", thread_id="T1", base_url=box.url)
    box.fail_next(422, times=2)
    file = ("--outbox", outbox.path)
    sender = ("-u", box.url, *SENDER, "-q", *file)
    for night in range(2):
        flushed = call("outbox", "flush", "-u", box.url, "-q", *file)
        assert (flushed.code, flushed.err.count("\n")) == (1, 1), night
        assert "2 dead in the outbox" in flushed.err
    approved = call("hitl", "approve", "k2", *sender)
    assert (approved.code, approved.out.split()[0]) == (1, "accepted")
    assert "2 dead in the outbox" in approved.err
    concluded = call("hitl", "conclude", "k2", *sender)
    # what the job acts upon is its own key
    assert (concluded.code, concluded.out.split()[0]) == (0, "approved")
    assert "2 dead in the outbox" in concluded.err
    assert call("outbox", "requeue", "--all", *file).err == "queued again: 2\n"
    flushed = call("outbox", "flush", "-u", box.url, "-q", *file)
    assert (flushed.code, flushed.err) == (0, "")
    assert outbox.counts() == {"queued": 0, "claimed": 0, "settled": 3, "dead": 0}
