"""The table of the outbox file."""

from __future__ import annotations

# A hosted row's tenant is ''. AUTOINCREMENT: the id of a dropped row must never name another decision.
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
)

APPLICATION_ID = 0x484C4F42  # "HLOB"
SCHEMA_VERSION = 2
