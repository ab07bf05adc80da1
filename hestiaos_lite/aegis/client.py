"""AegisClient: human approvals that take effect exactly once, whatever the network does.

A decision stands under an idempotency key, so it may be sent again after any failure: the service answers 409 to a key it
has. With an outbox the decision is on disk before its first byte is sent, and a service that cannot be reached makes it
queued, not lost.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Type, Union

from .. import config, errors
from .._check import check_headers, check_segment, check_whole_number
from ..deadline import Deadline
from ..models import ActionResult, ActionStatus
from ..wire import answers, retry
from ..wire.caller import Caller
from ..wire.transport import Transport
from .outbox import Answer, FlushReport, Outbox
from .rows import Row

if TYPE_CHECKING:
    import requests

__all__ = ["AegisClient"]

ACTIONS = ("approve", "reject")
_SHORTEST_SECRET = (
    8  # shorter texts of a payload are common words, and masking them would make an error unreadable
)
_TRANSIENT = (errors.ConnectionFailed, errors.RequestTimeout, errors.ServerError, errors.RateLimited)


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
        session: a ``requests.Session`` to use; it is never closed.
        outbox: an `Outbox`; decisions are then recorded before they are sent, and queued when the service is away.
        verify: as for requests.
        profile: section of the configuration file.

    Raises:
        InvalidInput: a setting is malformed (code ``CONFIGURATION``); nothing was sent.
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
    ) -> None:
        settings = config.resolve(
            "aegis",
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            profile=profile,
            tenant_id=tenant_id,
            thread_id=thread_id,
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
        policy = retry.with_key(check_whole_number("max_retries", max_retries, code=config.CONFIGURATION))
        self._caller = Caller(
            Transport(settings.base_url, settings.api_key, session=session, verify=verify),
            settings.timeout_seconds,
            once=policy,
            repeatable=policy,
            prefix=config.check_prefix(api_prefix) + "/hitl",
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
        """Approve the action that ``idempotency_key`` stands for; see `execute`."""
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
        """Reject the action that ``idempotency_key`` stands for; see `execute`."""
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

        Returns:
            A result that is ``settled`` (202 accepted, or 409: the service had it) or, with an outbox only, ``queued``.
            With an outbox the older decisions of the same thread go first, and one that the outbox knows as settled is
            a ``duplicate`` without being sent again.

        Raises:
            ValueError: another action, or a tenant or thread id is missing; nothing was sent.
            InvalidInput: a value cannot be sent as a header or as JSON, or the service refused it (400, 422).
            IdempotencyConflict: the outbox has this key for another action or payload and nothing was sent, or the
                service's 409 says that it has the key for the other action.
            InvalidResponse: a 2xx that is no 202 with a JSON object or no body.
            RateLimited: 429, without an outbox.
            ConnectionFailed, RequestTimeout, ServerError: without an outbox, when the last attempt failed.
            HestiaError: code ``OUTBOX``: the decision could not be recorded, and was not sent.
        """
        if action not in ACTIONS:
            raise ValueError("action must be 'approve' or 'reject', not {!r}".format(action))
        thread = thread_id or self._settings.thread_id
        tenant = None if self._settings.api_key else tenant_id or self._settings.tenant_id
        if not thread:
            raise ValueError("thread_id is missing: give it to the client or to the call")
        if not tenant and not self._settings.api_key:
            raise ValueError("tenant_id is missing: give it, or an api_key, to the client or to the call")
        if payload is not None and not isinstance(payload, Mapping):
            raise errors.InvalidInput("payload must be a mapping, not {}".format(type(payload).__name__))
        request_id = str(uuid.uuid4())
        send = self._decision(action, idempotency_key, tenant, thread, payload or {}, request_id)
        if self.outbox is not None:
            row = self.outbox.record(
                action,
                idempotency_key,
                tenant_id=tenant,
                thread_id=thread,
                payload=payload,
                request_id=request_id,
                base_url=self.base_url,
            )
            return self._through_outbox(self.outbox, row)
        answer = send(self._settings.timeout_seconds)
        return _result(idempotency_key, request_id, answer.status, answer.attempts, answer.body)

    def get_status(self, request_id: str) -> ActionStatus:
        """Ask where an action stands, by the ``request_id`` of its `ActionResult`.

        Raises:
            NotFound: the service knows no such request.
        """

        def decode(body: Any) -> ActionStatus:
            status = ActionStatus.from_dict(
                dict({"request_id": request_id}, **body) if isinstance(body, dict) else body
            )
            return ActionStatus(status.request_id, status.status, status.action, body)

        return self._caller.get("/status/" + check_segment("request_id", request_id), decode)

    def wait(self, request_id: str, *, timeout: float, poll: float = 1.0) -> ActionStatus:
        """Look at an action every ``poll`` seconds until it is COMMITTED or FAILED, or ``timeout`` seconds have passed.

        When the time is up it looks once more and returns what it sees, PENDING too: silence is never a rejection. While
        there is time, a look that failed for a passing reason is taken again. The last look may take the client's own
        timeout on top.

        Raises:
            NotFound: the service knows no such request.
            ConnectionFailed, RequestTimeout, ServerError, RateLimited: the last look failed.
        """
        for name, value, least in (("timeout", timeout, 0.0), ("poll", poll, 0.001)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e8:
                raise errors.InvalidInput("{} must be {:g} s or more, not {!r}".format(name, least, value))
        deadline = Deadline(timeout)
        while True:
            is_last = deadline.remaining() <= 0
            pause_seconds = poll
            try:
                status = self.get_status(request_id)
                if status.done or is_last:
                    return status
            except _TRANSIENT as error:
                if is_last:
                    raise
                pause_seconds = max(poll, error.retry_after or 0.0)
            time.sleep(max(0.0, min(pause_seconds, deadline.remaining())))

    def flush(self) -> FlushReport:
        """Send what is due in the outbox, oldest first per thread id, with the original keys; see `Outbox.flush`.

        Raises:
            ValueError: this client has no outbox.
        """
        if self.outbox is None:
            raise ValueError("this client has no outbox: AegisClient(outbox=Outbox(path))")
        return self.outbox.flush(self._send_row)

    def close(self) -> None:
        """Close every connection; the outbox, which the caller opened, stays open."""
        self._caller.close()

    def __enter__(self) -> AegisClient:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<AegisClient {}>".format(self.base_url)

    def _decision(
        self,
        action: str,
        idempotency_key: str,
        tenant_id: Optional[str],
        thread_id: str,
        payload: Mapping[str, Any],
        request_id: str,
    ) -> Callable[[float], answers.Answer]:
        """Check the request of one decision, and return what sends it; it is the same whether sent now or from the outbox."""
        headers = {"Thread-Id": thread_id, "Idempotency-Key": idempotency_key}
        if tenant_id and not self._settings.api_key:
            headers["Tenant-Id"] = tenant_id
        headers = check_headers(headers)

        def send(timeout_seconds: float) -> answers.Answer:
            answer = self._caller.post_for_answer(
                "/" + action,
                dict(payload),
                headers=headers,
                request_id=request_id,
                secrets=tuple(_texts(payload)),
                accept=(409,),
                timeout_seconds=timeout_seconds,
            )
            return _checked(action, request_id, answer)

        return send

    def _send_row(self, row: Row, timeout_seconds: Optional[float] = None) -> Answer:
        """Send one row of the outbox."""
        if not row.tenant_id and not self._settings.api_key:
            raise errors.InvalidInput(
                "row {} was recorded for the hosted service: give the client an api_key".format(row.id),
                code=config.CONFIGURATION,
            )
        send = self._decision(
            row.action, row.idempotency_key, row.tenant_id, row.thread_id, row.payload, row.request_id
        )
        answer = send(self._settings.timeout_seconds if timeout_seconds is None else timeout_seconds)
        return Answer(answer.status, _data(answer.body))

    def _through_outbox(self, outbox: Outbox, row: Row) -> ActionResult:
        """Send a recorded decision, after the older ones of its thread, and tell what became of it."""
        if row.state == "settled":
            return _result(row.idempotency_key, row.request_id, 409, 0, row.answer)
        refusal: Optional[errors.HestiaError] = None
        if row.state != "dead":
            deadline = Deadline(
                self._settings.timeout_seconds
            )  # one for all: a long backlog must not hold up this call

            def send(older: Row) -> Answer:
                nonlocal refusal
                remaining = deadline.remaining()
                if remaining <= 0:
                    raise errors.RequestTimeout("no time left for this row", delivered=False)
                try:
                    return self._send_row(older, remaining)
                except errors.HestiaError as error:
                    if older.id == row.id:
                        refusal = error
                    raise

            outbox.flush(send, until=row, unreachable_limit=1)
            row = outbox.get(row.id)
        if row.state == "dead":
            if refusal is not None:
                raise refusal
            raise errors.Conflict(
                "row {} of the outbox {} holds this decision as dead: {}".format(
                    row.id, outbox.path, row.reason
                ),
                request_id=row.request_id,
                delivered=False,
            )
        status = row.status_code if row.state == "settled" else None
        if status is None:
            return ActionResult(
                row.idempotency_key, row.request_id, None, row.attempts, extra={"reason": row.reason}
            )
        return _result(row.idempotency_key, row.request_id, status, row.attempts, row.answer)


def _checked(action: str, request_id: str, answer: answers.Answer) -> answers.Answer:
    """Return the answer to a decision if it is one: 202, or a 409 that does not speak of the other action."""
    facts = {
        "request_id": request_id,
        "attempts": answer.attempts,
        "status": answer.status,
        "details": answer.body,
        "delivered": True,
    }
    if answer.status == 409:
        stands_for = _data(answer.body).get("action")
        if isinstance(stands_for, str) and stands_for != action:
            raise errors.IdempotencyConflict(
                "this idempotency key already stands for {!r}, not {!r}".format(stands_for, action), **facts
            )
    elif answer.status != 202 or not isinstance(answer.body, (dict, type(None))):
        # some other service on that port must not swallow an approval
        raise errors.InvalidResponse(
            "the answer is no 202 with a JSON object, as the contract has it", **facts
        )
    return answer


def _result(
    idempotency_key: str, request_id: str, status: Optional[int], attempts: int, body: Any
) -> ActionResult:
    data = _data(body)
    known_as = data.get(
        "request_id"
    )  # of a duplicate the service knows the first request, and only that has a status
    return ActionResult(
        idempotency_key,
        known_as if isinstance(known_as, str) and known_as else request_id,
        status,
        attempts,
        data,
    )


def _data(body: Any) -> Dict[str, Any]:
    return body if isinstance(body, dict) else {}


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a payload: an error must not repeat what the service may echo of them."""
    pending: List[Any] = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str) and len(value) >= _SHORTEST_SECRET:
            yield value
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
