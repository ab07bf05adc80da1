"""A decision, and its row in the outbox: the table, its legal moves, and the check of all that is sent of a row.

It is checked once on the way in and once on the way out: a row that holds what no outbox of ours writes is named and never
sent.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from .._check import check_headers, is_encodable, quoted
from .._json import loads
from ..errors import InvalidInput

ACTIONS = ("approve", "reject")
STATES = ("queued", "claimed", "settled", "dead")
CLOCK_SLACK_MS = 60000  # a clock that was set back by less counts as right
_LATEST_MS = 253402300800000  # the year 10000
_DEFAULT_PORTS = {"http": 80, "https": 443}

Partition = Tuple[str, str, str]  # service, tenant ("" in hosted mode) and thread: what keeps its order


APPLICATION_ID = 0x484C4F42  # "HLOB"
SCHEMA_VERSION = 2

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
        attempts INTEGER NOT NULL DEFAULT 0,
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
    # all that has not ended: a state that a damaged file makes up is found where the row's own was
    "CREATE INDEX decision_open ON decision (service, tenant_id, thread_id, id) WHERE state NOT IN ('settled', 'dead')",
    "CREATE INDEX decision_settled ON decision (ended_ms) WHERE state = 'settled'",
)

# Every legal move, and the one UPDATE that makes it: from which states, into which, and by whom.
MOVES: Mapping[str, str] = {
    # a claimed one only when its lease has run out (`Entry.is_due`); nobody has claimed it since it was read
    "claim": """
        UPDATE decision SET state = 'claimed', owner = :owner, lease_until_ms = :lease_until_ms, attempts = attempts + 1,
            changed_ms = :now_ms
        WHERE id = :id AND state IN ('queued', 'claimed') AND attempts = :attempts
    """,
    "release": """
        UPDATE decision SET state = 'queued', owner = NULL, lease_until_ms = NULL, next_attempt_ms = :next_attempt_ms,
            status_code = :status_code, reason = :reason, changed_ms = :now_ms
        WHERE id = :id AND state = 'claimed' AND owner = :owner
    """,
    "fail": """
        UPDATE decision SET state = 'dead', owner = NULL, lease_until_ms = NULL, ended_ms = :now_ms,
            status_code = :status_code, reason = :reason, changed_ms = :now_ms
        WHERE id = :id AND state = 'claimed' AND owner = :owner
    """,
    # the service has it, even if another process holds the row
    "complete": """
        UPDATE decision SET state = 'settled', owner = NULL, lease_until_ms = NULL, ended_ms = :now_ms,
            status_code = :status_code, answer = :answer, confirmed = :confirmed, reason = NULL, changed_ms = :now_ms
        WHERE id = :id AND state IN ('queued', 'claimed', 'dead')
    """,
    "requeue": """
        UPDATE decision SET state = 'queued', next_attempt_ms = :now_ms, ended_ms = NULL, changed_ms = :now_ms
        WHERE id = :id AND state = 'dead'
    """,
}


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
    def partition(self) -> Partition:
        """Within which it keeps its order."""
        return (self.service, self.tenant_id or "", self.thread_id)

    def headers(self) -> Dict[str, str]:
        """Give the headers it is sent with, beyond those of every request."""
        headers = {"Thread-Id": self.thread_id, "Idempotency-Key": self.idempotency_key}
        if self.tenant_id:
            headers["Tenant-Id"] = self.tenant_id
        return headers

    def check(self) -> None:
        """Refuse what could not be stored, found again or sent, the payload apart; `InvalidInput` names it."""
        if self.action not in ACTIONS:
            raise InvalidInput("action must be 'approve' or 'reject', not {}".format(quoted(self.action)))
        check_headers(dict(self.headers(), **{"X-Request-Id": self.request_id}))


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
        answer: the JSON object of the answer that settled it, or None.
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
    def is_pending(self) -> bool:
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
        """It may be claimed now, if it is the first of its partition; a delay of a clock that was ahead counts as over."""
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


COLUMNS = tuple(column.name for column in fields(Entry))
_TIMES = ("recorded_ms", "changed_ms", "next_attempt_ms", "lease_until_ms", "ended_ms")
_NUMBERS = frozenset(_TIMES + ("id", "attempts", "confirmed", "status_code"))
_OPTIONAL = frozenset(("owner", "lease_until_ms", "ended_ms", "status_code", "answer", "reason"))


def entry_of(found: Sequence[Any]) -> Entry:
    """Make an entry of a row, its values in the order of `COLUMNS`. Raises MalformedRow."""
    columns = dict(zip(COLUMNS, found))
    text = columns["payload"]
    try:
        _check_types(columns)
        columns["payload"] = json.loads(text)
        columns["answer"] = json.loads(columns["answer"] or "null")
        columns["tenant_id"] = columns["tenant_id"] or None
        columns["confirmed"] = bool(columns["confirmed"])
        entry = Entry(**columns)
        entry.check()
    except (InvalidInput, ValueError, RecursionError) as error:
        raise MalformedRow(columns["id"], getattr(error, "message", str(error))) from error
    if not isinstance(entry.payload, dict):
        raise MalformedRow(entry.id, "its payload is not a JSON object")
    if _digest(text) != entry.payload_digest:
        raise MalformedRow(entry.id, "its payload is not the one that was recorded")
    return entry


def _check_types(columns: Mapping[str, Any]) -> None:
    """Refuse a value of another type than was written, which SQLite itself would not mind."""
    for name, value in columns.items():
        if value is None and name in _OPTIONAL:
            continue
        if name in _NUMBERS:
            if not isinstance(value, int) or not 0 <= value < _LATEST_MS:
                raise InvalidInput("its {} is not a possible value".format(name))
        elif not isinstance(value, str) or not is_encodable(value):
            raise InvalidInput("its {} is not text".format(name))
    if columns["state"] not in STATES or (columns["state"] == "claimed") is (columns["owner"] is None):
        raise InvalidInput("its state is unknown")


def canonical_json(payload: Mapping[str, Any]) -> Tuple[str, str]:
    """Give a payload as JSON text that is the same for the same object, and the SHA-256 of its UTF-8.

    Encoded, decoded and encoded again, so that ``{1: ()}`` and ``{"1": []}`` are one: they are on the wire.
    """
    try:
        decoded = loads(json.dumps(payload, allow_nan=False))  # {1: "a", "1": "b"} names "1" twice
        text = json.dumps(decoded, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return text, _digest(text)
    except (TypeError, ValueError, RecursionError) as error:  # ValueError: a cycle or a lone surrogate, too
        raise InvalidInput("the payload cannot be sent as JSON: {}".format(error)) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
