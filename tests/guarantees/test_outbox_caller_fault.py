"""What is the caller's fault costs no decision: the row stays queued, the flush ends and says so; dead rows are told."""

from __future__ import annotations

import pytest

from hestiaos_lite import AegisClient, HestiaError, Outbox
from hestiaos_lite.sandbox import Sandbox

from ..aegis.kit import queue
from ..cli_call import call
from ..faultserver import FaultServer, answer, reply

# About the credentials, the address or a setting: every other row would fail alike.
# fmt: off
CALLERS = {
    401: 77, 403: 77, 404: 78, 405: 78, 407: 77, 421: 78, 426: 78,
    301: 78, 302: 78, 303: 78, 304: 78, 307: 78, 308: 78,
}
# fmt: on
# About this decision alone.
ROWS = {400: 1, 410: 1, 413: 1, 415: 1, 422: 1, 451: 1}
# About the moment.
PASSING = [408, 425, 429, 500, 501, 502, 503, 504, 520]

SENDER = ("--tenant", "acme", "--thread", "T", "--retries", "0")


def answering(status: int) -> FaultServer:
    body = b'{"detail": "no"}' if status >= 400 else b""
    headers = {"Location": "http://127.0.0.1:1/"} if status < 400 else None
    return FaultServer(answer(reply(status, body, headers)))


@pytest.mark.parametrize("status", CALLERS)
def test_the_callers_fault_ends_the_flush_and_costs_nothing(outbox: Outbox, status: int) -> None:
    with answering(status) as server:
        for n in range(4):
            queue(outbox, "k{}".format(n), thread_id="T{}".format(n), base_url=server.url)
        called = call("outbox", "flush", "-u", server.url, "--outbox", outbox.path, "-q", "--retries", "0")
        assert called.code == CALLERS[status]
        assert "it stays queued in the outbox " in called.err
        assert len(server.requests) == 1
        assert [row.state for row in outbox.list()] == ["queued"] * 4
        assert outbox.get(1).status_code == status
        options = ("-u", server.url, *SENDER, "--outbox", outbox.path)
        approved = call("hitl", "approve", "new", *options)
        assert (approved.code, approved.out) == (CALLERS[status], "")
        assert outbox.counts() == {"queued": 5, "claimed": 0, "settled": 0, "dead": 0}


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


@pytest.mark.parametrize("status", ROWS)
def test_what_is_about_the_decision_alone_kills_it_and_goes_on(outbox: Outbox, status: int) -> None:
    with answering(status) as server:
        for n in range(2):
            queue(outbox, "k{}".format(n), thread_id="T{}".format(n), base_url=server.url)
        called = call("outbox", "flush", "-u", server.url, "--outbox", outbox.path, "-q")
        assert (called.code, outbox.counts()["dead"]) == (1, 2)
        assert "2 dead in the outbox" in called.err
        assert "outbox requeue --all --outbox " in called.err


@pytest.mark.parametrize("status", PASSING)
def test_what_passes_leaves_it_queued_and_goes_on(outbox: Outbox, status: int) -> None:
    with answering(status) as server:
        for n in range(2):
            queue(outbox, "k{}".format(n), thread_id="T{}".format(n), base_url=server.url)
        called = call("outbox", "flush", "-u", server.url, "--outbox", outbox.path, "-q", "--retries", "0")
        assert (called.code, called.err) == (75, "")
        assert (len(server.requests), outbox.counts()["queued"]) == (2, 2)


def test_a_404_that_the_service_explains_is_about_the_decision(box: Sandbox, outbox: Outbox) -> None:
    queue(outbox, "k", base_url=box.url)
    box.fail_next(404, body={"detail": {"code": "THREAD_CLOSED", "message": "this thread is closed"}})
    assert call("outbox", "flush", "-u", box.url, "--outbox", outbox.path).code == 1
    assert outbox.get(1).state == "dead"


# Dead rows


def test_dead_rows_are_told_until_somebody_looks_after_them(box: Sandbox, outbox: Outbox) -> None:
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
