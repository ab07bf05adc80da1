"""demo: every call, against a sandbox it starts; doctest runs the lines that are shown, and compares what they print."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from typing import Any, Dict, List, Tuple

from .exits import DONE, REFUSED
from .output import Output
from .parser import OUTPUT_OPTIONS, Arguments, Parser

# Each step begins with its title. `box` is the sandbox, `client` is a client of it.
STEPS = r"""
Run one input
>>> print(client.run("create a weekly report").text)
processed: create a weekly report
>>> box.requests[-1].json["input"]
'create a weekly report'

Stream it, token by token
>>> for event in client.run_stream("one word at a time"):
...     print(event.type, repr(event.text))
start ''
token 'processed:'
token ' one'
token ' word'
token ' at'
token ' a'
token ' time'
final ''
done ''

Governance blocks a run, and its trace says why
>>> from hestiaos_lite import GovernanceBlock
>>> try:
...     client.run("rm -rf / on every host")
... except GovernanceBlock as block:
...     trace = client.trace(block.trace_id)
>>> print(trace.decision, "by", trace.policy + ":", trace.reason)
BLOCK by destructive-shell: deletes files by force

Chat, and go on in the same session
>>> first = client.chat.run("hello")
>>> second = client.chat.run("and again", session_id=first.session_id)
>>> print(second.response, "| same session:", second.session_id == first.session_id)
processed: and again | same session: True

Give a task to an agent
>>> answer = client.agents.run("reporter", "count the open issues")
>>> print(answer.agent_id, answer.status, "|", answer.result)
reporter COMPLETED | processed: count the open issues

A secret's life
>>> from hestiaos_lite import NotFound
>>> client.secrets.set("team/../db-password", "correct horse")
>>> client.secrets.get("team/../db-password")
'correct horse'
>>> client.secrets.delete("team/../db-password")
>>> box.requests[-1].path
'/api/secrets/team%2F..%2Fdb-password'
>>> try:
...     client.secrets.get("team/../db-password")
... except NotFound as error:
...     print(error.message)
no secret has this key

Ask before doing
>>> ruling = client.governance.explain("shell", {"argv": ["mkfs.ext4", "/dev/sda"]})
>>> print(ruling["decision"], ruling["reason"])
BLOCK formats or wipes a disk

Metrics
>>> print(client.system.metrics().requests_total, "requests so far")
13 requests so far

Approve an action exactly once
>>> from hestiaos_lite import AegisClient, idempotency_key
>>> key = idempotency_key("invoice", 42, date="2026-11-21")
>>> with AegisClient(box.url, tenant_id="demo", thread_id="invoices") as aegis:
...     first = aegis.approve(key, payload={"amount": 1200})
...     again = aegis.approve(key, payload={"amount": 1200})
...     print("accepted:", first.accepted, "| duplicate:", again.duplicate)
...     print("approved:", aegis.get_status(first.request_id).approved)
accepted: True | duplicate: True
approved: True
>>> len(box.actions())
1

An outbox keeps a decision while the service is down
>>> from hestiaos_lite import Outbox
>>> outbox = Outbox(folder + "/outbox.db")
>>> aegis = AegisClient(box.url, tenant_id="demo", thread_id="orders", outbox=outbox, max_retries=0)
>>> box.stop()
>>> print("queued:", aegis.approve("order-7").queued)
queued: True
>>> box = box.start()
>>> print("sent:", aegis.flush().sent)
sent: 1
>>> aegis.close()
>>> outbox.close()
"""


def declare(parser: Parser) -> None:
    parser.takes = OUTPUT_OPTIONS
    parser.description = """\
Start a sandbox in this process and show every call against it: the Python that runs, and its output.
Nothing leaves this machine, and none of your settings is read. Exit 0, or 1 naming the step that failed."""
    parser.set_defaults(execute=_demo)


def _demo(args: Arguments, output: Output) -> int:
    from ..client import Client
    from ..sandbox import Sandbox

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hestiaos-demo-"))
        # Whatever is configured, the sandbox is what is shown. No proxy or CA bundle is used for a loopback http URL.
        stack.callback(os.environ.update, dict(os.environ))
        stack.callback(os.environ.clear)  # the last one is the first to be called
        for name in [name for name in os.environ if name.startswith(("HESTIAOS_", "AEGIS_"))]:
            del os.environ[name]
        os.environ["XDG_CONFIG_HOME"] = folder
        box = stack.enter_context(Sandbox())
        client = stack.enter_context(Client(box.url))
        return _show({"box": box, "client": client, "folder": folder}, output)


def _show(names: Dict[str, Any], output: Output) -> int:
    from doctest import DocTestParser, DocTestRunner

    output.notice("a sandbox of HestiaOS and AEGIS runs at {} for this demo".format(names["box"].url))
    began_at = time.monotonic()
    done: List[Dict[str, Any]] = []
    for number, (title, lines) in enumerate(steps(), 1):
        test = DocTestParser().get_doctest(lines + "\n", names, title, None, 0)
        test.globs = names  # not a copy: the next step goes on with what this one made
        report: List[str] = []  # what went wrong, in doctest's words
        DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False)
        fault = "".join(report)
        done.append({"title": title, "python": lines, "ok": not fault, "fault": fault})
        if not output.json:
            output.heading("\n{}. {}".format(number, title))
            output.text("".join("    {}\n".format(line) for line in lines.splitlines()) + fault)
        if fault:
            break
    took_seconds = round(time.monotonic() - began_at, 3)
    if output.json:
        output.document({"ok": not fault, "seconds": took_seconds, "steps": done})
    elif not fault:
        output.text("\nall {} steps did what they should, in {:.1f} s".format(number, took_seconds))
    if fault:
        output.complain("step {}, {!r}, failed".format(number, title))
    return REFUSED if fault else DONE


def steps() -> List[Tuple[str, str]]:
    """Return the title and the lines of each step."""
    parts = (step.partition("\n") for step in STEPS.strip().split("\n\n"))
    return [(title, lines) for title, _, lines in parts]
