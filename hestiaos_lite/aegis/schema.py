"""The table of the outbox file, and how a file of an earlier version becomes one of this."""

from __future__ import annotations

import sqlite3
import time

from .rows import service_of

APPLICATION_ID = 0x484C4F42  # "HLOB"; SQLite keeps it in the file's header, at byte 68
SCHEMA_VERSION = 2  # SQLite's user_version

# One statement each, for sqlite3's executescript() would commit behind our back. A hosted row's tenant is ''.
# AUTOINCREMENT: the id of a dropped row must never name another decision.
SCHEMA = (
    """
    CREATE TABLE decision (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        service TEXT NOT NULL,
        tenant_id TEXT NOT NULL,
        thread_id TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        action TEXT NOT NULL,
        payload TEXT NOT NULL,
        payload_digest TEXT NOT NULL,
        request_id TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued', 'claimed', 'settled', 'dead')),
        attempts INTEGER NOT NULL,
        recorded_ms INTEGER NOT NULL,
        changed_ms INTEGER NOT NULL,
        next_attempt_ms INTEGER NOT NULL,
        owner TEXT,
        lease_until_ms INTEGER,
        ended_ms INTEGER,
        status_code INTEGER,
        answer TEXT,
        confirmed INTEGER NOT NULL DEFAULT 1,
        reason TEXT,
        CHECK ((state = 'claimed') = (owner IS NOT NULL)),
        CHECK ((state = 'claimed') = (lease_until_ms IS NOT NULL)),
        UNIQUE (service, tenant_id, thread_id, idempotency_key)
    )
    """,
    "CREATE INDEX decision_open ON decision (service, tenant_id, thread_id, id) WHERE state IN ('queued', 'claimed')",
    "CREATE INDEX decision_settled ON decision (ended_ms) WHERE state = 'settled'",
    "PRAGMA application_id = {}".format(APPLICATION_ID),
    "PRAGMA user_version = {}".format(SCHEMA_VERSION),
)

_PREFIX_OF_VERSION_1 = "/api/v1"  # version 1 kept the base URL alone, and this is the client's default
_LONGEST_WAIT_MS = 86400000  # of version 1, whose rows do not say when they were changed
_KEPT = (
    "id, tenant_id, thread_id, idempotency_key, action, payload, payload_digest, request_id, state, attempts, "
    "recorded_ms, owner, ended_ms, status_code, answer, reason"
)


def create(connection: sqlite3.Connection) -> None:
    """Make the table in an empty file, within the caller's transaction."""
    for statement in SCHEMA:
        connection.execute(statement)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file of version 1 to this one, within the caller's transaction: a row learns which service it is for.

    Nobody knows which action the duplicates of a version 1 were checked for, so they are not confirmed.
    """
    now_ms = int(time.time() * 1000)
    for index in ("decision_open", "decision_settled"):
        connection.execute("DROP INDEX IF EXISTS " + index)
    connection.execute("ALTER TABLE decision RENAME TO decision_1")
    for (base_url,) in connection.execute("SELECT DISTINCT base_url FROM decision_1").fetchall():
        service = service_of(base_url, _PREFIX_OF_VERSION_1)
        connection.execute("UPDATE decision_1 SET base_url = ? WHERE base_url = ?", (service, base_url))
    create(connection)
    connection.execute(
        """
        INSERT INTO decision ({kept}, service, changed_ms, next_attempt_ms, lease_until_ms, confirmed)
        SELECT {kept}, base_url, :now,
            CASE WHEN attempts = 0 OR next_attempt_ms > :latest THEN :now ELSE next_attempt_ms END,
            CASE WHEN lease_until_ms > :latest THEN :now ELSE lease_until_ms END,
            status_code IS NULL OR status_code <> 409
        FROM decision_1 ORDER BY id
        """.format(kept=_KEPT),  # noqa: S608 - our own column names
        {"now": now_ms, "latest": now_ms + _LONGEST_WAIT_MS},
    )
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'decision'")
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'decision', seq FROM sqlite_sequence WHERE name = 'decision_1'"
    )
    connection.execute("DROP TABLE decision_1")
