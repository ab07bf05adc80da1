"""Deterministic governance: an ordered table of rules, and the ruling that it gives on a text.

The first rule whose pattern is found decides; where none is found the text is allowed. The same text always
gets the same ruling.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Pattern, Sequence, Union

from .patterns import TooSlow, first_found

DECISIONS = ("ALLOW", "THROTTLE", "BLOCK")
SEVERITIES = {"none": 0.0, "low": 0.25, "medium": 0.5, "high": 0.75, "critical": 1.0}  # with risk score

_DEFAULT_SEVERITY = {"ALLOW": "none", "THROTTLE": "medium", "BLOCK": "high"}
_DEFAULT_BUDGET = {"ALLOW": 1.0, "THROTTLE": 0.5, "BLOCK": 0.0}
_RULE_FIELDS = ("pattern", "decision", "severity", "policy", "reason", "budget")

_FLAGS = re.IGNORECASE | re.MULTILINE
# Without repetition a search takes time in proportion to the text. Alternatives in a row may still multiply
# ("(a|a)(a|a)..."), but only with the length of the pattern, which is its author's.
_REPETITION = re.compile(r"[*+?{]")

# The default patterns are searched in texts of up to a megabyte, so they must be linear: every repetition is
# bounded, or is in a lookahead whose group is repeated at once, which keeps `re` from going back into it (there
# are no atomic groups before 3.11).
_SEND = r"(?:send|e-?mail|mail|post|upload|forward|publish|leak|exfiltrate|curl|wget|scp|paste|dump)"
_CREDENTIAL = (
    r"(?:passwords?|passwd|api[ _-]?keys?|secrets?|credentials?|private[ _-]keys?|access[ _-]tokens?"
    r"|id_rsa|\.ssh/|\.aws/)"
)
_AFTER_SEND = r"^(?=([^\n]*?\b" + _SEND + r"\b))\1[^\n]*?"


def _blocked(policy: str, reason: str, pattern: str) -> Mapping[str, Any]:
    return {
        "pattern": pattern,
        "decision": "BLOCK",
        "severity": "critical",
        "policy": policy,
        "reason": reason,
    }


DEFAULT_RULES: Sequence[Mapping[str, Any]] = (
    _blocked(
        "destructive-shell", "deletes files by force", r"\brm\s{1,8}--?(?:recursive|force|[a-z]{0,6}[rf])"
    ),
    _blocked(
        "destructive-shell",
        "formats or wipes a disk",
        r"\bmkfs(?:\.\w{1,16})?\s|\bwipefs\b|\bformat\s{1,8}[a-z]:",
    ),
    _blocked("destructive-shell", "writes over a disk", r"(?:\bof=|>\s{0,8})/dev/(?:sd|hd|vd|nvme|disk)"),
    _blocked("destructive-shell", "is a fork bomb", r":\(\)\s{0,8}\{"),
    _blocked(
        "destructive-sql",
        "drops what holds data",
        r"\bdrop\s{1,8}(?:table|database|schema|index|view|user)\b",
    ),
    _blocked("destructive-sql", "empties a table", r"\btruncate\s{1,8}table\b"),
    _blocked(
        "destructive-sql", "deletes every row", r"\bdelete\s{1,8}from\s{1,8}[\w.\"`]{1,128}\s{0,8}(?:;|\Z)"
    ),
    _blocked("credential-exfiltration", "sends credentials away", _AFTER_SEND + _CREDENTIAL),
    _blocked("credential-exfiltration", "reads the password file", r"/etc/shadow\b"),
    {
        "pattern": _AFTER_SEND + r"\b(?:all|every|everyone|everybody|each|bulk|mass)\b",
        "decision": "THROTTLE",
        "severity": "medium",
        "policy": "bulk-send",
        "reason": "sends to many receivers",
        "budget": 0.25,
    },
    {
        "pattern": r"\b(?:bulk|mass)[ -](?:e-?mail|mail|send|message|post)",
        "decision": "THROTTLE",
        "severity": "medium",
        "policy": "bulk-send",
        "reason": "sends in bulk",
        "budget": 0.25,
    },
    {
        "pattern": _AFTER_SEND + r"(?:\bexternal|\boutside\b|https?://|\w@\w)",
        "decision": "THROTTLE",
        "severity": "low",
        "policy": "external-send",
        "reason": "sends to a receiver outside",
        "budget": 0.5,
    },
)


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        number: its place, from 1.
        pattern: a regular expression, searched anywhere in the text, any case, ``^`` at every line.
        decision: ``ALLOW``, ``THROTTLE`` or ``BLOCK``.
        severity: ``none``, ``low``, ``medium``, ``high`` or ``critical``.
        policy: the name a trace shows.
        reason: the sentence a trace shows.
        budget: share of the full budget granted, 0.0 to 1.0.
        linear: its pattern is known to take time in proportion to the text.
    """

    number: int
    pattern: Pattern[str]
    decision: str
    severity: str
    policy: str
    reason: str
    budget: float
    linear: bool


@dataclass(frozen=True)
class Ruling:
    """What governance says of a text, and the rule that decided (None: no rule did)."""

    decision: str
    severity: str
    policy: str
    reason: str
    budget: float
    rule: Optional[Rule] = None

    @property
    def risk_score(self) -> float:
        """0.0 to 1.0, from the severity."""
        return SEVERITIES[self.severity]

    @property
    def violations(self) -> List[Dict[str, str]]:
        """The wire's list: empty when allowed."""
        return [] if self.decision == "ALLOW" else [{"reason": self.reason, "severity": self.severity}]

    @property
    def matched_rule(self) -> Optional[Dict[str, Any]]:
        """The rule that decided, as ``{"number", "pattern", "policy"}``."""
        if self.rule is None:
            return None
        return {"number": self.rule.number, "pattern": self.rule.pattern.pattern, "policy": self.rule.policy}


_ALLOWED = Ruling("ALLOW", "none", "default-allow", "no rule matched", 1.0)
_TOO_SLOW = Ruling(
    "BLOCK", "high", "pattern-too-slow", "a pattern of the policy took too long on this text", 0.0
)


class Policy:
    """An ordered table of rules. ``source`` says where it came from."""

    def __init__(self, rules: Sequence[Rule], source: str) -> None:
        self.rules = tuple(rules)
        self.source = source

    def judge(self, text: str) -> Ruling:
        """The ruling on a text: that of the first rule whose pattern is found.

        A pattern that takes too long blocks: what could not be judged is not allowed.
        """
        decided = next((rule for rule in self.rules if rule.linear and rule.pattern.search(text)), None)
        before = self.rules if decided is None else self.rules[: decided.number - 1]
        doubtful = [rule for rule in before if not rule.linear]
        if doubtful:
            try:
                found = first_found([rule.pattern.pattern for rule in doubtful], text, int(_FLAGS))
            except TooSlow:
                return _TOO_SLOW
            decided = decided if found is None else doubtful[found]
        if decided is None:
            return _ALLOWED
        return Ruling(
            decided.decision, decided.severity, decided.policy, decided.reason, decided.budget, decided
        )


def load_policy(policy: Union[None, str, os.PathLike[str], Sequence[Mapping[str, Any]]] = None) -> Policy:
    """The default table, one read from a JSON file, or one given as mappings.

    The file holds a list of rules, first match first. ``pattern`` and ``decision`` are required;
    ``severity``, ``policy``, ``reason`` and ``budget`` have defaults that follow from the decision::

        [{"pattern": "\\\\bpayroll\\\\b", "decision": "BLOCK", "severity": "high",
          "policy": "payroll", "reason": "payroll is not for agents"}]

    A pattern that repeats (``*``, ``+``, ``?``, ``{``) is searched in a process of its own, which costs a judgement
    some 20 ms; where it takes more than a second of processor time the text is blocked.

    Raises ValueError naming the file and the rule that is wrong, or the file that cannot be read.
    """
    if policy is None:
        return Policy(_rules(DEFAULT_RULES, "default policy", linear=True), "default")
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


def _rules(content: Any, source: str, *, linear: bool = False) -> List[Rule]:
    if isinstance(content, Mapping) or not isinstance(content, Sequence) or isinstance(content, str):
        # a bad policy is one error class, whatever is wrong with it
        raise ValueError("{}: must be a list of rules".format(source))  # noqa: TRY004
    return [_rule(number, values, source, linear) for number, values in enumerate(content, 1)]


def _rule(number: int, values: Any, source: str, linear: bool) -> Rule:
    def wrong(problem: str) -> ValueError:
        return ValueError("{}: rule {}: {}".format(source, number, problem))

    if not isinstance(values, Mapping):
        raise wrong("must be an object")
    unknown = sorted(str(name) for name in values if name not in _RULE_FIELDS)
    if unknown:
        raise wrong("unknown field {}; known are {}".format(", ".join(unknown), ", ".join(_RULE_FIELDS)))
    for name in ("pattern", "decision"):
        if name not in values:
            raise wrong("{} is missing".format(name))
    for name in ("pattern", "decision", "severity", "policy", "reason"):
        if name in values and not (isinstance(values[name], str) and values[name]):
            raise wrong("{} must be a text that is not empty".format(name))
    decision = values["decision"]
    if decision not in DECISIONS:
        raise wrong("decision must be one of {}, not {!r}".format(", ".join(DECISIONS), decision))
    severity = values.get("severity", _DEFAULT_SEVERITY[decision])
    if severity not in SEVERITIES:
        raise wrong("severity must be one of {}, not {!r}".format(", ".join(SEVERITIES), severity))
    budget = values.get("budget", _DEFAULT_BUDGET[decision])
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 <= budget <= 1:
        raise wrong("budget must be a number from 0 to 1, not {!r}".format(budget))
    try:
        pattern = re.compile(values["pattern"], _FLAGS)
    except (re.error, OverflowError, RecursionError) as error:
        raise wrong("pattern is no regular expression: {}".format(error)) from error
    policy = values.get("policy", "rule-{}".format(number))
    reason = values.get("reason", "matches {}".format(values["pattern"]))
    linear = linear or not _REPETITION.search(pattern.pattern)
    return Rule(number, pattern, decision, severity, policy, reason, float(budget), linear)


def text_of(*values: Any) -> str:
    """Every string and number inside the given values, in order, joined by spaces: what governance looks at.

    So ``{"argv": ["rm", "-rf", "/"]}`` is judged like the text ``rm -rf /``.
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
