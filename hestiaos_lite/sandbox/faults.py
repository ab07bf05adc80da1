"""Scripted and random faults: which of them the next request meets."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, List, NamedTuple, Optional, Sequence, Union

from .messages import Reply, Request


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

    Each raises ValueError for ``times`` below 1, a negative number or what is no fault.
    """

    def __init__(self) -> None:
        self._faults_lock = threading.Lock()
        self._script: List[Fault] = []
        self._injected: List[Injected] = []
        self._random = random.Random()
        self._rate = 0.0
        self._kinds: Sequence[Fault] = ()

    @property
    def injected(self) -> List[Injected]:
        """The faults met so far, scripted and random: (kind, method, path, request_id)."""
        with self._faults_lock:
            return list(self._injected)

    def fail_next(
        self,
        status: int = 503,
        times: int = 1,
        retry_after: Union[None, int, float, str] = None,
        body: Any = None,
        path: Optional[str] = None,
    ) -> None:
        """Answer the next ``times`` requests with an error, and do nothing of what they ask.

        Args:
            status: 200 to 599.
            retry_after: sent as Retry-After, as it is.
            body: bytes or text as they are (text as HTML where it begins with ``<``), else JSON; None for the usual
                error object.
            path: only requests of this raw path; ``*`` matches anything, as in ``"/api/v1/hitl/*"``.
        """
        self._add(Fault("reply", times, path, reply=_error_reply(status, retry_after, body)))

    def delay_next(self, seconds: float, times: int = 1, path: Optional[str] = None) -> None:
        """Let the next ``times`` requests wait before they are looked at."""
        self._add(Fault("delay", times, path, delay_seconds=seconds))

    def drop_next(self, times: int = 1, path: Optional[str] = None) -> None:
        """Close the connection of the next ``times`` requests without an answer and with nothing done."""
        self._add(Fault("drop", times, path))

    def lose_next_answer(self, times: int = 1, path: Optional[str] = None) -> None:
        """Do what the next ``times`` requests ask, commit it, and close the connection without an answer."""
        self._add(Fault("lose", times, path))

    def drop_next_stream(self, after_events: int = 3, times: int = 1) -> None:
        """Close the connection of the next ``times`` streams after so many events."""
        self._add(Fault("drop_stream", times, after_events=after_events))

    def random_faults(
        self, rate: float = 0.02, seed: int = 1, kinds: Sequence[str] = ("503", "429", "drop", "lose")
    ) -> None:
        """Let each request meet a fault with probability ``rate`` (0 ends it); ``injected`` names those that did.

        Args:
            seed: of the draws. Which request gets which draw still depends on the order in which they come.
            kinds: a status from 400 to 599 as text, ``"drop"`` or ``"lose"``.
        """
        if not 0 <= rate <= 1:
            raise ValueError("rate must be from 0 to 1")
        faults = []
        for kind in kinds:
            if kind not in ("drop", "lose") and not (kind.isdigit() and 400 <= int(kind) <= 599):
                raise ValueError("unknown kind of fault {!r}: a status from 400, drop or lose".format(kind))
            faults.append(Fault("reply", reply=_error_reply(int(kind))) if kind.isdigit() else Fault(kind))
        if rate and not faults:
            raise ValueError("name at least one kind of fault")
        with self._faults_lock:
            self._rate, self._random, self._kinds = rate, random.Random(seed), faults

    def clear_faults(self) -> None:
        """Forget every fault that was scripted and not met, and end random ones."""
        with self._faults_lock:
            self._script.clear()
            self._rate = 0.0

    def _add(self, fault: Fault) -> None:
        if fault.times < 1 or not 0 <= fault.delay_seconds <= threading.TIMEOUT_MAX or fault.after_events < 0:
            raise ValueError("times must be at least 1, seconds and after_events not negative")
        with self._faults_lock:
            self._script.append(fault)

    def _scripted(self, request: Request, *kinds: str) -> Optional[Fault]:
        """The first fault of one of these kinds that is scripted for this request, which uses it up."""
        with self._faults_lock:
            for position, fault in enumerate(self._script):
                if fault.kind in kinds and (fault.path is None or fnmatchcase(request.path, fault.path)):
                    fault.times -= 1
                    if not fault.times:
                        del self._script[position]
                    return self._met(fault, request)
        return None

    def _drawn(self, request: Request) -> Optional[Fault]:
        """The random fault that this request meets, if any."""
        with self._faults_lock:
            if self._random.random() >= self._rate:
                return None
            return self._met(self._random.choice(self._kinds), request)

    def _met(self, fault: Fault, request: Request) -> Fault:
        kind = str(fault.reply.status) if fault.reply else fault.kind
        request_id = request.headers.get("x-request-id")
        self._injected.append(Injected(kind, request.method, request.path, request_id))
        return fault


def _error_reply(status: int, retry_after: Union[None, int, float, str] = None, body: Any = None) -> Reply:
    if not 200 <= status <= 599:
        raise ValueError("status must be from 200 to 599")
    if body is None:
        message = "the sandbox was set to answer {}".format(status)
        body = {"detail": {"code": "SCRIPTED_FAULT", "message": message}}
    return Reply(status, body, None if retry_after is None else {"Retry-After": str(retry_after)})
