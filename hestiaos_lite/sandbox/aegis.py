"""AEGIS: human-in-the-loop decisions, each accepted exactly once; a request in, a reply out."""

from __future__ import annotations

import hashlib
import threading
import uuid
from typing import Any, Callable, Dict, Mapping, Optional

from .messages import Refusal, Reply, Request, Routes, canned, need_headers, read_object, refusal
from .store import Store


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

    def __init__(self, store: Store, delay_seconds: float = 0.0, quota: Optional[int] = None) -> None:
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
            table[prefix + "/hitl/approve"] = {"POST": lambda request: self._decide(request, "approve")}
            table[prefix + "/hitl/reject"] = {"POST": lambda request: self._decide(request, "reject")}
            table[prefix + "/hitl/status/{request_id}"] = {"GET": self.status}
        return table

    def fail_next(self, times: int = 1) -> None:
        """Let the next accepted actions end FAILED instead of COMMITTED."""
        with self._lock:
            self._failures += times

    def status(self, request: Request, request_id: str) -> Dict[str, Any]:
        # Self-hosted clients may look with another tenant's header or none, so only a key narrows the search.
        found = self._store.action_by_request(request_id, _tenant_of_key(request))
        if found is None:
            raise refusal(404, "NOT_FOUND", "no action has this request id")
        return _public(found)

    def _decide(self, request: Request, action: str) -> Reply:
        tenant = _tenant_of_key(request)
        needed = ["Thread-Id", "Idempotency-Key"]
        need_headers(request, needed if tenant else ["Tenant-Id"] + needed)
        payload = read_object(request, empty_allowed=True)
        tenant = tenant or request.headers["tenant-id"]
        thread_id = request.headers["thread-id"]
        key = request.headers["idempotency-key"]
        request_id = request.headers.get("x-request-id") or str(uuid.uuid4())
        failing = self._take_failure()
        values = {
            "tenant": tenant,
            "thread_id": thread_id,
            "idempotency_key": key,
            "action": action,
            "payload": payload,
            "request_id": request_id,
            "outcome": "FAILED" if failing else "COMMITTED",
        }
        if self._store.add_action(values, self.delay_seconds, self.quota):
            return Reply(
                202,
                {"request_id": request_id, "status": "PENDING", "action": action, "idempotency_key": key},
            )
        if failing:
            self.fail_next()  # not used up: nothing was accepted
        original = self._store.action_by_key(tenant, thread_id, key)
        if original is None:
            raise refusal(429, "QUOTA_EXCEEDED", "this tenant has used up its {} actions".format(self.quota))
        raise Refusal(canned(409, self.conflict_body(_public(original))))

    def _take_failure(self) -> bool:
        with self._lock:
            if self._failures <= 0:
                return False
            self._failures -= 1
            return True


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


def _public(action: Dict[str, Any]) -> Dict[str, Any]:
    return {name: action[name] for name in ("request_id", "status", "action", "idempotency_key", "thread_id")}
