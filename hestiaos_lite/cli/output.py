"""What a command says: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from typing import Any, Dict, Iterator, Mapping, Optional

from .._stdio import Writer
from .parser import PROGRAM

_RED, _YELLOW, _BOLD, _PLAIN = "\033[31m", "\033[33m", "\033[1m", "\033[0m"


class OutputClosed(Exception):
    """Standard output takes no more; ``is_broken_pipe`` where its reader has gone, which is no fault."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        is_windows_pipe = os.name == "nt" and error.errno == errno.EINVAL  # its EPIPE
        self.is_broken_pipe = isinstance(error, BrokenPipeError) or is_windows_pipe


class Output:
    """The two streams of one command.

    With ``json`` the result is one JSON document, of a stream one object per line; notices and warnings stay text, and an
    error is one JSON object on standard error, its last line. ``quiet`` silences notices and warnings, never an error.

    What a service says is data. Standard error and the log are one line a message without control characters, wherever
    they go. Standard output shows control characters on a terminal as escapes, and is left as it is in a pipe or a file.
    """

    def __init__(self) -> None:
        self.json = False  # the result is wanted as a document, whole or one field of it
        self.quiet = False
        self._errors_as_json = False
        self._field: Optional[str] = None
        self._field_was_found = False
        self._out = Writer(sys.stdout)
        self._err = Writer(sys.stderr)
        self._line_is_open = False

    def configure(self, *, json: bool, quiet: bool, field: Optional[str] = None) -> None:
        """Set what the arguments say; of a document only ``field`` is printed where one is named."""
        self.json = json or field is not None
        self.quiet = quiet
        self._errors_as_json = json
        self._field = field

    # -- results

    def text(self, text: str) -> None:
        """Print a result, and end its line."""
        self._write(self._shown(text if text.endswith("\n") else text + "\n"))

    def heading(self, text: str) -> None:
        """Print a line in bold."""
        self._write(self._coloured(self._out, _BOLD, self._shown(text)) + "\n")

    def piece(self, text: str) -> None:
        """Print a piece of a result; `end_line` ends its line."""
        self._write(self._shown(text))

    def end_line(self) -> None:
        """End the line that a piece has left open."""
        if self._line_is_open:
            self._write("\n")

    def leave_line(self) -> None:
        """End an open line because something else comes, or nothing more: where nobody reads, it is left open."""
        if self._line_is_open and self._out.is_ready():
            with contextlib.suppress(OutputClosed):  # the caller has something more important to report
                self.end_line()
        self._line_is_open = False

    def document(self, value: Any, *, on_one_line: bool = False) -> None:
        """Print a result as one JSON document: on one line, but indented for a reader at a terminal."""
        if self._field is not None:
            value = find_field(value, self._field)
            if value is None:
                return
            self._field_was_found = True
            if isinstance(value, str):
                self._write(self._shown(value) + "\n")
                return
        text = self._dumps(value, indent=2 if self._out.is_terminal and not on_one_line else None)
        if self._out.is_terminal:
            from .._redact import harmless_json

            text = harmless_json(text)
        self._write(text + "\n")

    def result(self, value: Any, *, text: Optional[str] = None, notice: str = "") -> None:
        """Print a result: as a document where that is asked for, else a text, or a notice of what was done."""
        if self.json:
            self.document(value)
        elif text is not None:
            self.text(text)
        else:
            self.notice(notice)

    def fields(self, values: Mapping[str, Any]) -> None:
        """Print a mapping as JSON, or as one aligned ``name  value`` a line, leaving out what is None."""
        if self.json:
            self.document(values)
            return
        rows = []
        for name, value in values.items():
            if value is not None:
                text = value if isinstance(value, str) else self._dumps(value)
                rows.append((self._shown(name, is_line=True), self._shown(text, is_line=True)))
        width = max((len(name) for name, _ in rows), default=0)
        bold = [self._coloured(self._out, _BOLD, name) + " " * (width - len(name)) for name, _ in rows]
        self._write("".join("{}  {}\n".format(name, text) for name, (_, text) in zip(bold, rows)))

    @property
    def missing_field(self) -> Optional[str]:
        """The field that was asked for and was in no result, or None."""
        return None if self._field_was_found else self._field

    # -- everything else

    def notice(self, text: str) -> None:
        """Tell the user something about the result."""
        if not self.quiet:
            self._say(text)

    def warning(self, text: str) -> None:
        """Warn the user of something that works but should not stay."""
        if not self.quiet:
            label = PROGRAM + ": " + self._coloured(self._err, _YELLOW, "warning:") + " "
            self._say(text, label=label)

    def complain(self, text: str) -> None:
        """Print an error line."""
        self._say(text, label=self._coloured(self._err, _RED, PROGRAM + ":") + " ")

    def traceback(self, error: Exception) -> None:
        """Show where an exception came from."""
        from traceback import format_exception

        for line in "".join(format_exception(type(error), error, error.__traceback__)).splitlines():
            self._say(line)

    def report(
        self, error: Exception, *, exit_code: int, text: str = "", code: str = "CONFIGURATION"
    ) -> None:
        """Report an error: one line (``text``, or else its own words), or with ``json`` one object.

        One that is not ours (ImportError, OSError) has but a message, and no ``code`` of its own.
        """
        text = text or str(error)
        if not self._errors_as_json:
            self.complain(text)
            return
        from .._redact import harmless_json

        facts: Dict[str, Any] = {"type": type(error).__name__, "code": code, "message": text}
        for name in _FACTS:
            facts[name] = getattr(error, name, facts.get(name))
        self._say_line(harmless_json(self._dumps({"error": dict(facts, exit_code=exit_code)})))

    @contextlib.contextmanager
    def listening(self, verbosity: int) -> Iterator[None]:
        """Within the block, show Python's warnings in our own form, and the package's log as ``verbosity`` asks."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("always", category=UserWarning, module="hestiaos_lite")
            warnings.showwarning = lambda message, *args, **kwargs: self.warning(str(message))
            if verbosity:
                import logging  # here: --help does without it

                say = self._say

                class Handler(logging.Handler):
                    def emit(self, record: logging.LogRecord) -> None:
                        say(self.format(record))

                logger, handler = logging.getLogger("hestiaos_lite"), Handler()
                handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
                stack.callback(logger.setLevel, logger.level)
                stack.callback(logger.removeHandler, handler)
                logger.addHandler(handler)
                logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
            yield

    # -- how

    def _write(self, text: str) -> None:
        if not text:
            return
        self._line_is_open = not text.endswith("\n")  # before it is written: a signal may come in between
        try:
            self._out.write(text)
        except OSError as error:
            self._line_is_open = False  # nothing comes after what was cut off
            raise OutputClosed(error) from error

    def _say(self, text: str, *, label: str = "") -> None:
        from .._redact import harmless

        self._say_line(label + harmless(text))

    def _say_line(self, line: str) -> None:
        if self._out.is_terminal:
            self.leave_line()  # both streams are likely to be the same screen
        with contextlib.suppress(OSError):  # there is nobody left to tell
            self._err.write(line + "\n")

    def _dumps(self, value: Any, indent: Optional[int] = None) -> str:
        from .._json import dumps

        return dumps(value, indent=indent, ascii=self._out.encoding.lower().replace("-", "") != "utf8")

    def _coloured(self, writer: Writer, colour: str, text: str) -> str:
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not writer.is_terminal:
            return text
        return colour + text + _PLAIN

    def _shown(self, text: str, *, is_line: bool = False) -> str:
        """Show control characters instead of sending them to a terminal: a service's text must not steer it."""
        if not self._out.is_terminal:
            return text
        from .._redact import harmless, harmless_lines

        return harmless(text) if is_line else harmless_lines(text)


_FACTS = (
    "code", "message", "trace_id", "status", "request_id", "attempts", "delivered", "effect", "retry_after",
)  # fmt: skip


def find_field(value: Any, path: str) -> Any:
    """Return what a dotted path leads to (``data.items.0.name``), or None; a name that has dots itself is found too."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    name, _, rest = path.partition(".")
    if isinstance(value, Mapping):
        found = value.get(name)
    elif isinstance(value, (list, tuple)) and name.isdecimal() and int(name) < len(value):
        found = value[int(name)]
    else:
        return None
    return find_field(found, rest) if rest else found
