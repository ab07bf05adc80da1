"""Deterministic governance: an ordered table of rules, and the ruling that it gives on a text.

The first rule whose pattern is found decides; where none is found the text is allowed. The same text always gets the
same ruling, in time proportional to its length: see ``load_policy`` for what a pattern may repeat.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Pattern, Sequence, Union

DECISIONS = ("ALLOW", "THROTTLE", "BLOCK")
SEVERITIES = {"none": 0.0, "low": 0.25, "medium": 0.5, "high": 0.75, "critical": 1.0}  # with risk score
MAX_REPEATS = 100_000

_DEFAULTS = {
    "ALLOW": ("none", 1.0),
    "THROTTLE": ("medium", 0.5),
    "BLOCK": ("high", 0.0),
}  # severity and budget

# An escape, or a class of characters: what looks like a repetition in one is none.
_ONE_CHARACTER = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_NO_BOUND = re.compile(r"[*+]|\{\d*,\}|\)\{")
_BOUND = re.compile(r"\{(?:\d*,)?(\d+)\}")

# fmt: off
_SEND = r"\b(?:send|e-?mail|mail|post|upload|forward|publish|leak|exfiltrate|curl|wget|scp|paste|dump).{0,100}?"
_CREDENTIAL = (r"(?:passwords?|passwd|api[ _-]?keys?|secrets?|credentials?|private[ _-]keys?|access[ _-]tokens?"
               r"|id_rsa|\.ssh/|\.aws/)")
_CRITICAL = {"decision": "BLOCK", "severity": "critical"}
_SHELL = dict(_CRITICAL, policy="destructive-shell")
_SQL = dict(_CRITICAL, policy="destructive-sql")
_EXFILTRATION = dict(_CRITICAL, policy="credential-exfiltration")
_BULK = {"decision": "THROTTLE", "severity": "medium", "policy": "bulk-send", "budget": 0.25}
_EXTERNAL = {"decision": "THROTTLE", "severity": "low", "policy": "external-send", "budget": 0.5}
DEFAULT_RULES: Sequence[Mapping[str, Any]] = (
    dict(_SHELL, reason="deletes files by force", pattern=r"\brm\s{1,8}--?(?:recursive|force|[a-z]{0,6}[rf])"),
    dict(_SHELL, reason="formats or wipes a disk", pattern=r"\bmkfs(?:\.\w{1,16})?\s|\bwipefs\b|\bformat\s{1,8}[a-z]:"),
    dict(_SHELL, reason="writes over a disk", pattern=r"(?:\bof=|>\s{0,8})/dev/(?:sd|hd|vd|nvme|disk)"),
    dict(_SHELL, reason="is a fork bomb", pattern=r":\(\)\s{0,8}\{"),
    dict(_SQL, reason="drops what holds data", pattern=r"\bdrop\s{1,8}(?:table|database|schema|index|view|user)\b"),
    dict(_SQL, reason="empties a table", pattern=r"\btruncate\s{1,8}table\b"),
    dict(_SQL, reason="deletes every row", pattern=r"\bdelete\s{1,8}from\s{1,8}[\w.\"`]{1,128}\s{0,8}(?:;|\Z)"),
    dict(_EXFILTRATION, reason="sends credentials away", pattern=_SEND + _CREDENTIAL),
    dict(_EXFILTRATION, reason="reads the password file", pattern=r"/etc/shadow\b"),
    dict(_BULK, reason="sends to many receivers", pattern=_SEND + r"\b(?:all|every|everyone|everybody|each|bulk|mass)\b"),
    dict(_BULK, reason="sends in bulk", pattern=r"\b(?:bulk|mass)[ -](?:e-?mail|mail|send|message|post)"),
    dict(_EXTERNAL, reason="sends to a receiver outside", pattern=_SEND + r"(?:\bexternal|\boutside\b|https?://|\w@\w)"),
)
# fmt: on


class Rule(NamedTuple):
    """One row of the table, which is also the ruling that it gives.

    Attributes:
        number: its place, from 1; 0 where no rule decided.
        pattern: a regular expression, searched anywhere in the text, any case, ``^`` at every line.
        decision: ``ALLOW``, ``THROTTLE`` or ``BLOCK``.
        severity: ``none``, ``low``, ``medium``, ``high`` or ``critical``.
        policy: the name a trace shows.
        reason: the sentence a trace shows.
        budget: share of the full budget granted, 0.0 to 1.0.
    """

    number: int
    pattern: Pattern[str]
    decision: str
    severity: str
    policy: str
    reason: str
    budget: float

    def shown(self) -> Dict[str, Any]:
        """What traces and explanations have in common; ``rule`` is the one that decided, or None."""
        rule = {"number": self.number, "pattern": self.pattern.pattern, "policy": self.policy}
        shown = {name: getattr(self, name) for name in ("decision", "policy", "reason", "budget")}
        return dict(shown, risk_score=SEVERITIES[self.severity], rule=rule if self.number else None)


NO_RULE = Rule(0, re.compile(""), "ALLOW", "none", "default-allow", "no rule matched", 1.0)


class Policy(NamedTuple):
    """An ordered table of rules. ``source`` says where it came from."""

    rules: Sequence[Rule]
    source: str

    def judge(self, text: str) -> Rule:
        """The first rule whose pattern is found in the text."""
        return next((rule for rule in self.rules if rule.pattern.search(text)), NO_RULE)


def load_policy(policy: Union[None, str, os.PathLike[str], Sequence[Mapping[str, Any]]] = None) -> Policy:
    """The default table, one read from a JSON file, or one given as mappings.

    The file holds a list of rules, first match first. ``pattern`` and ``decision`` are required;
    ``severity``, ``policy``, ``reason`` and ``budget`` have defaults that follow from the decision::

        [{"pattern": "\\\\bpayroll\\\\b", "decision": "BLOCK", "severity": "high",
          "policy": "payroll", "reason": "payroll is not for agents"}]

    A pattern repeats one character or class, and within a bound (``\\s{1,8}``, ``.{0,200}``, ``x?``): Python's ``re``
    may take time exponential in the text over any other (``(a+)+$``), and cannot be interrupted.

    Raises ValueError naming the file and the rule that is wrong, or the file that cannot be read.
    """
    if policy is None:
        return Policy(_rules(DEFAULT_RULES, "default policy"), "default")
    if not isinstance(policy, (str, os.PathLike)):
        return Policy(_rules(policy, "policy"), "given")
    source = os.fspath(policy)
    try:
        with open(source, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise ValueError("policy file {}: {}".format(source, error.strerror or error)) from error
    except (ValueError, RecursionError) as error:
        raise ValueError("policy file {}: not JSON: {}".format(source, error)) from error
    return Policy(_rules(content, "policy file {}".format(source)), source)


def text_of(*values: Any) -> str:
    """Every string and number inside the given values, in order, joined by spaces: what governance looks at.

    So ``{"argv": ["rm", "-rf", "/"]}`` is checked like the text ``rm -rf /``.
    """
    words: List[str] = []
    pending = list(reversed(values))
    while pending:  # not recursive: depth is the caller's choice
        value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend(reversed(list(value.values())))
        elif isinstance(value, (list, tuple)):
            pending.extend(reversed(value))
        elif value is not None:
            words.append(str(value))
    return " ".join(words)


def _rules(content: Any, source: str) -> List[Rule]:
    if not isinstance(content, Sequence) or isinstance(content, str):
        # a bad policy is one error class, whatever is wrong with it
        raise ValueError("{}: must be a list of rules".format(source))  # noqa: TRY004
    rules = []
    for number, values in enumerate(content, 1):
        try:
            rules.append(_rule(number, values))
        except ValueError as error:
            raise ValueError("{}: rule {}: {}".format(source, number, error)) from error
    return rules


def _rule(number: int, values: Any) -> Rule:
    if not isinstance(values, Mapping):
        raise ValueError("must be an object")  # noqa: TRY004
    known = Rule._fields[1:]
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise ValueError("unknown field {}; known are {}".format(", ".join(unknown), ", ".join(known)))
    for name in ("pattern", "decision"):
        if name not in values:
            raise ValueError("{} is missing".format(name))
    for name in ("pattern", "decision", "severity", "policy", "reason"):
        if name in values and not (isinstance(values[name], str) and values[name]):
            raise ValueError("{} must be a text that is not empty".format(name))
    severity, budget = _DEFAULTS.get(values["decision"], ("none", 0.0))
    usual = {"severity": severity, "budget": budget, "policy": "rule-{}".format(number)}
    rule = {**usual, "reason": "matches {}".format(values["pattern"]), **values}
    for field, choices in (("decision", DECISIONS), ("severity", tuple(SEVERITIES))):
        if rule[field] not in choices:
            raise ValueError("{} must be one of {}, not {!r}".format(field, ", ".join(choices), rule[field]))
    budget = rule["budget"]
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 <= budget <= 1:
        raise ValueError("budget must be a number from 0 to 1, not {!r}".format(budget))
    return Rule(number=number, **dict(rule, pattern=_compiled(rule["pattern"]), budget=float(budget)))


def _compiled(pattern: str) -> Pattern[str]:
    """The pattern, once it is known to take a time in proportion to the text."""
    try:
        compiled = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError("pattern is not a regular expression: {}".format(error)) from error
    plain = _ONE_CHARACTER.sub("x", pattern)
    if _NO_BOUND.search(plain):
        message = "pattern repeats without a bound, or a group, which may take for ever: write .{{0,200}} instead of .*, not {}"
        raise ValueError(message.format(pattern))
    repeats = 1
    for bound in _BOUND.findall(plain):
        repeats *= int(bound) + 1
    if repeats > MAX_REPEATS:
        raise ValueError("pattern repeats too much: its bounds multiplied exceed {}".format(MAX_REPEATS))
    return compiled
