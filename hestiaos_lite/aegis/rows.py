"""A decision and its row in the outbox: the columns, the states, the legal moves, and the statements that make them.

Every function that takes a connection works inside a transaction that its caller holds (`SqliteFile.transaction`).
The SQL keeps to what old SQLite knows: partial indexes (3.8, 2013), but no RETURNING and no UPSERT.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from .._check import check_filled_text, check_headers, check_optional_mapping, is_encodable
from ..errors import InvalidInput, NotFound

if TYPE_CHECKING:
    import sqlite3

ACTIONS = ("approve", "reject")
STATES = ("queued", "claimed", "settled", "dead")

# Every legal move: its name, the states it starts from, the state it ends in. move() makes no other.
MOVES: Mapping[str, Tuple[Tuple[str, ...], str]] = {
    # a claimed one only when its lease has run out
    "claim": (("queued", "claimed"), "claimed"),
    "release": (("claimed",), "queued"),
    "bury": (("claimed",), "dead"),
    # the service has it: true whoever else holds the row
    "settle": (("queued", "claimed", "dead"), "settled"),
    "requeue": (("dead",), "queued"),
}

OPEN = "state IN ('queued', 'claimed')"  # word for word the condition of decision_open, or SQLite would not use it
CLOCK_SLACK_MS = 60000  # a clock that was set back by less counts as right
_LATEST_MS = 253402300800000  # the year 10000
_DEFAULT_PORTS = {"http": 80, "https": 443}

Lane = Tuple[str, str, str]  # service, tenant ("" in hosted mode) and thread: what keeps its order


@dataclass(frozen=True)
class Decision:
    """One decision as it is sent.

    Attributes:
        service: whose it is: the base URL with its path prefix, as `service_of` gives it.
        action: ``approve`` or ``reject``.
        tenant_id: None in hosted mode, where the API key says whose it is.
        request_id: the ``X-Request-Id``, the same every time it is sent.
    """

    service: str
    action: str
    idempotency_key: str
    tenant_id: Optional[str]
    thread_id: str
    request_id: str
    payload: Mapping[str, Any] = field(repr=False)

    @property
    def lane(self) -> Lane:
        """Within which it keeps its order."""
        return (self.service, self.tenant_id or "", self.thread_id)

    def headers(self) -> Dict[str, str]:
        """Give the headers it is sent with, beyond those of every request."""
        headers = {"Thread-Id": self.thread_id, "Idempotency-Key": self.idempotency_key}
        if self.tenant_id:
            headers["Tenant-Id"] = self.tenant_id
        return headers

    def check(self) -> None:
        """Refuse what could not be sent; `InvalidInput` names it."""
        if self.action not in ACTIONS:
            raise InvalidInput("action must be 'approve' or 'reject', not {!r}".format(self.action))
        check_headers(self.headers())


@dataclass(frozen=True)
class Entry(Decision):
    """One decision in the outbox, as it was when it was read. Times are epoch milliseconds.

    Attributes:
        state: ``queued``, ``claimed``, ``settled`` or ``dead``.
        payload_digest: SHA-256 of the payload's canonical JSON.
        attempts: how often it was claimed, by senders that were killed too.
        changed_ms: when it last moved; one that lies ahead was written under a wrong clock.
        next_attempt_ms: when a queued row is due.
        owner, lease_until_ms: the claim's token and end; None unless claimed.
        ended_ms: when it was settled or died; None before.
        status_code: HTTP status of the last answer, or None when there was none.
        answer: decoded body of the answer that settled it.
        confirmed: False for a duplicate of which nobody said what its key was first used for.
        reason: why it is queued again, or dead.
    """

    id: int
    state: str
    payload_digest: str
    attempts: int
    recorded_ms: int
    changed_ms: int
    next_attempt_ms: int
    owner: Optional[str] = field(default=None, repr=False)
    lease_until_ms: Optional[int] = None
    ended_ms: Optional[int] = None
    status_code: Optional[int] = None
    answer: Any = field(default=None, repr=False)
    confirmed: bool = True
    reason: Optional[str] = None

    @property
    def is_open(self) -> bool:
        """It is still to be sent, or being sent."""
        return self.state in ("queued", "claimed")

    def is_held(self, now_ms: int) -> bool:
        """Somebody is sending it; a lease of a clock that was ahead counts as run out."""
        return (
            self.lease_until_ms is not None
            and now_ms < self.lease_until_ms
            and self.changed_ms <= now_ms + CLOCK_SLACK_MS
        )

    def is_due(self, now_ms: int) -> bool:
        """It may be claimed now, if it is the oldest of its lane; a delay of a clock that was ahead counts as over."""
        if self.state == "claimed":
            return not self.is_held(now_ms)
        is_past = self.next_attempt_ms <= max(now_ms, self.changed_ms)
        return self.state == "queued" and (is_past or self.changed_ms > now_ms + CLOCK_SLACK_MS)


class MalformedRow(Exception):
    """A row holds what no outbox of ours writes."""

    def __init__(self, row_id: Any, fault: str) -> None:
        super().__init__(
            "row {!r} is malformed: {}; it is not sent. Look where it came from, then forget it"
            " (hestiaos-lite outbox drop {})".format(row_id, fault, row_id)
        )


def service_of(url: str, prefix: str = "") -> str:
    """Name a service by its base URL and path prefix, so that two spellings of one URL are one service."""
    parts = urlsplit(url.strip())
    if parts.scheme not in _DEFAULT_PORTS:  # such as http+unix://, whose host is a path
        return url.strip().rstrip("/") + prefix
    host = parts.hostname or ""
    host = "[{}]".format(host) if ":" in host else host
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else ":{}".format(parts.port)
    return "{}://{}{}{}{}".format(parts.scheme, host, port, parts.path.rstrip("/"), prefix)


# Reading


_NAMES = tuple(column.name for column in fields(Entry))
_SELECT = "SELECT {} FROM decision WHERE ".format(", ".join(_NAMES))  # noqa: S608 - our own names
_TEXTS = ("service", "idempotency_key", "thread_id", "request_id", "payload_digest", "state")
_OPTIONAL_TEXTS = ("owner", "reason")
_TIMES = ("recorded_ms", "changed_ms", "next_attempt_ms")
_OPTIONAL_TIMES = ("lease_until_ms", "ended_ms")


def select(connection: sqlite3.Connection, where: str, values: Sequence[Any] = ()) -> List[Entry]:
    """Read the rows that fulfil a condition (our own text; values are bound). Raises MalformedRow."""
    return [_decode(found) for found in connection.execute(_SELECT + where, values).fetchall()]


def get(connection: sqlite3.Connection, row_id: int) -> Entry:
    """Read one row; `NotFound` when there is none."""
    # A number beyond 64 bits cannot even be asked for.
    found = select(connection, "id = ?", (row_id,)) if 0 < row_id < 1 << 63 else []
    if not found:
        raise NotFound("there is no row {} in the outbox".format(row_id))
    return found[0]


def find(connection: sqlite3.Connection, lane: Lane, idempotency_key: str) -> Optional[Entry]:
    """Read the row of a key."""
    where = "service = ? AND tenant_id = ? AND thread_id = ? AND idempotency_key = ?"
    return next(iter(select(connection, where, (*lane, idempotency_key))), None)


def head_id(connection: sqlite3.Connection, lane: Lane) -> Optional[int]:
    """Find the oldest row of a lane that has not ended, by index: the only one that may be claimed."""
    return _end_of(connection, lane, "ASC")


def tail_id(connection: sqlite3.Connection, lane: Lane) -> Optional[int]:
    """Find the youngest row of a lane that has not ended."""
    return _end_of(connection, lane, "DESC")


def _end_of(connection: sqlite3.Connection, lane: Lane, order: str) -> Optional[int]:
    statement = (
        "SELECT id FROM decision WHERE service = ? AND tenant_id = ? AND thread_id = ? AND {} "  # noqa: S608
        "ORDER BY id {} LIMIT 1"
    )
    found = connection.execute(statement.format(OPEN, order), lane).fetchone()
    return None if found is None else found[0]


def scalar(connection: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """Read the one value that a statement gives."""
    return connection.execute(statement, values).fetchall()[0][0]


def _decode(found: Sequence[Any]) -> Entry:
    columns = dict(zip(_NAMES, found))
    row_id = columns["id"]
    fault = _fault_of(columns)
    if fault:
        raise MalformedRow(row_id, fault)
    text = columns["payload"]
    try:
        columns["payload"] = json.loads(text)
        columns["answer"] = json.loads(columns["answer"] or "null")
        columns["tenant_id"] = columns["tenant_id"] or None
        columns["confirmed"] = bool(columns["confirmed"])
        entry = Entry(**columns)
        entry.check()
    except (ValueError, RecursionError, InvalidInput) as error:
        raise MalformedRow(row_id, str(error)) from error
    if not isinstance(entry.payload, dict):
        raise MalformedRow(row_id, "its payload is no JSON object")
    if _digest(text) != entry.payload_digest:
        raise MalformedRow(row_id, "its payload is not the one that was recorded")
    return entry


def _fault_of(columns: Mapping[str, Any]) -> str:
    """Say which column holds a value of another type than was written; "" for none. SQLite itself would not mind."""
    for name in _TEXTS + ("tenant_id", "payload") + _OPTIONAL_TEXTS + ("answer",):
        value = columns[name]
        if value is None and (name in _OPTIONAL_TEXTS or name == "answer"):
            continue
        if not isinstance(value, str) or not is_encodable(value) or name in _TEXTS and not value:
            return "its {} is no text".format(name)
    for name in _TIMES + _OPTIONAL_TIMES + ("attempts", "confirmed", "status_code"):
        value = columns[name]
        if value is None and (name in _OPTIONAL_TIMES or name == "status_code"):
            continue
        if not isinstance(value, int) or not 0 <= value < _LATEST_MS:
            return "its {} is no number that could be".format(name)
    if columns["state"] not in STATES or (columns["state"] == "claimed") is (columns["owner"] is None):
        return "its state is none"
    return ""


# Writing


def insert(connection: sqlite3.Connection, decision: Decision, text: str, digest: str, now_ms: int) -> Entry:
    """Write a new row, queued and due at once."""
    columns = {
        "service": decision.service,
        "action": decision.action,
        "idempotency_key": decision.idempotency_key,
        "tenant_id": decision.tenant_id or "",
        "thread_id": decision.thread_id,
        "request_id": decision.request_id,
        "payload": text,
        "state": "queued",
        "payload_digest": digest,
        "attempts": 0,
        "recorded_ms": now_ms,
        "changed_ms": now_ms,
        "next_attempt_ms": now_ms,
    }
    statement = "INSERT INTO decision ({}) VALUES ({})".format(  # noqa: S608 - our own column names
        ", ".join(columns), ", ".join("?" * len(columns))
    )
    row_id = connection.execute(statement, tuple(columns.values())).lastrowid
    as_read = {"tenant_id": decision.tenant_id or None, "payload": json.loads(text)}
    return Entry(id=row_id, **dict(columns, **as_read))  # type: ignore[arg-type]


def claim(
    connection: sqlite3.Connection, entry: Entry, owner: str, now_ms: int, lease_ms: int
) -> Optional[Entry]:
    """Claim a row that was read in this transaction and is due; None when it is another's by now."""
    lease: Dict[str, Any] = {
        "owner": owner,
        "lease_until_ms": now_ms + lease_ms,
        "attempts": entry.attempts + 1,
    }
    read = {"state": entry.state, "attempts": entry.attempts}
    if not move(connection, "claim", entry.id, now_ms, lease, guard=read):
        return None
    return replace(entry, state="claimed", changed_ms=now_ms, **lease)


def move(
    connection: sqlite3.Connection,
    name: str,
    row_id: int,
    now_ms: int,
    columns: Mapping[str, Any],
    *,
    guard: Optional[Mapping[str, Any]] = None,
) -> bool:
    """Make one move of `MOVES` by one guarded UPDATE; True when exactly that row was there to be moved.

    Args:
        name: the move.
        row_id: the row.
        columns: what else to write. The claim ends unless these say otherwise.
        guard: columns that must hold these values, such as the owner of the claim.
    """
    starts, end = MOVES[name]
    written = dict({"state": end, "owner": None, "lease_until_ms": None, "changed_ms": now_ms}, **columns)
    guard = guard or {}
    conditions = ["id = ?", "state IN ({})".format(", ".join("?" * len(starts)))]
    conditions += ["{} = ?".format(column) for column in guard]
    statement = "UPDATE decision SET {} WHERE {}".format(  # noqa: S608 - our own column names; values are bound
        ", ".join("{} = ?".format(column) for column in written), " AND ".join(conditions)
    )
    values = (*written.values(), row_id, *starts, *guard.values())
    return connection.execute(statement, values).rowcount == 1


def prune(connection: sqlite3.Connection, now_ms: int, keep_days: float) -> int:
    """Forget the rows settled more than so many days ago; how many."""
    before_ms = now_ms - math.floor(keep_days * 86400 * 1000)
    statement = "DELETE FROM decision WHERE state = 'settled' AND ended_ms < ?"
    return connection.execute(statement, (before_ms,)).rowcount


def canonical_json(payload: Optional[Mapping[str, Any]]) -> Tuple[str, str]:
    """Give a payload as JSON text that is the same for the same object, and the SHA-256 of its UTF-8.

    Encoded, decoded and encoded again, so that ``{1: ()}`` and ``{"1": []}`` are one: they are on the wire.
    """
    payload = check_optional_mapping("payload", payload)
    try:
        decoded = json.loads(json.dumps(payload or {}, allow_nan=False), object_pairs_hook=_distinct)
        text = json.dumps(decoded, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return text, _digest(text)
    except (TypeError, ValueError, RecursionError) as error:  # ValueError: a cycle or a lone surrogate, too
        raise InvalidInput("the payload cannot be sent as JSON: {}".format(error)) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _distinct(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("two of its keys are the same in JSON, such as 1 and '1'")
    return found


def check_decision(decision: Decision) -> None:
    """Refuse what could not be stored, found again or sent."""
    for name in ("service", "idempotency_key", "thread_id", "request_id"):
        check_filled_text(name, getattr(decision, name))
    decision.check()
