"""Scripted and random faults: which of them the next request meets."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, List, NamedTuple, Optional, Sequence, Union

from .messages import Reply, Request, canned


class Injected(NamedTuple):
    """A fault that was met, and by whom; ``kind`` is a status, drop, lose, delay or drop_stream."""

    kind: str
    method: str
    path: str
    request_id: Optional[str]


@dataclass
class Fault:
    """One line of the script; used up when ``times`` is 0."""

    kind: str
    times: int = 1
    path: Optional[str] = None
    reply: Optional[Reply] = None
    delay_seconds: float = 0.0
    after_events: int = 0


class Faults:
    """A script of faults, shared by all threads.

    A request meets at most one delay, one outcome (an error answer, a drop, a lost answer) and, when its
    answer is a stream, one stream drop; each kind in the order it was scripted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._script: List[Fault] = []
        self._injected: List[Injected] = []
        self._random = random.Random()
        self._rate = 0.0
        self._kinds: Sequence[str] = ()

    def add(self, fault: Fault) -> None:
        """Append to the script. Raises ValueError for a count below 1 or a negative delay."""
        if fault.times < 1 or not 0 <= fault.delay_seconds <= threading.TIMEOUT_MAX or fault.after_events < 0:
            raise ValueError("times must be at least 1, seconds and after_events not negative")
        with self._lock:
            self._script.append(fault)

    def set_random(self, rate: float, seed: int, kinds: Sequence[str]) -> None:
        """From now on draw an outcome for each request that has none scripted; rate 0 ends it."""
        if not 0 <= rate <= 1:
            raise ValueError("rate must be from 0 to 1")
        for kind in kinds:
            if kind not in ("drop", "lose") and not (kind.isdigit() and 400 <= int(kind) <= 599):
                raise ValueError("unknown kind of fault {!r}: a status from 400, drop or lose".format(kind))
        if rate and not kinds:
            raise ValueError("name at least one kind of fault")
        with self._lock:
            self._rate, self._random, self._kinds = rate, random.Random(seed), tuple(kinds)

    def clear(self) -> None:
        """Forget the script and end random faults; what was injected stays on record."""
        with self._lock:
            self._script.clear()
            self._rate = 0.0

    def injected(self) -> List[Injected]:
        with self._lock:
            return list(self._injected)

    def delay_seconds(self, request: Request) -> float:
        """How long this request must wait before it is looked at."""
        fault = self._take(request, ("delay",))
        return fault.delay_seconds if fault else 0.0

    def outcome(self, request: Request) -> Optional[Fault]:
        """The error answer (``kind`` is its status), drop or loss this request meets, if any."""
        fault = self._take(request, ("reply", "drop", "lose"))
        return fault or self._draw(request)

    def stream_cut(self, request: Request) -> Optional[int]:
        """After how many events this request's stream is cut, or None."""
        fault = self._take(request, ("drop_stream",))
        return fault.after_events if fault else None

    def _take(self, request: Request, kinds: Sequence[str]) -> Optional[Fault]:
        with self._lock:
            for position, fault in enumerate(self._script):
                if fault.kind in kinds and (fault.path is None or fnmatchcase(request.path, fault.path)):
                    fault.times -= 1
                    if not fault.times:
                        del self._script[position]
                    self._note(fault, request)
                    return fault
        return None

    def _draw(self, request: Request) -> Optional[Fault]:
        with self._lock:
            if not self._rate or self._random.random() >= self._rate:
                return None
            kind = self._random.choice(self._kinds)
            fault = Fault("reply", reply=error_reply(int(kind))) if kind.isdigit() else Fault(kind)
            self._note(fault, request)
            return fault

    def _note(self, fault: Fault, request: Request) -> None:
        kind = str(fault.reply.status) if fault.reply else fault.kind
        request_id = request.headers.get("x-request-id")
        self._injected.append(Injected(kind, request.method, request.path, request_id))


def error_reply(status: int, retry_after: Union[None, int, float, str] = None, body: Any = None) -> Reply:
    """The answer of a scripted failure.

    Args:
        status: any final HTTP status, 200 to 599.
        retry_after: a Retry-After header, as it is to be sent.
        body: bytes or text go out as they are (text as HTML where it begins with ``<``), anything else as
            JSON; None gives the service's usual error object.
    """
    if not 200 <= status <= 599:
        raise ValueError("status must be from 200 to 599")
    if body is None:
        message = "the sandbox was told to answer {}".format(status)
        body = {"detail": {"code": "SCRIPTED_FAULT", "message": message}}
    reply = canned(status, body)
    if retry_after is not None:
        reply.headers["Retry-After"] = str(retry_after)
    return reply
