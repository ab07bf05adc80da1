"""The table of commands, which the help, the completion and the parser of each are made from.

To add a command, add a row (and its module to `_modules`), and give the module the function that declares its arguments and
says what runs: ``parser.set_defaults(execute=function)``. It is called as ``execute(args, output)`` and returns the exit code.
"""

from __future__ import annotations

from typing import Dict, List, Tuple


class Command:
    """One row: the name, the function that declares its arguments (``module:function``), a line of help, examples.

    One without a function has commands of its own, whose names begin with its name.
    """

    # no named tuple: to make such a class costs every start a five-hundredth
    def __init__(self, name: str, declared_by: str, help: str, examples: Tuple[str, ...]) -> None:
        self.name, self.declared_by, self.help, self.examples = name, declared_by, help, examples
        self.parent, _, self.word = name.rpartition(" ")


# fmt: off
COMMANDS: Dict[str, Command] = {command.name: command for command in (
    Command("run", "calls:declare_run", "run one input through governance (- reads standard input)",
            ('run "create a weekly report"', "run --stream - < question.txt")),
    Command("chat", "calls:declare_chat", "send one chat message",
            ('chat "hello"', 'chat "and again" --session-id ID')),
    Command("agent", "calls:declare_agent", "give a task to an agent",
            ('agent reporter "count the open issues" --config \'{"depth": 2}\'',)),
    Command("health", "calls:declare_health", "ask the service how it is; --nagios for a monitoring check",
            ("health", "health --nagios --warning 1 --critical 5 --timeout 10")),
    Command("trace", "calls:declare_trace", "show what governance decided for one run",
            ("trace TRACE_ID --get decision",)),
    Command("explain", "calls:declare_explain", "ask what governance would decide; nothing is executed",
            ('explain shell --input \'{"argv": ["rm", "-rf", "/tmp/x"]}\'',)),
    Command("guard", "guard:declare", "run a command if governance allows it",
            ("guard -- rsync -a /data backup:/data", "guard --log /var/log/guard.jsonl -- ./deploy.sh production")),
    Command("stability", "calls:declare_stability", "show how stable governance is", ("stability --json",)),
    Command("status", "calls:declare_status", "show the service's status", ("status --get version",)),
    Command("config", "calls:declare_config", "show the service's configuration", ("config --json",)),
    Command("metrics", "calls:declare_metrics", "show the service's metrics", ("metrics --get requests_total",)),
    Command("secret", "", "get, set or delete a secret of the service", ("secret get db-password",)),
    Command("secret get", "calls:declare_get", "print the value", ("secret get db-password",)),
    Command("secret set", "calls:declare_set", "store a value, from standard input or a prompt that does not echo",
            ("secret set db-password < password.txt", "secret set db-password --provider vault")),
    Command("secret delete", "calls:declare_delete", "delete it", ("secret delete db-password",)),
    Command("hitl", "", "approve, reject or conclude an action exactly once, or look at it (AEGIS)",
            ('hitl approve "$(hestiaos-lite hitl key invoice 42)" --outbox outbox.db',
             "hitl status REQUEST_ID --wait 60")),
    Command("hitl approve", "approvals:declare_decision",
            "approve the action that a key names; a duplicate is exit 0, queued in the outbox 75",
            ("hitl approve invoice-42 --tenant acme --thread invoices",
             'hitl approve invoice-42 --payload \'{"amount": 1200}\' --outbox outbox.db')),
    Command("hitl reject", "approvals:declare_decision",
            "reject the action that a key names; a duplicate is exit 0, queued in the outbox 75",
            ("hitl reject invoice-42 --tenant acme --thread invoices",)),
    Command("hitl conclude", "approvals:declare_conclude",
            "decide at the deadline: what nobody has approved by now is rejected; exit 0 only if approved",
            ("hitl conclude invoice-42 --tenant acme --thread invoices && ./pay.sh invoice-42",)),
    Command("hitl status", "approvals:declare_status",
            "show the state of an action: exit 0 approved and committed, 1 rejected or failed, 75 still pending",
            ("hitl status REQUEST_ID", "hitl status REQUEST_ID --wait 60 --get status")),
    Command("hitl key", "approvals:declare_key",
            "make an idempotency key: the same parts and fields of the same types give the same key, everywhere",
            ("hitl key invoice 42 --field date=2026-11-21", "hitl key invoice 42 --typed")),
    Command("outbox", "", "list, send, move or drop what an outbox holds", ("outbox flush --outbox outbox.db",)),
    Command("outbox list", "approvals:declare_list", "list the decisions, oldest first",
            ("outbox list --outbox outbox.db --state dead",)),
    Command("outbox flush", "approvals:declare_flush",
            "send what is due for this service; exit 1 while any is dead, else 75 while any is queued, else 0",
            ("outbox flush --outbox outbox.db",)),
    Command("outbox requeue", "approvals:declare_requeue",
            "let the next flush send a dead decision again, once its cause is fixed",
            ("outbox requeue 7 --outbox outbox.db", "outbox requeue --all --outbox outbox.db")),
    Command("outbox move", "approvals:declare_move",
            "reassign the decisions of a service that has moved to its new URL",
            ("outbox move --from https://old.example --to https://new.example --outbox outbox.db",)),
    Command("outbox drop", "approvals:declare_drop", "forget one decision for good",
            ("outbox drop 7 --outbox outbox.db",)),
    Command("batch", "batch:declare", "send a file of inputs, each once; resumable",
            ("batch questions.csv --column question --out answers.jsonl",
             "batch questions.csv --column question --out answers.jsonl --resume")),
    Command("sandbox", "sandbox:declare", "serve HestiaOS and AEGIS on this machine, for trying and testing",
            ("sandbox --policy rules.json --db sandbox.db", "sandbox --fault 503 --fault drop --fault-rate 0.2 --delay 0.5")),
    Command("demo", "demo:declare", "see every call, against a sandbox it starts", ("demo",)),
    Command("doctor", "doctor:declare", "check settings, network and service, with a cure for each finding",
            ("doctor", "doctor --profile production --json")),
    Command("completion", "help:declare_completion", "print the completion script of a shell",
            ("completion bash > ~/.local/share/bash-completion/completions/hestiaos-lite",)),
    Command("help", "help:declare_help", "explain a command, the environment variables or the exit codes",
            ("help hitl approve", "help environment")),
)}
# fmt: on


def commands_of(name: str) -> List[Command]:
    """Return the commands of a command that has any, or with ``""`` those of the program."""
    return [command for command in COMMANDS.values() if command.parent == name]


def _modules() -> None:
    """Name the modules of the table for the tools that look for imports, such as PyInstaller; it is never called."""
    from . import approvals, batch, calls, demo, doctor, guard, help, sandbox  # noqa: F401
