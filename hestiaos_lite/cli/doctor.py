"""doctor: check what keeps a job from working; one line and one cure a finding.

The checks of this machine (packages, settings, files, network variables) come first and send nothing. Then each service
is asked for something harmless.
"""

from __future__ import annotations

import warnings
from typing import Iterable, Iterator, List, Optional, Tuple

from .. import config
from ..errors import InvalidInput
from .connect import settings_of
from .environment import Finding, finding_of, packages, way_to
from .exits import DONE, REFUSED
from .output import Output
from .parser import Arguments, Parser
from .probes import probe_aegis, probe_hestiaos


def declare(parser: Parser) -> None:
    """Declare ``doctor``."""
    parser.description = """\
Check packages, settings, key files, network variables and both services, with a cure for each finding.
HestiaOS is asked for its health; if it is healthy, one run of the text "hello" is streamed to see whether events arrive as
they are sent. AEGIS, if a setting names it, is asked for a request id that cannot exist. Exit 0, or 1 when there is a
problem."""
    parser.add_argument("--no-stream", action="store_true", help='do not run "hello" to check the stream')
    parser.set_defaults(execute=_doctor)


def _doctor(args: Arguments, output: Output) -> int:
    findings: List[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other commands warn of is a finding here
        for finding in _examine(args):
            findings.append(finding)
            if not output.json:
                cure = "; cure: " + finding.cure if finding.cure else ""
                output.piece("{:<8} {:<12} {}{}\n".format(finding.level, finding.check, finding.text, cure))
    problems = sum(finding.level == "problem" for finding in findings)
    if output.json:
        output.document({"ok": not problems, "findings": [finding._asdict() for finding in findings]})
    if problems:
        output.complain("{} problem{}".format(problems, "" if problems == 1 else "s"))
        return REFUSED
    return DONE


def _examine(args: Arguments) -> Iterator[Finding]:
    found = list(packages())
    yield from found
    if args.api_key is not None:
        text = "everybody on this machine can see a key on the command line with ps"
        yield Finding("note", "key", text, "use HESTIAOS_API_KEY or --api-key-file")
    known: List[Finding] = []

    def new(findings: Iterable[Finding]) -> List[Finding]:
        """Return those that the other service has not had."""
        fresh = [finding for finding in findings if finding not in known]
        known.extend(fresh)
        return fresh

    for service, probe in (("hestiaos", probe_hestiaos), ("aegis", probe_aegis)):
        settings, problems = _settings(service, args)
        yield from new(problems)
        if settings is None:
            continue
        if service == "aegis" and set(settings.sources.values()) == {"default"}:
            yield Finding("ok", "aegis", "not set up: no setting names it")
            continue
        yield Finding("ok", service, _described(settings))
        if found[0].level == "problem":
            continue  # without its packages nothing can be asked
        key_variable = service.upper() + "_API_KEY"
        yield from new(way_to(settings.base_url, bool(settings.api_key), key_variable))
        yield from probe(args, settings)


def _settings(service: str, args: Arguments) -> Tuple[Optional[config.Settings], List[Finding]]:
    """Resolve a service's settings as its commands do; what they would warn of or end with is a problem."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            # -u and -k are HestiaOS's here: both services cannot be meant by one
            options = settings_of(args) if service == "hestiaos" else {"profile": args.profile}
            settings: Optional[config.Settings] = config.resolve(service, **options)
            problems = []
        except InvalidInput as error:
            settings, problems = None, [finding_of("problem", service, error.message)]
    return settings, [finding_of("problem", "file", warning.message) for warning in warned] + problems


def _described(settings: config.Settings) -> str:
    """Say what is set, and where: a setting that surprises is found by its source."""
    shown = {
        "base_url": settings.base_url,
        "api_key": "API key" if settings.api_key else "no API key",
        "timeout": "timeout {:g} s".format(settings.timeout_seconds),
        "tenant_id": "tenant {}".format(settings.tenant_id),
        "thread_id": "thread {}".format(settings.thread_id),
    }
    of_both = ("base_url", "api_key", "timeout")
    named = [name for name in shown if name in of_both or settings.sources.get(name, "default") != "default"]
    return ", ".join("{} ({})".format(shown[name], settings.sources[name]) for name in named)
