"""demo: every call, against a sandbox of its own; each Python line shown is the line that is run, and is checked."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Tuple

from .exits import DONE, REFUSED
from .output import Output, OutputClosed
from .parser import Arguments, Parser

if TYPE_CHECKING:
    from ..sandbox import Sandbox

_TOKEN_DELAY_SECONDS = 0.04  # slow enough to see the tokens come, fast enough for the demo as a whole


class Step(NamedTuple):
    """One step: what it shows, the Python that does it, what that must print, and what must be true afterwards."""

    title: str
    source: str
    prints: str
    holds: str = "True"


STEPS = (
    Step(
        "Run one input",
        'print(client.run("create a weekly report").text)',
        "processed: create a weekly report\n",
        'box.requests[-1].json["input"] == "create a weekly report"',
    ),
    Step(
        "Stream it, token by token",
        """\
for event in client.run_stream("tell it while it is being told"):
    print(event.text, end="", flush=True)
print()""",
        "processed: tell it while it is being told\n",
        "len([piece for piece in printed if piece.strip()]) == 8",
    ),
    Step(
        "Governance blocks a run, and its trace says why",
        """\
try:
    client.run("rm -rf / on every host")
except GovernanceBlock as block:
    trace = client.trace(block.trace_id)
    print(trace.decision, "by", trace.policy + ":", trace.reason)""",
        "BLOCK by destructive-shell: deletes files by force\n",
        'box.requests[-1].path.endswith("/trace/" + trace.trace_id)',
    ),
    Step(
        "Chat, and go on in the same session",
        """\
first = client.chat.run("hello")
second = client.chat.run("and again", session_id=first.session_id)
print(second.response, "| same session:", second.session_id == first.session_id)""",
        "processed: and again | same session: True\n",
    ),
    Step(
        "Give a task to an agent",
        """\
answer = client.agents.run("reporter", "count the open issues")
print(answer.agent_id, answer.status, "|", answer.result)""",
        "reporter COMPLETED | processed: count the open issues\n",
    ),
    Step(
        "A secret's life",
        """\
client.secrets.set("team/../db-password", "correct horse")
print(client.secrets.get("team/../db-password"))
client.secrets.delete("team/../db-password")
try:
    client.secrets.get("team/../db-password")
except NotFound as error:
    print(error.message)""",
        "correct horse\nno secret has this key\n",
        '"/api/secrets/team%2F..%2Fdb-password" == box.requests[-1].path',
    ),
    Step(
        "Ask before doing",
        """\
ruling = client.governance.explain("shell", {"argv": ["mkfs.ext4", "/dev/sda"]})
print(ruling["decision"], ruling["reason"])""",
        "BLOCK formats or wipes a disk\n",
    ),
    Step(
        "Metrics",
        """\
metrics = client.system.metrics()
print(metrics.requests_total, "requests so far")""",
        "{requests} requests so far\n",
    ),
    Step(
        "Approve an action exactly once",
        """\
key = idempotency_key("invoice", 42, date="2026-11-21")
with AegisClient(box.url, tenant_id="demo", thread_id="invoices") as aegis:
    first = aegis.approve(key, payload={"amount": 1200})
    again = aegis.approve(key, payload={"amount": 1200})
    print("accepted:", first.accepted, "| duplicate:", again.duplicate, "|", aegis.get_status(first.request_id).status)""",
        "accepted: True | duplicate: True | COMMITTED\n",
        "len(box.actions()) == 1",
    ),
    Step(
        "An outbox keeps a decision while the service is down",
        """\
outbox = Outbox(folder + "/outbox.db")
aegis = AegisClient(box.url, tenant_id="demo", thread_id="orders", outbox=outbox, max_retries=0)
box.stop()
print("queued:", aegis.approve("order-7").queued)
box.start()
print(aegis.flush())""",
        "queued: True\nFlushReport(sent=1, duplicate=0, queued=0, dead=0)\n",
        '[action["idempotency_key"] for action in box.actions()] == [key, "order-7"]',
    ),
)


def declare(parser: Parser) -> None:
    """Declare ``demo``."""
    parser.description = """\
Start a sandbox in this process and show every call against it: the Python that is run, and what it gives.
Nothing leaves this machine, and no setting of yours is read. Exit 0, or 1 naming the step that failed."""
    parser.set_defaults(execute=_demo)


def _demo(args: Arguments, output: Output) -> int:
    from ..sandbox import Sandbox

    with tempfile.TemporaryDirectory(prefix="hestiaos-demo-") as folder, _own_environment(folder), Sandbox(
        token_delay_seconds=_TOKEN_DELAY_SECONDS
    ) as box:
        return _show(box, folder, output)


def _show(box: Sandbox, folder: str, output: Output) -> int:
    import hestiaos_lite

    names: Dict[str, Any] = {name: getattr(hestiaos_lite, name) for name in _needed()}
    client = names["Client"](box.url)
    names.update(box=box, folder=folder, client=client)
    started = time.monotonic()
    done: List[Dict[str, Any]] = []
    output.notice("a sandbox of HestiaOS and AEGIS runs at {} for this demo".format(box.url))
    try:
        for number, step in enumerate(STEPS, 1):
            if not output.json:
                output.heading("\n{}. {}".format(number, step.title))
                output.text(_as_typed(step.source))
            fault, printed = _perform(step, names, output)
            done.append(
                {
                    "title": step.title,
                    "python": step.source,
                    "printed": printed,
                    "ok": not fault,
                    "fault": fault,
                }
            )
            if fault:
                break
    finally:
        client.close()
        for name in ("aegis", "outbox"):
            if name in names:
                names[name].close()
    took_seconds = round(time.monotonic() - started, 3)
    if output.json:
        output.document({"ok": not fault, "seconds": took_seconds, "steps": done})
    if fault:
        output.complain("step {}, {!r}, failed: {}".format(len(done), STEPS[len(done) - 1].title, fault))
        return REFUSED
    if not output.json:
        output.text("\nall {} steps did what they should, in {:.1f} s".format(len(STEPS), took_seconds))
    return DONE


def _perform(step: Step, names: Dict[str, Any], output: Output) -> Tuple[str, str]:
    """Run a step and compare; return what is wrong, or nothing, and what it printed."""
    pieces: List[str] = []
    expected = step.prints.replace("{requests}", str(names["box"].requests_total + 1))

    def tell(*values: Any, **options: Any) -> None:
        """Stand in for print: indented, and kept for the comparison."""
        text = io.StringIO()
        options.pop("flush", None)
        print(*values, file=text, **options)
        indent = "    " if "".join(pieces)[-1:] in ("", "\n") else ""
        pieces.append(text.getvalue())
        if pieces[-1] and not output.json:
            output.piece(indent + pieces[-1])

    names.update(print=tell, printed=pieces)
    try:
        # The source is this file's own; to run what is shown is what keeps the demo honest.
        exec(step.source, names)  # noqa: S102
        holds = eval(step.holds, names)  # noqa: S307
    except OutputClosed:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the demo's answer is the name of the step
        return "{}: {}".format(type(error).__name__, error), "".join(pieces)
    printed = "".join(pieces)
    if printed != expected:
        return "it printed {!r}, not {!r}".format(printed, expected), printed
    return ("" if holds else "afterwards this does not hold: {}".format(step.holds)), printed


def _as_typed(source: str) -> str:
    """Give Python as one would type it at a prompt."""
    lines = source.split("\n")
    prompts = ["..." if line.startswith((" ", "except")) else ">>>" for line in lines]
    return "".join("    {} {}\n".format(prompt, line) for prompt, line in zip(prompts, lines))


def _needed() -> List[str]:
    return ["AegisClient", "Client", "GovernanceBlock", "NotFound", "Outbox", "idempotency_key"]


@contextlib.contextmanager
def _own_environment(folder: str) -> Iterator[None]:
    """Hide the user's settings: the demo shows the sandbox, whatever is configured."""
    before = dict(os.environ)
    for name in before:
        if (
            name.startswith(("HESTIAOS_", "AEGIS_"))
            or name.lower().endswith("_proxy")
            or name.endswith("_CA_BUNDLE")
        ):
            del os.environ[name]
    os.environ["XDG_CONFIG_HOME"] = folder
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
