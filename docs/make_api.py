"""Print docs/api.md, made from the signatures and docstrings of the public names, and the examples below.

``python docs/make_api.py > docs/api.md``; the tests run the examples, and say when the page is not that of today.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from parts import block, head, row


class Section(NamedTuple):
    title: str
    says: str
    names: str  # dotted, below hestiaos_lite
    example: str


SECTIONS = (
    Section(
        "Client",
        "The calls of HestiaOS. Settings that are not given come from the environment or a profile: [configuration](reference.md#configuration).",
        "Client",
        """
        from hestiaos_lite import Client

        with Client(timeout=60) as client:  # http://localhost:8000, or HESTIAOS_BASE_URL
            answer = client.run("create a report")
            print(answer.text, answer.mode)  # processed: create a report ALLOW
            print(client.health().ok, client.trace(answer.trace_id).decision)  # True ALLOW
        """,
    ),
    Section(
        "Namespaces of a client",
        "Attributes of a `Client`; they are not constructed by hand.",
        "namespaces.Chat namespaces.Agents namespaces.System namespaces.Secrets namespaces.Governance",
        """
        from hestiaos_lite import Client

        with Client() as client:
            print(client.chat("hello").text)  # processed: hello
            print(client.agents.run("writer", "create a report").status)  # COMPLETED
            print(client.system.status().status)  # ok
            client.secrets.set("mail/password", "hunter2")
            print(client.secrets.get("mail/password"))  # hunter2
            print(client.governance.require("shell", {"command": "ls /srv"}).decision)  # ALLOW
        """,
    ),
    Section(
        "Streams",
        "What `Client.run_stream` returns.",
        "EventStream StreamEvent is_start_event is_token_event is_delta_event is_tool_call_event is_final_event"
        " is_error_event is_done_event",
        """
        from hestiaos_lite import Client, is_done_event

        with Client() as client, client.run_stream("create a report") as events:
            for event in events:
                print(event.text, end="")  # processed: create a report
            print(" ", is_done_event(event), events.trace_id == event.trace_id)  # True True
        """,
    ),
    Section(
        "Answers",
        "Frozen dataclasses. A field that the service may leave out is None when absent; `extra` holds fields that are not"
        " known here. `from_dict(mapping)` builds one, `to_dict()` gives it back.",
        "RunResponse TraceResponse HealthResponse ChatResponse AgentResult SystemStatus SystemMetrics ErrorResponse Ruling",
        """
        from hestiaos_lite import RunResponse

        answer = RunResponse.from_dict({"result": "ALLOW", "trace_id": "t-1", "output": "done", "new": 1})
        print(answer.text, answer.budget, answer.extra)  # done None {'new': 1}
        """,
    ),
    Section(
        "AegisClient",
        "Approvals that take effect once. The *idempotency key* names a decision; whatever is sent twice under one key takes"
        " effect once. The *conversation thread* (`thread_id`) groups decisions that belong together.",
        "AegisClient ActionResult ActionStatus Conclusion idempotency_key",
        """
        from hestiaos_lite import AegisClient, idempotency_key

        key = idempotency_key("invoice", 42, amount=120)  # the same values, the same key
        with AegisClient(tenant_id="acme", thread_id="invoices") as aegis:
            result = aegis.approve(key, payload={"amount": 120})
            print(result.accepted, aegis.approve(key, payload={"amount": 120}).duplicate)  # True True
            print(aegis.wait(result.request_id, timeout=30).approved)  # True
            print(aegis.conclude(key).outcome)  # approved
        """,
    ),
    Section(
        "Outbox",
        "With an outbox a decision is on disk before its first byte is sent.",
        "Outbox FlushReport",
        """
        from hestiaos_lite import AegisClient, Outbox

        ids = {"tenant_id": "acme", "thread_id": "invoices"}
        away = AegisClient("http://127.0.0.1:1", outbox=Outbox("box.db"), max_retries=0, **ids)
        print(away.approve("invoice-42").queued)  # True
        with Outbox("box.db") as outbox:
            print([row.idempotency_key for row in outbox.list()], outbox.counts()["queued"])  # ['invoice-42'] 1
            print(away.flush().queued)  # 1
        """,
    ),
    Section(
        "Batches",
        "Many inputs through one call, on threads or on any `concurrent.futures` executor.",
        "run_batch BatchResult",
        """
        from hestiaos_lite import Client, run_batch

        rows = [{"id": "a", "input": "create a report"}, {"id": "b", "input": "rm -rf /"}]
        outcomes = {result.id: result.outcome for result in run_batch(Client, rows)}
        print(outcomes["a"], outcomes["b"])  # ok blocked
        """,
    ),
    Section(
        "Errors",
        "Every failure is one of these. Decide by `effect` and `exit_code`, never by the message; `str(error)` is one line for"
        " people. [Errors](reference.md#errors) says when each is raised.",
        "HestiaError GovernanceBlock PermissionDenied AuthenticationError InvalidInput NotFound Conflict RateLimited ServerError"
        " ConnectionFailed RequestTimeout InvalidResponse StreamInterrupted IdempotencyConflict",
        """
        from hestiaos_lite import Client, GovernanceBlock, HestiaError

        try:
            Client().run("rm -rf /")
        except GovernanceBlock as error:
            print(error.effect, error.exit_code, error.status)  # none 1 403
        try:
            Client("http://127.0.0.1:1", retries=0).run("create a report")
        except HestiaError as error:
            print(type(error).__name__, error.effect, error.exit_code)  # ConnectionFailed none 69
        """,
    ),
    Section(
        "hestiaos_lite.sse",
        "The event stream parser alone: bytes in, events out, no I/O, as the WHATWG standard has it.",
        "sse.iter_events sse.ServerSentEvent sse.EventTooLarge",
        """
        from hestiaos_lite.sse import iter_events

        for event in iter_events([b"id: 7\\ndata: fi", b"rst\\n\\n", b"event: end\\ndata: x\\n\\n"]):
            print(event.event, event.data, event.id)  # message first 7 end x 7
        """,
    ),
    Section(
        "hestiaos_lite.sandbox",
        "Both services in your process, for tests. The pytest fixture `hestia_sandbox` is a running `Sandbox` for each test.",
        "sandbox.Sandbox",
        """
        from hestiaos_lite import Client, ServerError
        from hestiaos_lite.sandbox import Sandbox

        with Sandbox() as box, Client(box.url, retries=0) as client:
            box.fail_next(503)
            try:
                client.run("create a report")
            except ServerError as error:
                print(error.status, error.effect, len(box.requests))  # 503 none 1
        """,
    ),
)


# Methods without an underscore that are for other modules of the package: steps of a decision on its way.
PRIVATE = {
    "Outbox": "record claim_next claim_up_to_last claim_first complete release fail partitions find count_pending"
}


HEAD = """\
# API

Every public class, method, field and function, made from the source by `python docs/make_api.py > docs/api.md`. The behaviour behind
them (configuration, deadlines, retries, exit codes) is in [reference.md](reference.md).
"""


def page() -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD
    anchors = [(s.title, re.sub(r"[^\w\- ]", "", s.title.lower()).replace(" ", "-")) for s in SECTIONS]
    yield " · ".join("[{}](#{})".format(*anchor) for anchor in anchors)
    for section in SECTIONS:
        yield "\n## {}\n\n{}\n".format(section.title, section.says)
        yield block(textwrap.dedent(section.example).strip(), "python")
        for name in section.names.split():
            yield from entry(name)


def entry(name: str) -> List[str]:
    """Return what is said of one class or function."""
    module, _, attribute = ("hestiaos_lite." + name).rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    is_error = inspect.isclass(found) and issubclass(found, Exception)
    bases = "" if not is_error else " ({})".format(", ".join(_public_bases(found)))
    lines = ["", "### " + attribute + bases, ""]
    if not is_error and not dataclasses.is_dataclass(found) and not hasattr(found, "_fields"):
        lines += _signature(attribute, found)
    if dataclasses.is_dataclass(found) or hasattr(found, "_fields"):
        about = {"extra": "fields of the answer that are not known here."}
        lines += prose(inspect.getdoc(found) or "", about)
        lines += _fields(found, about)
    else:
        lines += prose(inspect.getdoc(found) or "")
    if inspect.isclass(found):
        for method, kind in _members(found):
            lines += ["", "#### {}.{}".format(attribute, method), ""]
            if isinstance(kind, property):
                lines += ["*property* `{}`".format(_type_of(kind.fget)), ""]
            else:
                lines += _signature(method, getattr(found, method))
            lines += prose(inspect.getdoc(getattr(found, method)) or "")
    return lines


def _public_bases(found: Any) -> List[str]:
    return [base.__name__ for base in found.__mro__[1:] if base.__name__[0] != "_" and base is not object][:1]


def _members(found: Any) -> Iterator[Tuple[str, Any]]:
    """The public methods and properties that the class itself defines, and `HestiaError`'s for all errors."""
    private = PRIVATE.get(found.__name__, "").split()
    for name, value in vars(found).items():
        is_method = callable(value) or isinstance(value, (property, classmethod, staticmethod))
        is_public = not name.startswith("_") and name not in private
        if is_method and is_public and inspect.getdoc(getattr(found, name)):
            yield name, value


def _type_of(function: Any) -> str:
    return str(inspect.signature(function).return_annotation)


def _signature(name: str, found: Any) -> List[str]:
    """A signature, its types as written, on as many lines as it needs."""
    signature = inspect.signature(found)
    shown = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(part[0] == "*" for part in shown):
            shown.append("*")
        default = parameter.default
        text = str(parameter.replace(default=parameter.empty)).replace("'", "")
        if default is not parameter.empty:
            text += " = " + ("time.time" if callable(default) else repr(default))
        shown.append(text)
    returned = signature.return_annotation
    end = "" if inspect.isclass(found) or returned is signature.empty else " -> {}".format(returned)
    line = "{}({}){}".format(name, ", ".join(shown), end)
    if len(line) > 100:
        line = "{}(\n{}\n){}".format(name, "\n".join("    {},".format(part) for part in shown), end)
    return [block(line), ""]


def _fields(found: Any, about: Dict[str, str]) -> List[str]:
    """The table of a dataclass's or a named tuple's fields."""
    if dataclasses.is_dataclass(found):
        rows = [(field.name, str(field.type), _default(field)) for field in dataclasses.fields(found)]
    else:
        rows = [(name, str(found.__annotations__[name]), "required") for name in found._fields]
    lines = ["", head("field", "type", "default", "meaning")]
    for name, kind, default in rows:
        kind = re.sub(r"ForwardRef\('(.*?)'\)", r"\1", kind)
        lines.append(row("`{}`".format(name), "`{}`".format(kind), default, about.get(name, "")))
    return lines


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return "required" if field.default_factory is dataclasses.MISSING else repr(field.default_factory())


def prose(text: str, about: Optional[Dict[str, str]] = None) -> List[str]:
    """Turn one docstring into Markdown; what it says of attributes goes into ``about`` where that is given."""
    lines: List[str] = []
    for heading, body in _parts(text.replace("``", "`")):
        if heading is None:
            lines += ["", *_tables(body)]
            continue
        body = textwrap.dedent(body).strip("\n")
        if heading == "Returns":
            lines += ["", "Returns:", "", " ".join(body.split())]
            continue
        items = [" ".join(item.split()) for item in re.split(r"\n(?=\S)", body)]
        if heading == "Attributes" and about is not None:
            for item in items:
                names, _, meaning = item.partition(": ")
                about.update(dict.fromkeys(names.split(", "), meaning))
            continue
        lines += ["", "{}:".format("Parameters" if heading == "Args" else heading), ""]
        for item in items:
            match = re.match(r"([\w, *]+): (.*)", item)
            lines.append("- `{}`: {}".format(*match.groups()) if match else "- " + item)
    return lines[1:]


def _parts(text: str) -> Iterator[Tuple[Any, str]]:
    """Split a docstring into its prose and its sections (``Args:`` and the like, indented below)."""
    pattern = r"^(Args|Attributes|Returns|Raises)[^\n]*:\n((?:(?: +[^\n]*)?\n|(?: +[^\n]*)$)+)"
    position = 0
    for found in re.finditer(pattern, text + "\n", re.MULTILINE):
        if text[position : found.start()].strip():
            yield None, text[position : found.start()].strip()
        yield found.group(1), found.group(2)
        position = found.end()
    if text[position:].strip():
        yield None, text[position:].strip()


def _tables(text: str) -> List[str]:
    """Prose as it is; a table drawn with ``=`` becomes one of Markdown."""
    lines: List[str] = []
    ruler: List[int] = []
    for line in text.splitlines():
        if re.match(r"=+(  =+)+$", line):
            first = not ruler
            ruler = [found.start() for found in re.finditer("=+", line)] if first else ruler
            continue
        if ruler and line.strip():
            cells = [line[start:end].strip() for start, end in zip(ruler, ruler[1:] + [None])]  # type: ignore[operator]
            is_head = not lines or not lines[-1].startswith("|")
            lines.append(head(*cells) if is_head else row(*cells))
        else:
            ruler = ruler if line.strip() else []
            lines.append(line)
    return lines


if __name__ == "__main__":
    print("\n".join(page()))
