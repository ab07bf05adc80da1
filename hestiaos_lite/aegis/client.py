"""AegisClient: human approvals that take effect exactly once, whatever the network does.

A decision carries an idempotency key, so it may be sent again after any failure: the service answers 409 to a key it
has. With an outbox the decision is on disk before its first byte is sent, and a service that cannot be reached makes it
queued, not lost.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Mapping, Optional, Type, Union

from .. import config, errors
from .._check import check_optional_mapping, check_seconds, check_whole_number, quoted
from .._redact import secret
from ..deadline import Deadline
from ..models.aegis import ActionResult, ActionStatus, Conclusion
from ..wire.body import MAX_BODY_BYTES
from ..wire.call import aegis_policy
from ..wire.transport import Caller
from .answers import conclude, look, send
from .delivery import FlushReport, deliver, deliver_pending, flush
from .outbox import Outbox
from .rows import ACTIONS, Decision, service_of

if TYPE_CHECKING:
    import requests

__all__ = ["AegisClient"]

_TRANSIENT = (errors.ConnectionFailed, errors.RequestTimeout, errors.ServerError, errors.RateLimited)
# so that the trail does not take a timeout for a person
_NO_DECISION = {"reason": "no decision by the deadline"}


class AegisClient:
    """A synchronous client of the AEGIS human-in-the-loop layer; usable with and without ``with``, shared by threads.

    Args:
        base_url: http or https URL of the service; default ``AEGIS_BASE_URL``, the profile's ``aegis_base_url``, or
            ``http://localhost:8000``.
        api_key: hosted mode: sent as a bearer token (``AEGIS_API_KEY``, ``AEGIS_API_KEY_FILE``, ``aegis_api_key``).
        tenant_id: self-hosted mode: sent as ``Tenant-Id`` (``AEGIS_TENANT_ID``); needed only without an API key.
        thread_id: sent as ``Thread-Id`` (``AEGIS_THREAD_ID``). Tenant and thread can be given with each call.
        timeout: total deadline of one call in seconds, retries and waits included (``AEGIS_TIMEOUT``, ``aegis_timeout``).
        max_retries: extra attempts after a 5xx or a failed connection, after 0.5 s, 1 s, 2 s and so on to 8 s, under the
            same ``Idempotency-Key`` and ``X-Request-Id``. A 4xx is never retried.
        api_prefix: path before ``/hitl``; ``""`` for the service's first release.
        session: a ``requests.Session`` to use, as for `Client`; it is never closed.
        outbox: an `Outbox`; decisions are then recorded before they are sent, and queued when the service is away.
        verify: as for requests.
        profile: section of the configuration file.
        max_body_bytes: the largest answer that is read, 8 MiB by default; a larger one is InvalidResponse.

    Raises:
        InvalidInput: a setting is malformed (code ``CONFIGURATION``), or an argument is of the wrong type; nothing was sent.
    """

    def __init__(
        self,
        base_url: Optional[str] = None,
        *,
        api_key: Optional[str] = None,
        tenant_id: Optional[str] = None,
        thread_id: Optional[str] = None,
        timeout: Union[float, config.NotGiven, None] = config.AEGIS_TIMEOUT,
        max_retries: int = 3,
        api_prefix: str = "/api/v1",
        session: Optional[requests.Session] = None,
        outbox: Optional[Outbox] = None,
        verify: Union[bool, str, None] = None,
        profile: Optional[str] = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        # what a tool shows of this frame's variables, should anything below be refused
        base_url, api_key = secret(base_url), secret(api_key)
        settings = config.resolve(
            "aegis",
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            profile=profile,
            tenant_id=tenant_id,
            thread_id=thread_id,
            mounted=getattr(session, "adapters", ()),
        )
        if outbox is not None and not isinstance(outbox, Outbox):
            raise errors.InvalidInput("outbox must be an Outbox, not {}".format(type(outbox).__name__))
        if outbox is not None and outbox.lease_seconds <= settings.timeout_seconds:
            raise errors.InvalidInput(
                "the outbox's lease ({:g} s) must be longer than the timeout ({:g} s), or a row that is still being sent "
                "would be sent by another as well".format(outbox.lease_seconds, settings.timeout_seconds),
                code=config.CONFIGURATION,
            )
        self._settings = settings
        max_retries = check_whole_number("max_retries", max_retries, code=config.CONFIGURATION)
        prefix = config.check_prefix(api_prefix)
        self._service = service_of(settings.base_url, prefix)
        self._caller = Caller(
            settings,
            retry=aegis_policy(max_retries),
            max_body_bytes=max_body_bytes,
            prefix=prefix + "/hitl",
            session=session,
            verify=verify,
        )
        self.outbox = outbox

    @property
    def base_url(self) -> str:
        """The service's URL, without a trailing slash."""
        return self._settings.base_url

    def approve(
        self,
        idempotency_key: str,
        *,
        tenant_id: Optional[str] = None,
        thread_id: Optional[str] = None,
        payload: Optional[Mapping[str, Any]] = None,
    ) -> ActionResult:
        """Approve the action that ``idempotency_key`` names; see `execute`."""
        return self.execute(
            "approve", idempotency_key, tenant_id=tenant_id, thread_id=thread_id, payload=payload
        )

    def reject(
        self,
        idempotency_key: str,
        *,
        tenant_id: Optional[str] = None,
        thread_id: Optional[str] = None,
        payload: Optional[Mapping[str, Any]] = None,
    ) -> ActionResult:
        """Reject the action that ``idempotency_key`` names; see `execute`."""
        return self.execute(
            "reject", idempotency_key, tenant_id=tenant_id, thread_id=thread_id, payload=payload
        )

    def execute(
        self,
        action: str,
        idempotency_key: str,
        *,
        tenant_id: Optional[str] = None,
        thread_id: Optional[str] = None,
        payload: Optional[Mapping[str, Any]] = None,
    ) -> ActionResult:
        """Send one decision, ``approve`` or ``reject``, with a payload object (default ``{}``).

        The key names what is decided: put into it everything that must not change, such as the amount. A second decision
        under the same key is a duplicate whatever its payload (only an outbox compares them). One that waits in an outbox
        may miss the deadline: once the key is concluded, it is refused. Nobody is notified that there is something to
        decide: send people the key.

        Returns:
            A result that is ``settled`` (202 accepted, or 409: the service had it, and ``confirmed`` says whether it is
            known for which action) or, with an outbox only, ``queued``.
            With an outbox the older decisions of the same thread go first, and one that the outbox has as settled is
            a ``duplicate`` without being sent again.

        Raises:
            ValueError: another action, or a tenant or thread id is missing; nothing was sent.
            InvalidInput: a value cannot be sent as a header or as JSON, or the service refused it (400, 422).
            IdempotencyConflict: the outbox has this key for another action or payload and nothing was sent, or the
                service says that it has the key for the other action, or accepted another.
            InvalidResponse: a 2xx that is not a 202 with a JSON object or no body.
            RateLimited: 429, without an outbox.
            ConnectionFailed, RequestTimeout, ServerError: without an outbox, when the last attempt failed.
            AuthenticationError, PermissionDenied, NotFound: credentials or address are wrong. With an outbox the decision
                stays queued there.
            Conflict: the outbox holds this decision as dead; nothing was sent.
            HestiaError: code ``OUTBOX``, ``OUTBOX_BUSY`` or ``OUTBOX_DISK``: the decision could not be recorded and was
                not sent, or (``delivered`` True) the service's answer could not be written down.
        """
        decision = self._decision(action, idempotency_key, tenant_id, thread_id, payload)
        deadline = Deadline(self._settings.timeout_seconds)
        if self.outbox is not None:
            return deliver(self.outbox, self._caller, decision, deadline)
        return send(self._caller, decision, deadline)

    def conclude(
        self,
        idempotency_key: str,
        *,
        tenant_id: Optional[str] = None,
        thread_id: Optional[str] = None,
        payload: Optional[Mapping[str, Any]] = None,
    ) -> Conclusion:
        """Decide at the deadline: reject what nobody has decided by now, and say what was decided before.

        It cannot look without deciding: if nobody has decided, this call rejects. Tenant and thread are part of the key: under
        a wrong one nobody has decided. An approval does not reserve the action for one job: the step that acts must itself
        be idempotent. Running it again is safe and changes nothing; a key that it let expire is then ``rejected``.

        Args:
            idempotency_key: what people approve or reject until then.
            tenant_id, thread_id: as for `execute`.
            payload: default ``{"reason": "no decision by the deadline"}``.

        Returns:
            What was found; `Conclusion.outcome` has the six words. With an outbox the decisions of that thread that wait
            in it go first, and while one of this key cannot be sent nothing is concluded (``pending``). The conclusion
            itself is never queued.

        Raises:
            HestiaError: as for `execute` without an outbox; where `HestiaError.effect` is ``unknown``, run it again.
        """
        if payload is None:
            payload = _NO_DECISION
        decision = self._decision("reject", idempotency_key, tenant_id, thread_id, payload)
        deadline = Deadline(self._settings.timeout_seconds)
        if self.outbox is not None:
            pending = deliver_pending(self.outbox, self._caller, decision, deadline)
            if pending is not None:
                return Conclusion(idempotency_key, "pending", pending.request_id, None, pending.attempts)
        return conclude(self._caller, decision, deadline)

    def get_status(self, request_id: str) -> ActionStatus:
        """Ask for the state of an action, by the ``request_id`` of its `ActionResult`.

        Raises:
            NotFound: the service knows no such request.
            InvalidResponse: the answer is about another request.
        """
        return look(self._caller, request_id, Deadline(self._settings.timeout_seconds))

    def wait(self, request_id: str, *, timeout: float, poll: float = 1.0) -> ActionStatus:
        """Ask for an action's state every ``poll`` seconds until it is COMMITTED or FAILED, or ``timeout`` seconds have passed.

        When the time is up it asks once more and returns what it gets, PENDING too: silence is never a rejection. While
        there is time, a request that failed for a passing reason, or was cut short by the end of the time, is repeated.
        Only the last request may take the client's own timeout on top.

        Raises:
            NotFound: the service knows no such request.
            ConnectionFailed, RequestTimeout, ServerError, RateLimited: the last request failed.
        """
        check_seconds("timeout", timeout, least=0.0)
        check_seconds("poll", poll, least=0.001)
        deadline = Deadline(timeout)
        while True:
            left_seconds = deadline.remaining()
            is_last = left_seconds <= 0
            most_seconds = self._settings.timeout_seconds
            pause_seconds = poll
            try:
                seconds = most_seconds if is_last else min(most_seconds, left_seconds)
                status = look(self._caller, request_id, Deadline(seconds))
                if status.done or is_last:
                    return status
            except _TRANSIENT as error:
                if is_last:
                    raise
                pause_seconds = max(poll, error.retry_after or 0.0)
            time.sleep(max(0.0, min(pause_seconds, deadline.remaining())))

    def flush(self) -> FlushReport:
        """Send what is due in the outbox for this service and mode, oldest first per thread id, with the original keys.

        Raises:
            ValueError: this client has no outbox.
            AuthenticationError, PermissionDenied, NotFound, InvalidInput, InvalidResponse: credentials, address or a
                setting is wrong; the row stays queued and the flush ends, since every other row would fail too.
        """
        if self.outbox is None:
            raise ValueError("this client has no outbox: AegisClient(outbox=Outbox(path))")
        return flush(self.outbox, self._caller, self._service, hosted=self._is_hosted)

    def close(self) -> None:
        """Close every idle connection; the outbox, which the caller opened, stays open."""
        self._caller.close()

    def __enter__(self) -> AegisClient:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        # a client whose construction failed has no settings
        return "<AegisClient {}>".format(self.base_url if hasattr(self, "_settings") else "of no service")

    @property
    def _is_hosted(self) -> bool:
        return self._settings.api_key is not None

    def _decision(
        self,
        action: str,
        idempotency_key: str,
        tenant_id: Optional[str],
        thread_id: Optional[str],
        payload: Optional[Mapping[str, Any]],
    ) -> Decision:
        """Check the arguments of one decision."""
        if action not in ACTIONS:
            raise ValueError("action must be 'approve' or 'reject', not {}".format(quoted(action)))
        thread = thread_id or self._settings.thread_id
        tenant = None if self._is_hosted else tenant_id or self._settings.tenant_id
        cures = [] if thread else ["thread_id (AEGIS_THREAD_ID)"]
        if not tenant and not self._is_hosted:
            cures.append("tenant_id (AEGIS_TENANT_ID), or an api_key (AEGIS_API_KEY)")
        if cures or not thread:
            raise ValueError("missing: {}; pass it to the client or to the call".format(" and ".join(cures)))
        given = check_optional_mapping("payload", payload) or {}
        request_id = str(uuid.uuid4())
        decision = Decision(self._service, action, idempotency_key, tenant, thread, request_id, given)
        decision.check()
        return decision
