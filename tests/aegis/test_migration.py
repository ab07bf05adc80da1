"""A file of version 1 becomes one of this version where it is, in one transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

from hestiaos_lite import errors
from hestiaos_lite.aegis.outbox import Outbox
from hestiaos_lite.aegis.rows import canonical_json
from hestiaos_lite.aegis.schema import APPLICATION_ID, SCHEMA

from .outbox_kit import decision, refused

# As version 1 made it, word for word but for the spacing.
VERSION_1 = (
    """
    CREATE TABLE decision (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        state TEXT NOT NULL CHECK (state IN ('queued', 'claimed', 'settled', 'dead')),
        action TEXT NOT NULL, idempotency_key TEXT NOT NULL, tenant_id TEXT NOT NULL, thread_id TEXT NOT NULL,
        payload TEXT NOT NULL, payload_digest TEXT NOT NULL, request_id TEXT NOT NULL, base_url TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, recorded_ms INTEGER NOT NULL, next_attempt_ms INTEGER NOT NULL,
        owner TEXT, lease_until_ms INTEGER, ended_ms INTEGER, status_code INTEGER, answer TEXT, reason TEXT,
        CHECK ((state = 'claimed') = (owner IS NOT NULL)),
        CHECK ((state = 'claimed') = (lease_until_ms IS NOT NULL)),
        UNIQUE (tenant_id, thread_id, idempotency_key)
    )
    """,
    "CREATE INDEX decision_open ON decision (tenant_id, thread_id, id) WHERE state IN ('queued', 'claimed')",
    "CREATE INDEX decision_settled ON decision (ended_ms) WHERE state = 'settled'",
    "PRAGMA application_id = {}".format(APPLICATION_ID),
    "PRAGMA user_version = 1",
)


def make_version_1(path: Path, *rows: Dict[str, Any], wal: bool = True) -> None:
    connection = sqlite3.connect(str(path), isolation_level=None)
    for statement in VERSION_1:
        connection.execute(statement)
    if wal:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    text, digest = canonical_json({"n": 1})
    for n, row in enumerate(rows):
        values = {
            "state": "queued",
            "action": "approve",
            "idempotency_key": "k{}".format(n),
            "tenant_id": "acme",
            "thread_id": "T",
            "payload": text,
            "payload_digest": digest,
            "request_id": "r{}".format(n),
            "base_url": "http://h:1",
            "recorded_ms": 1,
            "next_attempt_ms": 1,
        }
        values.update(row)
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        connection.execute(
            "INSERT INTO decision ({}) VALUES ({})".format(names, marks), tuple(values.values())
        )
    connection.close()
    path.chmod(0o600)


def test_every_row_keeps_what_it_was_and_learns_its_service(path):
    now_ms = int(time.time() * 1000)
    far_ms = now_ms + 10 * 86400000
    make_version_1(
        path,
        {},
        {"base_url": "HTTP://H:80/base/", "tenant_id": ""},
        {"state": "claimed", "owner": "o", "lease_until_ms": now_ms + 30000, "attempts": 1},
        {"state": "settled", "status_code": 202, "answer": '{"a": 1}', "ended_ms": now_ms, "attempts": 1},
        {"state": "settled", "status_code": 409, "answer": "null", "ended_ms": now_ms, "attempts": 1},
        {"state": "dead", "status_code": 422, "reason": "no", "ended_ms": now_ms, "attempts": 1},
        {"next_attempt_ms": far_ms, "attempts": 1, "thread_id": "U"},
        {"state": "claimed", "owner": "o", "lease_until_ms": far_ms, "attempts": 1, "thread_id": "V"},
    )
    with Outbox(path) as box:
        rows = box.list()
        found = [(row.id, row.state, row.service, row.tenant_id, row.attempts, row.confirmed) for row in rows]
        assert found == [
            (1, "queued", "http://h:1/api/v1", "acme", 0, True),
            (2, "queued", "http://h/base/api/v1", None, 0, True),
            (3, "claimed", "http://h:1/api/v1", "acme", 1, True),
            (4, "settled", "http://h:1/api/v1", "acme", 1, True),
            (5, "settled", "http://h:1/api/v1", "acme", 1, False),
            (6, "dead", "http://h:1/api/v1", "acme", 1, True),
            (7, "queued", "http://h:1/api/v1", "acme", 1, True),
            (8, "claimed", "http://h:1/api/v1", "acme", 1, True),
        ]
        assert (rows[2].lease_until_ms, rows[3].answer, rows[5].reason) == (now_ms + 30000, {"a": 1}, "no")
        # waits and leases further ahead than they can be are over
        assert box.queue.claim(rows[6].lane) is not None
        assert box.queue.claim(rows[7].lane) is not None


def test_the_schema_is_that_of_a_new_file(path, tmp_path):
    make_version_1(path, {})
    Outbox(path).close()
    Outbox(tmp_path / "new.db").close()
    schemas: List[Any] = []
    for name in (path, tmp_path / "new.db"):
        connection = sqlite3.connect(str(name))
        schemas.append(
            connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
        )
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize("left", [0, 1])
def test_an_id_is_not_used_again(path, left):
    make_version_1(path, {}, {}, {})
    connection = sqlite3.connect(str(path))
    connection.execute("DELETE FROM decision WHERE id > ?", (left,))
    connection.commit()
    connection.close()
    with Outbox(path) as box:
        assert box.queue.submit(decision("new", "another")).own.id == 4


def test_it_is_all_or_nothing(path):
    make_version_1(path, {}, {"payload_digest": "x"})
    connection = sqlite3.connect(str(path), isolation_level=None)
    connection.execute("CREATE TABLE decision_1 (x)")  # in the way
    connection.close()
    before = [row for row in dump(path) if "decision_1" not in row]
    refused(lambda: Outbox(path), path, "decision_1")
    assert [row for row in dump(path) if "decision_1" not in row] == before


def test_a_program_of_version_1_that_has_it_open_is_refused_and_not_wronged(path):
    make_version_1(path, {})
    old = sqlite3.connect(str(path), isolation_level=None)
    old.execute("SELECT * FROM decision").fetchall()
    with Outbox(path) as box:
        with pytest.raises(sqlite3.Error):
            old.execute("INSERT INTO decision (state, base_url) VALUES ('queued', 'http://h')")
        old.close()
        assert len(box.list()) == 1


def test_it_waits_for_a_program_that_writes_no_longer_than_it_may(path):
    make_version_1(path, {})
    other = sqlite3.connect(str(path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    error = refused(lambda: Outbox(path, busy_seconds=0.2), path, "another program has held it too long")
    assert error.delivered is False
    other.execute("ROLLBACK")
    other.close()
    with Outbox(path) as box:
        assert box.get(1).service == "http://h:1/api/v1"


@pytest.mark.parametrize("moment", range(len(SCHEMA) + 7))
def test_a_loss_at_any_statement_leaves_version_1(path, moment):
    """Undone before the commit, wherever it stops."""
    make_version_1(path, {}, {})
    before = dump(path)

    class Interrupted(Exception):
        pass

    from hestiaos_lite.aegis import schema

    class Counting:
        def __init__(self, connection):
            self.connection, self.left = connection, moment

        def execute(self, *arguments):
            if self.left == 0:
                raise Interrupted
            self.left -= 1
            return self.connection.execute(*arguments)

    connection = sqlite3.connect(str(path), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        schema.migrate(Counting(connection))
    except Interrupted:
        connection.execute("ROLLBACK")
    else:
        connection.execute("ROLLBACK")
    connection.close()
    assert dump(path) == before


def dump(path: Path) -> List[str]:
    connection = sqlite3.connect(str(path))
    try:
        version = connection.execute("PRAGMA user_version").fetchall()
        return [json.dumps(version)] + list(connection.iterdump())
    finally:
        connection.close()


def test_the_error_of_a_newer_file_is_kept(path):
    make_version_1(path)
    connection = sqlite3.connect(str(path))
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(errors.HestiaError, match="schema version 9"):
        Outbox(path)
