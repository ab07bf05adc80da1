"""Client: settings, one way to the service, and the calls of HestiaOS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Union

from . import config, models
from ._check import (
    check_optional_mapping,
    check_optional_text,
    check_seconds,
    check_segment,
    check_text,
    check_whole_number,
)
from ._lazy import load_before_fork
from ._redact import secret
from .errors import InvalidResponse
from .namespaces import Agents, Chat, Governance, Secrets, System
from .wire.body import MAX_BODY_BYTES
from .wire.call import RetryPolicy
from .wire.transport import Caller

if TYPE_CHECKING:
    import requests

    from .stream import EventStream

__all__ = ["Client"]

_TIMEOUT_MS = 30000  # the wire's default; it asks for nothing, and must not turn Client(timeout=2) into 35 s
_GRACE_SECONDS = 5.0  # what a call may take beyond the time it grants the service

# What a call returns is loaded by the first that does: a job that uses one kind starts 15 to 24 ms sooner.
load_before_fork("hestiaos_lite.stream", *("hestiaos_lite.models." + name for name in models.HOMES))


class Client:
    """A synchronous HestiaOS client; one may be shared by threads, and it survives ``os.fork()``.

    Args:
        base_url: http or https URL of the service; default ``http://localhost:8000``.
        api_key: sent as a bearer token; default none.
        timeout: total deadline of one call in seconds, over connecting, every retry, every wait and the last byte;
            default 30.
        retries: extra attempts after the first; a POST that may have been delivered is never repeated.
        headers: more headers for every request.
        session: a ``requests.Session`` to use; it is never closed. Requests are made by its ``prepare_request`` and
            ``send``, so that its headers, auth, hooks, adapters, proxies, cert and verify count; its ``request`` is never
            called, so that what a subclass adds there (an OAuth2Session's token) does not go out. A base URL of another
            kind is taken where an adapter is mounted for it, such as ``http+unix://``.
        verify: as for requests: False, or the path of a CA bundle; default the session's or the environment's.
        profile: section of the configuration file.
        max_body_bytes: the largest answer that is read, 8 MiB by default; a larger one is InvalidResponse.

    What is not given comes from ``HESTIAOS_BASE_URL``, ``HESTIAOS_API_KEY`` (or ``HESTIAOS_API_KEY_FILE``) and
    ``HESTIAOS_TIMEOUT``, else from the configuration file, else from the defaults.

    Raises:
        InvalidInput: a setting is malformed (code ``CONFIGURATION``), or an argument is of the wrong type; nothing was sent.
    """

    def __init__(
        self,
        base_url: Optional[str] = None,
        api_key: Optional[str] = None,
        timeout: Union[float, config.NotGiven, None] = config.HESTIAOS_TIMEOUT,
        retries: int = 3,
        *,
        headers: Optional[Mapping[str, str]] = None,
        session: Optional[requests.Session] = None,
        verify: Union[bool, str, None] = None,
        profile: Optional[str] = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        # what a tool shows of this frame's variables, should anything below be refused
        base_url, api_key = secret(base_url), secret(api_key)
        headers = {
            name: secret(value) for name, value in (check_optional_mapping("headers", headers) or {}).items()
        }
        settings = config.resolve(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            profile=profile,
            mounted=getattr(session, "adapters", ()),
        )
        retries = check_whole_number("retries", retries, code=config.CONFIGURATION)
        self._settings = settings
        self._caller = Caller(
            settings,
            retry=RetryPolicy(retries),
            max_body_bytes=max_body_bytes,
            headers=headers,
            session=session,
            verify=verify,
        )
        self._chat = Chat(self._caller)
        self._agents = Agents(self._caller)
        self._system = System(self._caller)
        self._secrets = Secrets(self._caller)
        self._governance = Governance(self._caller)

    @property
    def chat(self) -> Chat:
        """One message, one answer."""
        return self._chat

    @property
    def agents(self) -> Agents:
        """Run a task with an agent."""
        return self._agents

    @property
    def system(self) -> System:
        """Status, configuration and metrics."""
        return self._system

    @property
    def secrets(self) -> Secrets:
        """Get, set and delete."""
        return self._secrets

    @property
    def governance(self) -> Governance:
        """What it would decide, and what it has decided."""
        return self._governance

    @property
    def base_url(self) -> str:
        """The service's URL, without a trailing slash."""
        return self._settings.base_url

    @property
    def timeout(self) -> float:
        """The total deadline of one call, in seconds."""
        return self._settings.timeout_seconds

    def run(
        self,
        input: str,
        session_id: Optional[str] = None,
        agent_id: Optional[str] = None,
        mode_hint: Optional[str] = None,
        timeout_ms: int = _TIMEOUT_MS,
        stream: bool = False,
    ) -> models.RunResponse:
        """Run one input through governance and return its result.

        Args:
            input: what is to be done, as text.
            session_id: ties it to a conversation that the service keeps.
            agent_id: which agent is to do it; else the service chooses.
            mode_hint: the mode that the caller would like; the service decides.
            timeout_ms: how long the service may take, in milliseconds; where one other than the default asks for longer than
                the client's timeout, the call's deadline is ``timeout_ms`` plus 5 s.
            stream: sent to the service as it is; `run_stream` is what streams.

        Raises:
            GovernanceBlock: governance refused; nothing was executed, and ``trace(error.trace_id)`` says why.
            InvalidInput, AuthenticationError, RateLimited, ServerError, ConnectionFailed, RequestTimeout, InvalidResponse:
                see errors; ``delivered`` says whether the run may have taken place.
        """
        body = _run_body(input, session_id, agent_id, mode_hint, timeout_ms, stream)
        return self._caller.post(
            "/api/v1/run",
            body,
            models.RunResponse.from_dict,
            governed=True,
            timeout_seconds=self._run_timeout_seconds(timeout_ms),
        )

    def run_stream(
        self,
        input: str,
        session_id: Optional[str] = None,
        agent_id: Optional[str] = None,
        mode_hint: Optional[str] = None,
        timeout_ms: int = _TIMEOUT_MS,
        timeout: Optional[float] = None,
    ) -> EventStream:
        """Run one input and return its events as they come; the request is sent here, so a block is raised here.

        Args:
            input, session_id, agent_id, mode_hint, timeout_ms: as for `run`.
            timeout: total deadline for the whole stream in seconds; without it only silence counts: no byte for the
                client's timeout.

        Raises:
            GovernanceBlock: governance refused; nothing was executed.
        """
        from .stream import EventStream

        body = _run_body(input, session_id, agent_id, mode_hint, timeout_ms, True)
        stream = self._caller.stream(
            "/api/v1/run/stream",
            body,
            silence_seconds=self.timeout if timeout is None else None,
            governed=True,
            headers={
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",
                "Cache-Control": "no-store",
            },
            timeout_seconds=self._run_timeout_seconds(timeout_ms)
            if timeout is None
            else check_seconds("the timeout", timeout, code=config.CONFIGURATION),
        )
        return EventStream(stream)

    def health(self) -> models.HealthResponse:
        """Ask for the service's health; ``.ok`` says whether it reports itself healthy."""
        return self._caller.get("/api/v1/health", models.HealthResponse.from_dict)

    def trace(self, trace_id: str) -> models.TraceResponse:
        """Return what governance decided for one run.

        Raises:
            NotFound: the service knows no such trace.
        """
        model = models.TraceResponse  # loaded before anything is sent

        def decode(body: Any) -> models.TraceResponse:
            trace = model.from_dict(body)
            if trace.trace_id != trace_id:
                # a connection out of step, or a proxy, gave the answer to another request
                raise InvalidResponse("the answer is about another trace id", details=body)
            return trace

        return self._caller.get("/api/v1/trace/" + check_segment("trace_id", trace_id), decode)

    def close(self) -> None:
        """Close every connection that no call and no stream is using; a later call opens new ones."""
        self._caller.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        # a client whose construction failed has no settings
        return "<Client {}>".format(self.base_url if hasattr(self, "_settings") else "of no service")

    def _run_timeout_seconds(self, timeout_ms: int) -> float:
        granted_seconds = timeout_ms / 1000.0
        asked_for_longer = timeout_ms != _TIMEOUT_MS and granted_seconds > self.timeout
        return granted_seconds + _GRACE_SECONDS if asked_for_longer else self.timeout


def _run_body(
    input: Any, session_id: Any, agent_id: Any, mode_hint: Any, timeout_ms: Any, stream: bool
) -> Dict[str, Any]:
    check_whole_number("timeout_ms", timeout_ms, least=1, below=10**11)
    return {
        "input": check_text("input", input),
        "context": {
            "session_id": check_optional_text("session_id", session_id),
            "agent_id": check_optional_text("agent_id", agent_id),
            "mode_hint": check_optional_text("mode_hint", mode_hint),
        },
        "options": {"timeout_ms": timeout_ms, "stream": bool(stream)},
    }
