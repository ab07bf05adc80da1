"""What an outbox row is: its table, its states, the legal moves between them, and the statements that make them.

Every function here works inside a transaction that its caller holds (`file.OutboxFile.transaction`). The SQL keeps
to what old SQLite knows: partial indexes (3.8, 2013), but no RETURNING and no UPSERT.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass, field, fields
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..errors import InvalidInput

APPLICATION_ID = 0x484C4F42  # "HLOB"; SQLite keeps it in the file's header, at byte 68
SCHEMA_VERSION = 1  # SQLite's user_version

STATES = ("queued", "claimed", "settled", "dead")

# Every legal move: its name, the states it starts from, the state it ends in. move() makes no other.
MOVES: Mapping[str, Tuple[Tuple[str, ...], str]] = {
    "claim": (("queued", "claimed"), "claimed"),  # a claimed one only when its lease has run out
    "release": (("claimed",), "queued"),
    "bury": (("claimed",), "dead"),
    "settle": (
        ("queued", "claimed", "dead"),
        "settled",
    ),  # the service has it: true whoever else holds the row
    "requeue": (("dead",), "queued"),
}

# One statement each, for sqlite3's executescript() would commit behind our back. A hosted row's tenant is ''.
# AUTOINCREMENT: the id of a dropped row must never name another decision.
SCHEMA = (
    """
    CREATE TABLE decision (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        state TEXT NOT NULL CHECK (state IN ('queued', 'claimed', 'settled', 'dead')),
        action TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        tenant_id TEXT NOT NULL,
        thread_id TEXT NOT NULL,
        payload TEXT NOT NULL,
        payload_digest TEXT NOT NULL,
        request_id TEXT NOT NULL,
        base_url TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        recorded_ms INTEGER NOT NULL,
        next_attempt_ms INTEGER NOT NULL,
        owner TEXT,
        lease_until_ms INTEGER,
        ended_ms INTEGER,
        status_code INTEGER,
        answer TEXT,
        reason TEXT,
        CHECK ((state = 'claimed') = (owner IS NOT NULL)),
        CHECK ((state = 'claimed') = (lease_until_ms IS NOT NULL)),
        UNIQUE (tenant_id, thread_id, idempotency_key)
    )
    """,
    "CREATE INDEX decision_open ON decision (tenant_id, thread_id, id) WHERE state IN ('queued', 'claimed')",
    "CREATE INDEX decision_settled ON decision (ended_ms) WHERE state = 'settled'",
    "PRAGMA application_id = {}".format(APPLICATION_ID),
    "PRAGMA user_version = {}".format(SCHEMA_VERSION),
)

OPEN = "state IN ('queued', 'claimed')"  # word for word the condition of decision_open, or SQLite would not use it


@dataclass(frozen=True)
class Row:
    """One decision as it stood when it was read. Times are epoch milliseconds.

    Attributes:
        state: ``queued``, ``claimed``, ``settled`` or ``dead``.
        tenant_id: None in hosted mode.
        payload_digest: SHA-256 of the payload's canonical JSON.
        request_id: the ``X-Request-Id`` of the first record, to be sent every time.
        base_url: where it was to go when it was recorded; nothing depends on it.
        attempts: how often it was claimed, by senders that were killed too.
        next_attempt_ms: when a queued row is due.
        owner, lease_until_ms: the claim's token and end; None unless claimed.
        ended_ms: when it was settled or died; None before.
        status_code: HTTP status of the last answer, or None when there was none.
        answer: decoded body of the answer that settled it.
        reason: why it is queued again, or dead.
    """

    id: int
    state: str
    action: str
    idempotency_key: str
    tenant_id: Optional[str]
    thread_id: str
    payload: Dict[str, Any] = field(repr=False)
    payload_digest: str
    request_id: str
    base_url: str
    attempts: int
    recorded_ms: int
    next_attempt_ms: int
    owner: Optional[str] = field(repr=False)
    lease_until_ms: Optional[int]
    ended_ms: Optional[int]
    status_code: Optional[int]
    answer: Any = field(repr=False)
    reason: Optional[str]


_NAMES = tuple(column.name for column in fields(Row))


def select(connection: sqlite3.Connection, where: str, values: Sequence[Any] = ()) -> List[Row]:
    """Read the rows that fulfil a condition (our own text; values are bound). A damaged one is a `sqlite3.DatabaseError`."""
    statement = "SELECT {} FROM decision WHERE {}".format(", ".join(_NAMES), where)  # noqa: S608
    return [_decode(found) for found in connection.execute(statement, values).fetchall()]


def scalar(connection: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """Read the one value that a statement gives."""
    return connection.execute(statement, values).fetchall()[0][0]


def head_id(connection: sqlite3.Connection, tenant_id: str, thread_id: str) -> Optional[int]:
    """Find the oldest row of a thread that has not ended: the only one that may be claimed."""
    statement = "SELECT MIN(id) FROM decision WHERE tenant_id = ? AND thread_id = ? AND " + OPEN  # noqa: S608
    found: Optional[int] = scalar(connection, statement, (tenant_id, thread_id))
    return found


def insert(connection: sqlite3.Connection, **columns: Any) -> Row:
    """Write a new row and read it back."""
    statement = "INSERT INTO decision ({}) VALUES ({})".format(  # noqa: S608 - our own column names
        ", ".join(columns), ", ".join("?" * len(columns))
    )
    connection.execute(statement, tuple(columns.values()))
    return select(connection, "id = last_insert_rowid()")[0]


def move(
    connection: sqlite3.Connection,
    name: str,
    row_id: int,
    columns: Mapping[str, Any],
    *,
    held_by: Optional[str] = None,
    guard: str = "1",
    guard_values: Tuple[Any, ...] = (),
) -> bool:
    """Make one move of `MOVES` by one guarded UPDATE; True when exactly that row was there to be moved.

    Args:
        name: the move.
        row_id: the row.
        columns: what else to write. The claim ends unless these say otherwise.
        held_by: only while this owner's claim stands.
        guard: a further condition, with its values.
    """
    starts, end = MOVES[name]
    written = dict({"state": end, "owner": None, "lease_until_ms": None}, **columns)
    conditions = ["id = ?", "state IN ({})".format(", ".join("?" * len(starts))), "({})".format(guard)]
    values = tuple(written.values()) + (row_id,) + starts + guard_values
    if held_by is not None:
        conditions.append("owner = ?")
        values += (held_by,)
    statement = "UPDATE decision SET {} WHERE {}".format(  # noqa: S608 - our own column names; values are bound
        ", ".join("{} = ?".format(column) for column in written), " AND ".join(conditions)
    )
    return connection.execute(statement, values).rowcount == 1


def canonical_json(payload: Optional[Mapping[str, Any]]) -> Tuple[str, str]:
    """Give a payload as JSON text that is the same for the same object, and the SHA-256 of its UTF-8.

    Encoded, decoded and encoded again, so that ``{1: ()}`` and ``{"1": []}`` are one: they are on the wire.
    """
    if payload is not None and not isinstance(payload, Mapping):
        raise InvalidInput("the payload must be a JSON object, not {}".format(type(payload).__name__))
    try:
        decoded = json.loads(json.dumps(dict(payload or {}), allow_nan=False), object_pairs_hook=_distinct)
        text = json.dumps(decoded, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return text, hashlib.sha256(text.encode("utf-8")).hexdigest()
    except (TypeError, ValueError, RecursionError) as error:  # ValueError: a cycle or a lone surrogate, too
        raise InvalidInput("the payload cannot be sent as JSON: {}".format(error)) from error


def _distinct(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("two of its keys are the same in JSON, such as 1 and '1'")
    return found


def check_text(name: str, value: Any) -> None:
    """Refuse what could not be stored or found again; `InvalidInput` names the argument."""
    if not isinstance(value, str) or not value:
        raise InvalidInput("{} must be a string that is not empty, not {!r}".format(name, value))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput("{} has a lone surrogate, which UTF-8 cannot hold".format(name)) from None


def _decode(found: Sequence[Any]) -> Row:
    columns = dict(zip(_NAMES, found))
    try:
        columns["payload"] = json.loads(columns["payload"])
        columns["answer"] = json.loads(columns["answer"] or "null")
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError("row {} is malformed: {}".format(columns["id"], error)) from error
    columns["tenant_id"] = columns["tenant_id"] or None
    return Row(**columns)
