"""A sandbox starts, remembers, is stopped, forked and started again; and its pytest plugin."""

from __future__ import annotations

import contextlib
import gc
import http.client
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import warnings
import weakref
from typing import Any

import pytest

from hestiaos_lite import sandbox
from hestiaos_lite.sandbox import Sandbox

from ..cli_call import NEEDS_FORK, ran
from ..sandbox_call import call, connect, name_of, read_all, steady_port

HEALTH = "/api/v1/health"
SECRETS = "/api/secrets"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
DB = {"credential_ref": "k", "secret": "v"}


# -- settings

# fmt: off
SETTINGS = [
    {"host": "0.0.0.0"}, {"host": ""}, {"host": "::"}, {"host": "192.0.2.1"}, {"host": "no such host\0"},
    {"api_key": ""}, {"api_key": " "}, {"api_key": "a\nb"}, {"port": 70000}, {"hitl_quota": -1},
    {"hitl_delay_seconds": -1}, {"token_delay_seconds": -0.1}, {"token_delay_seconds": float("nan")}, {"hitl_delay_seconds": float("inf")},
]
# fmt: on


@pytest.mark.parametrize("settings", SETTINGS, ids=name_of)
def test_settings_that_do_not_hold(settings: Any) -> None:
    with pytest.raises(ValueError, match="must|needs an api_key"):
        Sandbox(**settings)


def test_the_package_has_its_sandbox_and_no_other_name() -> None:
    assert sandbox.Sandbox is Sandbox
    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        sandbox.Other  # noqa: B018


def test_any_address_with_a_key_and_loopback_by_any_name() -> None:
    with Sandbox(host="0.0.0.0", api_key="k") as box, socket.create_connection(("127.0.0.1", box.port), 10):
        pass
    for host in ("localhost", "127.1.2.3", "127.1"):
        with Sandbox(host=host) as box:
            assert box.url == "http://{}:{}".format(host, box.port)
            assert call(box, "GET", HEALTH).status == 200


# -- what it received


def test_requests_are_kept_as_received_the_last_ten_thousand_and_64_mib(monkeypatch: Any) -> None:
    monkeypatch.setattr("hestiaos_lite.sandbox.box.MAX_KEPT_REQUESTS", 3)
    monkeypatch.setattr("hestiaos_lite.sandbox.box.MAX_KEPT_BYTES", 1000)
    with Sandbox() as box:
        call(box, "POST", "/api/v1/run?a=b", {"input": "x"}, {"X-Request-Id": "r-1"})
        call(box, "GET", "/api/secrets/a%2Fb")
        first, second = box.requests
        shown = (first.method, first.path, first.query, first.json)
        assert shown == ("POST", "/api/v1/run", "a=b", {"input": "x"})
        assert (first.headers["x-request-id"], first.headers["X-Nothing"]) == ("r-1", None)
        assert (second.method, second.path, second.body) == ("GET", "/api/secrets/a%2Fb", b"")
        with pytest.raises(ValueError, match="Expecting value"):
            second.json  # noqa: B018
        for path in ("/3", "/4"):
            call(box, "GET", path)
        assert box.requests == [second] + box.requests[1:]
        assert [request.path for request in box.requests[1:]] == ["/3", "/4"]
        for letter in (b"x", b"y"):
            call(box, "POST", "/big", letter * 999)
        assert [request.body[:1] for request in box.requests] == [b"y"]
        assert box.requests_total == 6


# -- life and death


def test_stop_releases_the_port_and_ends_every_thread_and_connection() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    threads, before = set(threading.enumerate()), descriptors()
    box = Sandbox().start()
    clients = [connect(box, GET) for _ in range(20)]
    for client in clients:
        assert read_all(client, b"}").startswith(b"HTTP/1.1 404 ")
    clients += [connect(box, half) for half in (b"", b"GET / HT") for _ in range(50)]
    assert call(box, "GET", HEALTH).status == 200  # whoever is silent holds up nobody
    box.stop()
    box.stop()
    for client in clients:
        assert read_all(client, b"}") == b""
        client.close()
    assert set(threading.enumerate()) == threads
    with pytest.raises(ConnectionRefusedError):
        connect(box)
    assert descriptors() == before


def test_stop_does_not_wait_for_delays() -> None:
    box = Sandbox(token_delay_seconds=60).start()
    box.delay_next(60)
    stream = b'POST /api/v1/run/stream HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"input":"x"}'
    clients = []
    for request in (GET, stream):
        clients.append(connect(box, request))
        while box.requests_total < len(clients):
            time.sleep(0.001)
    box.stop()
    for client in clients:
        read_all(client)
        client.close()


def test_serve_forever_returns_at_stop_and_the_same_object_starts_again_with_its_state() -> None:
    box = Sandbox(port=steady_port())
    with box:
        call(box, "POST", SECRETS, DB)
        url = box.url
        with pytest.raises(OSError, match="in use"):
            Sandbox(port=box.port).start()
    thread = threading.Thread(target=box.serve_forever)
    thread.start()
    while "running" not in repr(box):
        time.sleep(0.001)
    assert (box.url, call(box, "GET", SECRETS + "/k").body) == (url, {"value": "v"})
    box.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_threads_that_start_and_stop_it_at_once_meet_no_error() -> None:
    box, errors = Sandbox(), []

    def start_and_stop() -> None:
        try:
            for _ in range(15):
                box.start()
                box.stop()
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=start_and_stop) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, repr(box).rpartition(" ")[2]) == ([], "stopped>")


@NEEDS_FORK
def test_a_forked_child_can_neither_stop_it_nor_hold_its_port_and_connections() -> None:
    box = Sandbox(port=steady_port()).start()
    client = connect(box, GET)
    read_all(client, b"}")
    reader, writer = os.pipe()
    forked, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later warn of forks beside threads
        child = os.fork()
    if child == 0:
        box.stop()  # as a `with` around it does when the child ends by an exception
        os.write(tell, b"x")
        os.read(reader, 1)
        os._exit(0)
    try:
        os.read(forked, 1)
        client.sendall(GET)
        assert read_all(client, b"}").startswith(b"HTTP/1.1 404 ")
        box.stop()
        assert client.recv(1) == b""
        with Sandbox(port=box.port) as again:
            assert call(again, "GET", HEALTH).status == 200
    finally:
        client.close()
        os.write(writer, b"x")
        os.waitpid(child, 0)
        for descriptor in (reader, writer, forked, tell):
            os.close(descriptor)


def test_a_program_that_forgets_to_stop_it_ends_all_the_same() -> None:
    text = """
import socket
from hestiaos_lite.sandbox import Sandbox
box = Sandbox().start()
client = socket.create_connection((box.host, box.port))
client.sendall(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
assert client.recv(8) == b"HTTP/1.1"
"""
    assert ran([sys.executable, "-c", text]).returncode == 0


def test_a_stopped_sandbox_goes_with_its_last_name_and_does_not_wait_for_the_collector() -> None:
    """Python drops what a signal's handler raises in a finalizer that the collector runs."""
    gc.disable()
    try:
        with Sandbox() as box:
            for method, path, status in (("GET", "/api/system/config", 200), ("GET", "/nope", 404)):
                assert call(box, method, path).status == status
            box.lose_next_answer(path=SECRETS)
            box.drop_next_stream()
            for path, body in ((SECRETS, DB), ("/api/v1/run/stream", {"input": "hello"})):
                with pytest.raises(http.client.HTTPException):
                    call(box, "POST", path, body)
        gone = weakref.ref(box)
        del box
        assert gone() is None
    finally:
        gc.enable()


def test_a_fault_of_ours_costs_one_request(box: Any, caplog: Any) -> None:
    def broken(action: Any) -> Any:
        raise ZeroDivisionError(action)

    headers = {"Tenant-Id": "t", "Thread-Id": "t", "Idempotency-Key": "k"}
    assert call(box, "POST", "/hitl/approve", {}, headers).status == 202
    for conflict_body, fault in ((broken, "ZeroDivisionError"), (lambda action: object(), "TypeError")):
        box.hitl.conflict_body = conflict_body
        assert call(box, "POST", "/hitl/approve", {}, headers).status == 500
        assert fault in caplog.text
    box.fail_next(retry_after="\u20ac")  # no header can hold it
    with pytest.raises(http.client.RemoteDisconnected):
        call(box, "GET", HEALTH)
    assert "UnicodeEncodeError" in caplog.text
    assert call(box, "GET", HEALTH).status == 200


# -- the file


def test_a_file_keeps_state_over_a_restart_and_two_may_share_it(tmp_path: Any) -> None:
    db = tmp_path / "sandbox.db"
    umask = os.umask(0)
    try:
        with Sandbox(port=steady_port(), db=db) as first, Sandbox(db=str(db)) as other:
            trace_id = call(first, "POST", "/api/v1/run", {"input": "x"}).body["trace_id"]
            call(other, "POST", SECRETS, DB)
            trace = call(first, "GET", "/api/v1/trace/" + trace_id).body
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    if os.name == "posix":  # it holds secrets
        assert modes == {"sandbox.db": 0o600, "sandbox.db-wal": 0o600, "sandbox.db-shm": 0o600}
    with Sandbox(port=first.port, db=db) as second:
        assert second.port == first.port
        assert call(second, "GET", "/api/v1/trace/" + trace_id).body == trace
        assert call(second, "GET", SECRETS + "/k").body == {"value": "v"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sandbox.db"]


def _execute(path: Any, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(str(path))) as connection:
        connection.execute(statement)


# fmt: off
NOT_OURS = {
    "garbage": (lambda path: path.write_bytes(b"no database" * 1000), "not a database"),
    "folder": (lambda path: path.mkdir(), "unable to open"),
    "foreign": (lambda path: _execute(path, "CREATE TABLE theirs (x)"), "not a sandbox's"),
    "marked as another's": (lambda path: _execute(path, "PRAGMA application_id = 7"), "not a sandbox's"),
    "numbered": (lambda path: _execute(path, "PRAGMA user_version = 2"), "not a sandbox's"),
    "newer": (lambda path: Sandbox(db=path).start().stop() or _execute(path, "PRAGMA user_version = 99"), "schema version is 99"),
    "link": (lambda path: path.symlink_to(path.with_name("target")) or path.write_bytes(b""), "it is a symbolic link"),  # that somebody may have planted
    "dangling": (lambda path: path.symlink_to(path.with_name("nothing")), "it is a symbolic link"),
}
# fmt: on


@pytest.mark.parametrize(("prepare", "problem"), NOT_OURS.values(), ids=list(NOT_OURS))
def test_a_file_that_is_not_ours_is_refused_by_name(tmp_path: Any, prepare: Any, problem: str) -> None:
    db = tmp_path / "other.db"
    prepare(db)
    before = sorted((path.name, path.stat().st_size) for path in tmp_path.iterdir() if path.exists())
    with pytest.raises(ValueError, match=problem) as caught, Sandbox(db=db):
        pass
    assert str(db) in str(caught.value)
    assert sorted((path.name, path.stat().st_size) for path in tmp_path.iterdir() if path.exists()) == before


# -- the pytest plugin


def test_the_plugin_gives_a_fixture_and_loads_nothing_before(tmp_path: Any) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys, urllib.request\n"
        "early = [name for name in ('sqlite3', 'hestiaos_lite.sandbox.box') if name in sys.modules]\n"
        "def test_it(hestia_sandbox):\n"
        "    with urllib.request.urlopen(hestia_sandbox.url + '/api/v1/health') as answer:\n"
        "        assert answer.status == 200\n"
        "    assert hestia_sandbox.requests_total == 1\n"
        "    assert early == []\n"
    )
    # "no:hestiaos_lite" keeps an installed entry point from registering the same module twice
    options = ["-W", "error", "-m", "pytest", "-q"]
    options += ["-p", "no:hestiaos_lite", "-p", "hestiaos_lite.sandbox.pytest_plugin"]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    run = subprocess.run(
        [sys.executable] + options, cwd=str(tmp_path), env=environment, stdout=subprocess.PIPE, timeout=60
    )
    assert b"1 passed" in run.stdout, run.stdout.decode()
    assert run.returncode == 0
