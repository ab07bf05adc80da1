"""What became of a decision of a person."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Dict, Mapping, Optional

from ._base import Model, answer


@answer
class ActionResult(Model):
    """What became of one approve or reject.

    Attributes:
        idempotency_key: the key of the decision.
        request_id: what ``get_status`` takes: the ``X-Request-Id`` it was sent with or, where the answer to a duplicate
            names it, that of the first request.
        status_code: 202 accepted, 409 duplicate (already processed: safe to ignore), None while queued in the outbox.
        attempts: how many times it was sent.
        data: the service's answer, or ``{}``. While queued, ``extra["reason"]`` says why, if it was tried.
        confirmed: False for a duplicate where nothing said what the key was first used for: it may have been the other
            action.
    """

    idempotency_key: str
    request_id: str
    status_code: Optional[int] = None
    attempts: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    confirmed: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """The service took it now (202, or any other 2xx)."""
        return self.status_code is not None and self.status_code < 300

    @property
    def duplicate(self) -> bool:
        """The service had it already (409)."""
        return self.status_code == 409

    @property
    def queued(self) -> bool:
        """It is in the outbox and is sent by the next flush."""
        return self.status_code is None

    @property
    def settled(self) -> bool:
        """The service has it: accepted or duplicate."""
        return self.accepted or self.duplicate

    def to_dict(self) -> Dict[str, Any]:
        """Return a dict fit for ``json.dumps``, with what the status code means spelled out."""
        meaning = {name: getattr(self, name) for name in ("accepted", "duplicate", "queued", "settled")}
        return dict(super().to_dict(), **meaning)


@answer
class ActionStatus(Model):
    """The state of one action: PENDING, then COMMITTED or FAILED.

    Attributes:
        request_id: of the action that was asked about.
        status: PENDING, COMMITTED or FAILED.
        action: ``approve`` or ``reject``, where the service says it.
        data: the service's whole answer.
    """

    request_id: str
    status: str
    action: Optional[str] = None
    data: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """The service will not change it any more."""
        return self.status in ("COMMITTED", "FAILED")

    @property
    def committed(self) -> bool:
        """The action took effect."""
        return self.status == "COMMITTED"

    @property
    def approved(self) -> bool:
        """The action took effect and is certainly an approval: any other word for it, or none, is not."""
        return self.committed and self.action == "approve"


@answer
class Conclusion(Model):
    """What a decision's deadline found: ``AegisClient.conclude`` rejects what nobody had decided by then.

    Attributes:
        idempotency_key: the key of the decision.
        outcome: ``approved``, ``pending`` (approved, and not committed yet), ``rejected``, ``expired`` (nobody had decided,
            and now nobody can), ``failed`` (approved, and the service could not carry it out), or ``unknown`` (somebody was
            first, and nobody can say with what).
        request_id: names the first decision in ``get_status``; None where the service did not say it.
        status: the service's word for its state, or None.
        attempts: how many times the question was sent.
    """

    idempotency_key: str
    outcome: str
    request_id: Optional[str] = None
    status: Optional[str] = None
    attempts: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def approved(self) -> bool:
        """Somebody approved in time and the action took effect: the only outcome to act upon."""
        return self.outcome == "approved"
