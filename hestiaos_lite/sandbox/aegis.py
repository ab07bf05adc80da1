"""AEGIS: human-in-the-loop decisions, each accepted exactly once; a request in, a reply out."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, Optional

from .messages import Reply, Request, Routes, need_headers, read_object, refusal
from .store import Store

# Uniqueness of (tenant, thread, key) is the table's UNIQUE constraint and the quota a condition of the same INSERT,
# so no two callers can both read that theirs was accepted, in whatever thread or process.
_ADD = """
INSERT OR IGNORE INTO actions
    (tenant, thread_id, idempotency_key, action, payload, request_id, outcome, accepted_ms, ready_ms)
SELECT :tenant, :thread_id, :idempotency_key, :action, :payload, :request_id, :outcome, :now_ms, :now_ms + :delay_ms
WHERE :quota IS NULL OR (SELECT COUNT(*) FROM actions WHERE tenant = :tenant) < :quota
"""
_LOOK = """
SELECT tenant, thread_id, idempotency_key, action, payload, request_id, accepted_ms,
    CASE WHEN ready_ms <= :now_ms THEN outcome ELSE 'PENDING' END AS status
FROM actions
"""
_OF_KEY = "WHERE tenant = :tenant AND thread_id = :thread_id AND idempotency_key = :idempotency_key"
_OF_REQUEST = (
    "WHERE request_id = :request_id AND (:tenant IS NULL OR tenant = :tenant) ORDER BY id DESC LIMIT 1"
)
_PUBLIC = ("request_id", "status", "action", "idempotency_key", "thread_id")


class AegisRoutes:
    """The AEGIS half of the sandbox, under ``/api/v1`` and, as its first release had it, without.

    An action is PENDING for ``delay_seconds`` after it was accepted, then COMMITTED (or FAILED, where
    scripted); the state is computed at each look-up. The attributes may be changed while the sandbox runs:

    Attributes:
        delay_seconds: how long an action accepted from now on stays PENDING.
        quota: how many actions a tenant may have in all before further ones get 429; None for no limit.
        conflict_body: makes the body of a 409 from the action that came first, a mapping of request_id, status,
            action, idempotency_key and thread_id. Services differ in it: this one has them flat and under
            ``detail``. Bytes and text are sent as they are, anything else as JSON.
    """

    def __init__(self, store: Store, delay_seconds: float, quota: Optional[int]) -> None:
        self._store = store
        self.delay_seconds = delay_seconds
        self.quota = quota
        self.conflict_body: Callable[[Mapping[str, Any]], Any] = flat_and_detail
        self._lock = threading.Lock()
        self._failures = 0

    def routes(self) -> Routes:
        """The table of endpoints."""
        table: Routes = {}
        for prefix in ("/api/v1", ""):
            for action in ("approve", "reject"):
                table["{}/hitl/{}".format(prefix, action)] = {"POST": partial(self._decide, action)}
            table[prefix + "/hitl/status/{request_id}"] = {"GET": self._status}
        return table

    def fail_next(self, times: int = 1) -> None:
        """Let the next accepted actions end FAILED instead of COMMITTED."""
        with self._lock:
            self._failures += times

    def actions(self, condition: str = "ORDER BY id", **values: Any) -> List[Dict[str, Any]]:
        """Every action, oldest first, or those that meet a condition in SQL."""
        rows = self._store.read(_LOOK + condition, dict(values, now_ms=_now_ms()))
        return [dict(row, payload=json.loads(row["payload"])) for row in rows]

    def _status(self, request: Request, request_id: str) -> Dict[str, Any]:
        # Self-hosted clients may look with another tenant's header or none, so only a key narrows the search.
        found = self.actions(_OF_REQUEST, request_id=request_id, tenant=_tenant_of_key(request))
        if not found:
            raise refusal(404, "NOT_FOUND", "no action has this request id")
        return {name: found[0][name] for name in _PUBLIC}

    def _decide(self, action: str, request: Request) -> Reply:
        tenant = _tenant_of_key(request)
        needed = ["Thread-Id", "Idempotency-Key"]
        need_headers(request, needed if tenant else ["Tenant-Id"] + needed)
        values = {
            "tenant": tenant or request.headers["tenant-id"],
            "thread_id": request.headers["thread-id"],
            "idempotency_key": request.headers["idempotency-key"],
            "action": action,
            "request_id": request.headers.get("x-request-id") or str(uuid.uuid4()),
            "status": "PENDING",
        }
        payload = json.dumps(read_object(request, empty_allowed=True))
        if self._add(values, payload):
            return Reply(202, {name: values[name] for name in _PUBLIC[:-1]})
        first = self.actions(_OF_KEY, **values)
        if not first:
            raise refusal(429, "QUOTA_EXCEEDED", "this tenant has used up its {} actions".format(self.quota))
        return Reply(409, self.conflict_body({name: first[0][name] for name in _PUBLIC}))

    def _add(self, values: Mapping[str, Any], payload: str) -> bool:
        """Accept an action once: False when its key is taken or the tenant's quota is used up."""
        with self._lock:
            failing = self._failures > 0
            outcome = "FAILED" if failing else "COMMITTED"
            row = dict(values, payload=payload, outcome=outcome, quota=self.quota)
            row.update(now_ms=_now_ms(), delay_ms=int(self.delay_seconds * 1000))
            added = self._store.write(_ADD, row) == 1
            self._failures -= added and failing  # not used up where nothing was accepted
        return added


def flat_and_detail(action: Mapping[str, Any]) -> Dict[str, Any]:
    """The usual body of a 409: an error whose facts are those of the action that came first."""
    body = dict(action, code="DUPLICATE", message="this idempotency key was already processed")
    return dict(body, detail=body)


def _tenant_of_key(request: Request) -> Optional[str]:
    """The tenant of a hosted caller: a digest of its API key, so that the key itself is never stored."""
    authorization = request.headers.get("authorization")
    if authorization is None:
        return None
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise refusal(401, "UNAUTHORIZED", "the Authorization header is not Bearer")
    return "key-" + hashlib.sha256(key.strip().encode("utf-8")).hexdigest()[:32]


def _now_ms() -> int:
    return int(time.time() * 1000)
