"""Asking AEGIS, and what it answers: the one place that says whether an answer means the decision that was sent.

A 409 says that the service has the key already, not for what: it means the action that its body names or, where
the body names only a request, what that request's status says. Nothing here is read as an approval for want of a word
against it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Set

from .._check import check_segment
from .._redact import secret
from ..errors import NONE, HestiaError, IdempotencyConflict, InvalidResponse
from ..models import is_refusal
from ..models.aegis import ActionResult, ActionStatus, Conclusion

if TYPE_CHECKING:
    from ..deadline import Deadline
    from ..wire.answers import Answer
    from ..wire.transport import Caller
    from .rows import Decision

DUPLICATE = 409
# shorter texts of a payload are common words, and masking them would make an error unreadable
_SHORTEST_SECRET = 8


def send(caller: Caller, decision: Decision, deadline: Deadline) -> ActionResult:
    """Send one decision, and give what the service said to it: 202 or 409.

    Raises:
        IdempotencyConflict: the key was used for another action.
        InvalidResponse: it is no answer of this service.
        HestiaError: whatever else the service, or the way to it, has against it.
    """
    answer = _post(caller, decision, deadline)
    actions = _actions_in(answer.body)
    if answer.status == DUPLICATE and not actions:
        first = _first_status(caller, answer, deadline)
        actions = _actions_in(first.data) if first else []
    _refuse_other_actions(decision, answer, actions)
    confirmed = answer.status != DUPLICATE or bool(actions)
    return result_of(decision, answer.status, answer.attempts, answer.body, confirmed)


def conclude(caller: Caller, decision: Decision, deadline: Deadline) -> Conclusion:
    """Send the rejection of a key at its deadline, and say what it has found. Raises as `send` does."""
    answer = _post(caller, decision, deadline)
    actions = _actions_in(answer.body)
    request_id, status = text_in(answer.body, "request_id"), text_in(answer.body, "status")
    if answer.status == DUPLICATE:
        if not actions or status is None:
            first = _first_status(caller, answer, deadline)
            if first is not None:
                status = first.status
                actions += _actions_in(first.data)
        # Our own first attempt, whose answer was lost. Without one, the service echoes whatever request it answers.
        was_ours = request_id == decision.request_id and answer.earlier_effect != NONE
        outcome = (
            "expired" if was_ours and all(map(is_refusal, actions)) else _outcome_of_first(actions, status)
        )
    else:
        _refuse_other_actions(decision, answer, actions)
        outcome = "expired"
    return Conclusion(decision.idempotency_key, outcome, request_id, status, answer.attempts)


def look(caller: Caller, request_id: str, deadline: Deadline) -> ActionStatus:
    """Look at the status of a request; an answer about another one is `InvalidResponse`."""

    def decode(body: Any) -> ActionStatus:
        named = dict({"request_id": request_id}, **body) if isinstance(body, dict) else body
        status = ActionStatus.from_dict(named)
        if status.request_id != request_id:
            raise InvalidResponse("the answer is about another request", details=body)
        return ActionStatus(status.request_id, status.status, status.action, body)

    return caller.get("/status/" + check_segment("request_id", request_id), decode, deadline=deadline)


def _post(caller: Caller, decision: Decision, deadline: Deadline) -> Answer:
    answer = caller.send(
        "POST",
        "/" + decision.action,
        decision.payload,
        headers=decision.headers(),
        request_id=decision.request_id,
        secrets=tuple(_texts_in(decision.payload)),
        accept=(DUPLICATE,),
        deadline=deadline,
    )
    if answer.status == DUPLICATE or answer.status == 202 and isinstance(answer.body, (dict, type(None))):
        return answer
    raise InvalidResponse(  # another service on that port
        "the answer is not a 202 with a JSON object, which the contract requires", **_facts(decision, answer)
    )


def _outcome_of_first(actions: List[Any], status: Optional[str]) -> str:
    """Say what was decided first, by the actions that the service names for it and its status."""
    if any(map(is_refusal, actions)):
        return "rejected"
    if not actions or status is None or any(action != "approve" for action in actions):
        return "unknown"
    first = ActionStatus("", status, "approve")
    if first.approved:
        return "approved"
    return "failed" if first.done else "rejected" if is_refusal(status) else "pending"


def _first_status(caller: Caller, answer: Answer, deadline: Deadline) -> Optional[ActionStatus]:
    """Ask for the status of the request that a 409 names; None where it names none or nobody can say. It never raises."""
    request_id = text_in(answer.body, "request_id")
    if request_id is None:
        return None
    try:
        return look(caller, request_id, deadline)
    except HestiaError:
        return None  # the 409 is in hand, and says the same as without this look


def result_of(
    decision: Decision, status: Optional[int], attempts: int, body: Any, confirmed: bool
) -> ActionResult:
    """Make the result of a decision; of a duplicate the service knows the first request, and only that has a status."""
    request_id = text_in(body, "request_id") or decision.request_id
    data = body if isinstance(body, dict) else {}
    return ActionResult(decision.idempotency_key, request_id, status, attempts, data, confirmed)


def text_in(body: Any, name: str) -> Optional[str]:
    """Find a text in an answer, flat or under ``detail``."""
    return next((value for value in _values_in(body, name) if isinstance(value, str)), None)


def _values_in(body: Any, name: str) -> Iterator[Any]:
    level = body
    for _ in range(2):
        if not isinstance(level, Mapping):
            return
        if level.get(name) not in (None, ""):
            yield level[name]
        level = level.get("detail")


def _actions_in(body: Any) -> List[Any]:
    """Every action that an answer names, in the service's own spelling but for case."""
    found = _values_in(body, "action")
    return [action.strip().lower() if isinstance(action, str) else action for action in found]


def _refuse_other_actions(decision: Decision, answer: Answer, actions: List[Any]) -> None:
    for action in actions:
        if action == decision.action:
            continue
        facts = _facts(decision, answer)
        what = "the service recorded {!r} under this idempotency key, not {!r}".format(
            action, decision.action
        )
        if answer.status == DUPLICATE and is_refusal(action):
            # Whose rejection it was, the service does not say; with a new key nobody would look for the decision.
            facts["advice"] = "the first decision is final"
            what = (
                "{} was rejected before this was sent: by somebody, or because its deadline had passed and it was"
                " concluded; {}".format(decision.idempotency_key, what)
            )
        raise IdempotencyConflict(what, **facts)


def _facts(decision: Decision, answer: Answer) -> Dict[str, Any]:
    return {
        "request_id": decision.request_id,
        "attempts": answer.attempts,
        "status": answer.status,
        "details": answer.body,
        "delivered": True,
    }


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts of a payload: an error must not repeat what the service may echo of them."""
    pending: List[Any] = [value]
    seen: Set[int] = set()  # a payload that contains itself is refused, but later: when it is encoded
    while pending:
        value = pending.pop()
        if isinstance(value, str) and len(value) >= _SHORTEST_SECRET:
            yield secret(value)
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            pending.extend(value.values() if isinstance(value, Mapping) else value)
