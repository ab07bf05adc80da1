"""What the documents show, as something to run: fenced blocks by language, headings as anchors, links."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

import hestiaos_lite
from hestiaos_lite.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md"))
SCRIPTS = os.path.dirname(sys.executable)
HOME = "/var/lib/hestiaos-lite"  # where the documents keep a job's files
INSTALLED = "/opt/hestiaos-lite/bin"  # where they have the command
SETTINGS = "/etc/hestiaos"  # where they have the keys


class Block(NamedTuple):
    """One fenced block: the document's name, its number there, its language and its text."""

    document: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return "{}-{}-{}".format(self.document, self.number, self.language)


def blocks_of(path: Path) -> List[Block]:
    """The fenced blocks of one document."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    name = str(path.relative_to(ROOT))
    return [Block(name, number, language, text) for number, (language, text) in enumerate(found, 1)]


def anchors_of(path: Path) -> List[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def links_of(path: Path) -> List[str]:
    """The targets of a document's links, those to other hosts left out."""
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    return [target for target in targets if "://" not in target]


def commands(block: str) -> List[Tuple[str, str]]:
    """Split a console block into commands and what each prints."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        found.append((command, output))
    return found


def jobs(crontab: str) -> Tuple[Dict[str, str], List[str]]:
    """Split a crontab into its settings and the commands of its lines, as cron reads them."""
    settings: Dict[str, str] = {}
    found = []
    for line in crontab.splitlines():
        setting = re.match(r"([A-Z_]+)=(.*)$", line)
        if setting:
            settings[setting.group(1)] = setting.group(2)
        elif line and not line.startswith("#"):
            command = line.split(None, 5)[5]
            assert "%" not in command.replace("\\%", ""), "cron reads a bare % as the end of the command"
            found.append(command.replace("\\%", "%"))
    return settings, found


def shell_environment(box: Sandbox) -> Dict[str, str]:
    """The environment of a reader at a terminal who has set what docs/reference.md names."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HESTIAOS_", "AEGIS_"))}
    return dict(
        kept,
        PATH=SCRIPTS + os.pathsep + os.environ["PATH"],
        PYTHONPATH=os.pathsep.join([str(ROOT)] + os.environ.get("PYTHONPATH", "").split(os.pathsep)),
        HESTIAOS_BASE_URL=box.url,
        AEGIS_BASE_URL=box.url,
        AEGIS_TENANT_ID="acme",
        AEGIS_THREAD_ID="invoices",
    )


def run_job(
    job: str, settings: Mapping[str, str], home: Path, url: str, timeout_seconds: int = 20
) -> subprocess.CompletedProcess[str]:
    """Run a crontab's command as cron does: its shell, its poor environment and the crontab's own settings.

    What it prints is what cron would mail. Only the folders, the service's address and the patience are the test's own.
    """

    def here(text: str) -> str:
        text = text.replace(INSTALLED, SCRIPTS).replace(HOME, str(home)).replace(SETTINGS, str(home))
        return re.sub(r"--timeout \d+", "--timeout {}".format(timeout_seconds), text)

    for name in ("key", "aegis-key"):
        with open(os.open(str(home / name), os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write("k3y")
    environment = {"HOME": str(home), "LOGNAME": "hestiaos", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    environment.update(
        (name, url if name.endswith("_BASE_URL") else here(settings[name])) for name in settings
    )
    environment.update(HESTIAOS_TIMEOUT=str(timeout_seconds), AEGIS_TIMEOUT=str(timeout_seconds))
    return subprocess.run(
        [environment["SHELL"], "-c", here(job)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=str(home),
        timeout=60,
        text=True,
    )


def check_signature(name: str, parameters: str) -> None:
    """Compare a line of a list of calls with the code; ``...`` at its end leaves the others open."""
    head, *rest = name.split(".")
    found: Any = hestiaos_lite.Client() if head == "client" else getattr(hestiaos_lite, head)
    is_unbound = inspect.isclass(found) and bool(rest)
    for part in rest:
        found = getattr(found, part)
    assert found.__doc__
    given = list(inspect.signature(found).parameters.values())
    if is_unbound and given and given[0].name == "self":
        given = given[1:]
    bare = str(
        inspect.Signature([parameter.replace(annotation=inspect.Parameter.empty) for parameter in given])
    )
    is_open = parameters.endswith(", ...)")
    assert (bare[: len(parameters) - len("...)")] + "...)" if is_open else bare) == parameters
