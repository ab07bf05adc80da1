"""guard: ask governance whether a command may run; where it may, the command takes this process's place.

What of the command may be seen is masked, and a line in a log says who was about to do what.

The exec comes last, when every context of the command line has ended: signals, descriptors, streams and environment are
then those that guard was started with, and no process of ours is left beside the command.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import re
import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

from .._redact import one_line
from ..errors import ConnectionFailed, GovernanceBlock, HestiaError, InvalidInput
from ..models import is_refusal
from .connect import json_object, open_client
from .exits import TRY_LATER, UNAVAILABLE, report
from .output import Output
from .parser import Arguments, Parser, count, report_usage_error

if TYPE_CHECKING:
    from ..models.governance import Ruling

    RulingOrError = Union[Ruling, HestiaError]  # a ruling by which it may run, or why it may not

Mask = Callable[[Any], Any]

_NOT_RUN = 125  # what env, nice and timeout end with when they fail themselves
_CANNOT_START, _NOT_FOUND = 126, 127  # as a shell, env and nice have it
_COERCED = "LC_CTYPE"
_IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")  # and what is ignored stays so beyond an exec


def declare(parser: Parser) -> None:
    parser.description = """\
Ask governance whether a command may run. If it says ALLOW, the command replaces guard: signals, streams and the
exit code are the command's. Otherwise nothing runs:
  125  not run, and trying again will not help: refused, a broken answer, a setting, the log
   75  not run, a later try may succeed: THROTTLE, the service down or slow
  126  allowed, but it cannot be started; 127: not found
It is advice taken beforehand, not a boundary: anyone who can type the command can type it without guard."""
    parser.usage = "%(prog)s [OPTION]... -- COMMAND [ARGUMENT]..."
    parser.takes_command = True
    parser.on_usage_error = _usage_error

    add = parser.add_argument
    add("--type", help="the type of command that is reported to governance", default="shell", metavar="TYPE")
    add("--input", help="more for governance to judge by: a JSON object, or @FILE", metavar="JSON")
    help = "show $VARIABLE in place of its value, in what is sent, logged and printed; repeatable"
    add("--mask", help=help, action="append", default=[], metavar="VARIABLE")
    add("--allow-throttle", help="run it also if governance says THROTTLE", action="store_true")
    help = "run it, with a notice, if there is no ruling: the service is down, failing or too slow"
    add("--fail-open", help=help, action="store_true")
    add("--not-run-exit", help="exit code in place of 125 and 75", type=_exit_code, metavar="N")
    help = "append a JSON line to FILE before it runs; if that fails, nothing runs"
    add("--log", help=help, metavar="FILE")
    parser.set_defaults(execute=_guard)


def _usage_error(message: str, argv: Sequence[str], output: Output) -> int:
    """Report a usage error, and return guard's own exit code: nothing runs."""
    head = list(argv[: argv.index("--")] if "--" in argv else argv)
    named: Dict[str, List[str]] = {"--mask": [], "--not-run-exit": []}
    for option, value in zip(head, head[1:] + [""]):
        name, equals, joined = option.partition("=")
        if name in named:
            named[name].append(joined if equals else value)
    is_set = [name for name in named["--mask"] if os.environ.get(name)]
    code = _NOT_RUN
    with contextlib.suppress(argparse.ArgumentTypeError, IndexError):
        code = _exit_code(named["--not-run-exit"][0])
    return report_usage_error(_mask_of(is_set, quoted=True)(message), argv, output, code)


def _exit_code(text: str) -> int:
    code = count(text)
    if code > 255:
        raise argparse.ArgumentTypeError("must be an exit code, 0 to 255, not {!r}".format(text))
    return code


def _guard(args: Arguments, output: Output) -> Union[int, Callable[[], int]]:
    """Return an exit code, or what is to be done once all contexts have ended: to exec the command."""
    mask: Mask = str
    try:
        mask = _mask_of(args.mask)
        shown = [mask(_as_text(word)) for word in args.argv]
        ruling = _ask(args, shown, mask)
        refusal = ruling if isinstance(ruling, HestiaError) else None
        runs = refusal is None or (args.fail_open and _has_no_ruling(refusal))
        if args.log is not None:
            facts: Dict[str, Any] = {name: mask(value) for name, value in _facts(ruling).items()}
            try:
                _append_record(args.log, dict(facts, argv=shown, outcome="run" if runs else "not run"))
            except InvalidInput as error:
                if runs:
                    raise
                output.complain(mask(error.message))
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing runs, and the exit code has to say that
        return _refuse(error, args, output, mask)
    if refusal is not None and not runs:
        return _refuse(refusal, args, output, mask)
    if refusal is not None:
        output.complain("run without a ruling, because of --fail-open: {}".format(mask(str(refusal))))
    elif args.verbose:
        output.notice(mask(_said(ruling)))
    return lambda: _exec(args.argv, shown[0] or "''", output)


def _ask(args: Arguments, shown: List[str], mask: Mask) -> RulingOrError:
    try:
        if args.input == "-":
            raise InvalidInput("--input - is not possible: standard input belongs to the command; use @FILE")
        command_input: Dict[str, Any] = mask(json_object(args.input, "--input") or {})
        # quoted after the mask: a value with a quote in it would not be found in the quoted form
        command_input.update(argv=shown, command=" ".join(shlex.quote(word) for word in shown))
        with open_client(args) as client:
            return client.governance.require(
                mask(_as_text(args.type)), command_input, allow_throttle=args.allow_throttle
            )
    except HestiaError as error:
        return error
    except RecursionError:
        return InvalidInput("--input is nested too deeply")


def _may_be_later(error: HestiaError) -> bool:
    return error.exit_code in (UNAVAILABLE, TRY_LATER) and not error.is_final


def _has_no_ruling(error: HestiaError) -> bool:
    """True where governance could not be asked.

    An answer that broke off may have been a refusal, a gateway's page is one of sorts, and whatever the status of an answer
    is, none runs that says no.
    """
    is_broken = isinstance(error, ConnectionFailed) and error.delivered
    if not _may_be_later(error) or is_broken or isinstance(error, GovernanceBlock) or error.code == "GATEWAY":
        return False
    return not _says_no(error.details)


def _says_no(body: Any) -> bool:
    """True where a word of refusal is anywhere in an error's body, as a value or within a text."""
    values = [body]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
        elif isinstance(value, str):
            # "failed" is in many a text about an outage, and a refusal only where it is the whole value
            words = re.findall(r"[A-Z]+", value.upper())
            if is_refusal(value) or any(is_refusal(word) and word != "FAILED" for word in words):
                return True
    return False


def _refuse(error: Any, args: Arguments, output: Output, mask: Mask) -> int:
    """Say why nothing runs, and return the exit code."""
    code: Optional[int] = args.not_run_exit
    if code is None:
        code = TRY_LATER if isinstance(error, HestiaError) and _may_be_later(error) else _NOT_RUN
    is_block = isinstance(error, GovernanceBlock)
    if isinstance(error, HestiaError):
        error.message = mask(_said(error) if is_block else error.message)
    text = "not run: {}".format(error.message if is_block else error)
    return report(error, args, output, code=code, text=text)


def _facts(ruling: RulingOrError) -> Dict[str, Optional[str]]:
    """Return what governance said: decision, reason, policy and trace id, None where it did not."""
    source: Any = ruling
    if isinstance(ruling, GovernanceBlock):
        from ..namespaces import ruling_of

        source = ruling_of(ruling.details)
    facts = {name: getattr(source, name, None) for name in ("decision", "reason", "policy", "trace_id")}
    return dict(facts, reason=source.message) if isinstance(source, HestiaError) else facts


def _said(ruling: RulingOrError) -> str:
    """Put a ruling in one line."""
    facts = {name: one_line(text or "") for name, text in _facts(ruling).items()}
    text = "governance says {decision}".format(**facts) + (facts["reason"] and ": " + facts["reason"])
    named = [("policy", facts["policy"]), ("trace id", facts["trace_id"])]
    names = ", ".join("{} {}".format(name, value) for name, value in named if value)
    return "{} ({})".format(text, names) if names else text


# -- the command in this process's place, with nothing of Python's left on it


def _exec(argv: List[str], shown: str, output: Output) -> int:
    """Replace this process by the command; where exec does not replace, run it, wait, and return its exit code."""
    numbers = [getattr(signal, name) for name in _IGNORED_BY_PYTHON if hasattr(signal, name)]
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    _undo_locale_coercion()
    try:
        if os.name == "posix":
            os.execv(_find(argv[0]), argv)  # noqa: S606 - without a shell, as it should be
        import subprocess  # Windows: exec starts another process there, and a process that waits for this one goes on

        return subprocess.call(argv)  # noqa: S603 - the very command that was asked for
    except FileNotFoundError:
        code, why = _NOT_FOUND, "not found (an alias, a builtin, a pipe or NAME=value needs sh -c)"
    except OSError as error:
        code, why = _CANNOT_START, error.strerror or str(error)
        if error.errno == errno.ENOEXEC:
            why += " (a script needs a first line such as #!/bin/sh)"
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
    output.complain("allowed, but cannot be started: {}: {}".format(shown, why))
    return code


def _find(name: str) -> str:
    """Return the path of a command as a shell finds it.

    os.execvp reports the first obstacle it met on PATH, be it a folder that may not be entered, for what ended its search.
    """
    if "/" in name:
        return name
    paths = [os.path.join(folder, name) for folder in os.get_exec_path() if name]
    found = [path for path in paths if os.path.isfile(path)]
    if not found:
        raise FileNotFoundError(name)
    return next((path for path in found if os.access(path, os.X_OK)), found[0])


def _undo_locale_coercion() -> None:
    """Put back the LC_CTYPE that Python replaces in its environment where the locale is C, as it is under cron (PEP 538)."""
    if _COERCED not in os.environ or not sys.platform.startswith("linux"):
        return
    try:
        with open("/proc/self/environ", "rb") as file:  # what this process was started with
            given = dict(setting.partition(b"=")[::2] for setting in file.read().split(b"\0"))
    except OSError:
        return  # no /proc: it stays
    del os.environ[_COERCED]
    if _COERCED.encode() in given:
        os.environ[_COERCED] = os.fsdecode(given[_COERCED.encode()])


# -- what may be seen, and the log


def _mask_of(variables: Sequence[str], quoted: bool = False) -> Mask:
    """Return a function that masks these variables' values in a text, or in all that a JSON value holds.

    The longest value is looked for first. There is no masking by pattern: what is not named is shown.

    Args:
        quoted: look also for a value as Python quotes it.

    Raises:
        InvalidInput: a variable is not set, or empty.
    """
    secrets = []
    for name in variables:
        if not os.environ.get(name):
            raise InvalidInput("--mask {}: that variable is not set, or empty".format(name))
        secrets.append((_as_text(os.environ[name]), "$" + name))
        if quoted:
            secrets.append((repr(os.environ[name])[1:-1], "$" + name))
    secrets.sort(key=lambda secret: -len(secret[0]))

    def in_text(text: str, first: int = 0) -> str:
        if first == len(secrets):
            return text
        secret, name = secrets[first]
        # the others are looked for beside it, never in the name put in its place
        return name.join(in_text(part, first + 1) for part in text.split(secret))

    def masked(value: Any) -> Any:
        if isinstance(value, str):
            return in_text(value)
        if isinstance(value, dict):
            return {in_text(name): masked(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [masked(inner) for inner in value]
        text = json.dumps(value)  # a number may be somebody's PIN
        return value if in_text(text) == text else in_text(text)

    return masked


def _as_text(word: str) -> str:
    """Return an argument or variable as text that can be sent: bytes that are not UTF-8 are shown as ``\\xff``."""
    return os.fsencode(word).decode("utf-8", "backslashreplace")


def _append_record(path: str, facts: Mapping[str, Any]) -> None:
    """Append a JSON line in one write: time (UTC), user, pid, working folder, and the facts; a new file has mode 0600.

    Raises:
        InvalidInput: the line is not in the log, or not whole.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = json.dumps(dict(time=now, user=_user(), pid=os.getpid(), cwd=_folder(), **facts)) + "\n"
    try:
        # not through a link that another user has put there, and no wait for the reader of a FIFO
        is_own_link = os.path.islink(path) and os.lstat(path).st_uid in (0, getattr(os, "getuid", int)())
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        file = os.open(path, flags | (0 if is_own_link else getattr(os, "O_NOFOLLOW", 0)), 0o600)
        try:
            line = "\n" + line if _is_cut_off(path) else line
            is_whole = os.write(file, line.encode("ascii")) == len(line)
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(
            "the log {} cannot be written: {}".format(path, why), code="CONFIGURATION"
        ) from error
    if not is_whole:
        raise InvalidInput("the log {} took only part of the line".format(path), code="CONFIGURATION")


def _is_cut_off(path: str) -> bool:
    """True where a log ends within a line, at which its disk was full; False where it cannot be read."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            os.lseek(file, -1, os.SEEK_END)
            return os.read(file, 1) not in (b"", b"\n")
        finally:
            os.close(file)
    return False


def _user() -> str:
    """Return the user's name as the system has it; a variable would say whatever somebody put into it."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())  # it has no name
    except ImportError:
        return os.environ.get("USERNAME") or "unknown"  # Windows, where a variable is all there is


def _folder() -> Optional[str]:
    """Return the working folder, None where it has been removed."""
    try:
        return _as_text(os.getcwd())
    except OSError:
        return None
