"""What a command says: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from typing import Any, Dict, Iterator, Mapping, Optional, TextIO

from .parser import PROGRAM

_RED, _YELLOW, _BOLD, _PLAIN = "\033[31m", "\033[33m", "\033[1m", "\033[0m"


class OutputClosed(Exception):
    """Standard output takes no more; ``is_broken_pipe`` where its reader has gone, which is no fault."""

    def __init__(self, error: Optional[OSError]) -> None:
        super().__init__("it is closed" if error is None else error.strerror or str(error))
        self.is_broken_pipe = isinstance(error, BrokenPipeError)


class Output:
    """The two streams of one command.

    With ``json`` the result is one JSON document, of a stream one object a line; notices and warnings stay text, and an
    error is one JSON object on standard error, its last line. ``quiet`` silences notices and warnings, never an error.
    """

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self._out: Optional[TextIO] = sys.stdout
        self._err: Optional[TextIO] = sys.stderr
        self._line_is_open = False
        for stream in (self._out, self._err):
            # What the terminal's encoding does not have is shown as \x.., instead of losing the result to an exception.
            if stream is not None and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    def configure(self, *, json: bool, quiet: bool) -> None:
        """Set what the arguments say."""
        self.json = json
        self.quiet = quiet

    # -- results

    def text(self, text: str) -> None:
        """Print a result, and end its line."""
        self._write(self._safe(self._out, text if text.endswith("\n") else text + "\n"))

    def heading(self, text: str) -> None:
        """Print a line in bold."""
        self._write(self._coloured(self._out, _BOLD, text) + "\n")

    def piece(self, text: str) -> None:
        """Print a piece of a result at once; `end_line` ends its line."""
        self._write(self._safe(self._out, text))
        self.flush()

    def end_line(self) -> None:
        """End the line that a piece has left open."""
        if self._line_is_open:
            self._line_is_open = False
            with contextlib.suppress(OutputClosed):  # whoever asks has something to say that matters more
                self.piece("\n")

    def document(self, value: Any) -> None:
        """Print a result as one JSON document: indented for a reader at a terminal, else on one line."""
        self._write(self._dumps(value, indent=2 if self._is_terminal(self._out) else None) + "\n")

    def object_line(self, value: Any) -> None:
        """Print one JSON object on one line, at once."""
        self._write(self._dumps(value) + "\n")
        self.flush()

    def fields(self, values: Mapping[str, Any]) -> None:
        """Print a mapping as JSON, or as one aligned ``name  value`` a line, leaving out what is None."""
        if self.json:
            self.document(values)
            return
        shown = {name: value for name, value in values.items() if value is not None}
        width = max((len(name) for name in shown), default=0)
        for name, value in shown.items():
            if not isinstance(value, str):
                value = self._dumps(value)
            label = self._coloured(self._out, _BOLD, name) + " " * (width - len(name))
            self._write("{}  {}\n".format(label, self._safe(self._out, value)))

    def flush(self) -> None:
        """Flush the results; raises OutputClosed when they cannot be written."""
        if self._out is not None:
            try:
                self._out.flush()
            except OSError as error:
                raise OutputClosed(error) from error

    # -- everything else

    def notice(self, text: str) -> None:
        """Tell the user something about the result."""
        if not self.quiet:
            self._say("", text)

    def warning(self, text: str) -> None:
        """Warn the user of something that works but should not stay."""
        if not self.quiet:
            self._say(PROGRAM + ": " + self._coloured(self._err, _YELLOW, "warning:") + " ", text)

    def complain(self, text: str) -> None:
        """Print an error line."""
        self._say(self._coloured(self._err, _RED, PROGRAM + ":") + " ", text)

    def report(self, error: Exception, *, exit_code: int) -> None:
        """Report an error: one line, or with ``json`` one object."""
        if self.json:
            self._say("", self._dumps({"error": dict(_facts(error), exit_code=exit_code)}))
        else:
            self.complain(" ".join(str(error).splitlines()))

    def report_bug(self, error: Exception, *, traceback: bool, exit_code: int) -> None:
        """Report an exception that should not have come here."""
        if traceback:
            import traceback as module

            self._say(
                "", "".join(module.format_exception(type(error), error, error.__traceback__)).rstrip("\n")
            )
        message = "this is a bug in hestiaos-lite, please report it: {}: {}".format(
            type(error).__name__, error
        )
        if self.json:
            facts = {
                "type": type(error).__name__,
                "code": "INTERNAL",
                "message": message,
                "exit_code": exit_code,
            }
            self._say("", self._dumps({"error": facts}))
        else:
            self.complain(message if traceback else message + " (-vv shows where)")

    @contextlib.contextmanager
    def listening(self, verbosity: int) -> Iterator[None]:
        """Within the block, show Python's warnings in our own form, and the package's log as ``verbosity`` asks."""
        with warnings.catch_warnings(), self._logging(verbosity) if verbosity else contextlib.nullcontext():
            warnings.filterwarnings("always", category=UserWarning, module="hestiaos_lite")
            warnings.showwarning = lambda message, *args, **kwargs: self.warning(str(message))
            yield

    @contextlib.contextmanager
    def _logging(self, verbosity: int) -> Iterator[None]:
        import logging  # here: --help does without it

        logger = logging.getLogger("hestiaos_lite")
        handler = logging.StreamHandler(self._err)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        before = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)

    # -- how

    def _write(self, text: str) -> None:
        if self._out is None:
            raise OutputClosed(None)
        if not text:
            return
        self._line_is_open = not text.endswith("\n")  # before it is written: a signal may come in between
        try:
            self._out.write(text)
        except OSError as error:
            raise OutputClosed(error) from error

    def _say(self, label: str, text: str) -> None:
        if self._is_terminal(self._out):
            self.end_line()  # both streams are likely to be the same screen
        if self._err is not None:
            with contextlib.suppress(OSError):  # there is nobody left to tell
                self._err.write(label + self._safe(self._err, text) + "\n")
                self._err.flush()

    def _dumps(self, value: Any, indent: Optional[int] = None) -> str:
        import json

        encoding = getattr(self._out, "encoding", None) or "ascii"
        return json.dumps(value, indent=indent, ensure_ascii=encoding.lower().replace("-", "") != "utf8")

    def _coloured(self, stream: Optional[TextIO], colour: str, text: str) -> str:
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not self._is_terminal(stream):
            return text
        return colour + text + _PLAIN

    def _safe(self, stream: Optional[TextIO], text: str) -> str:
        """Show control characters instead of sending them to a terminal: a service's text must not steer it."""
        if not self._is_terminal(stream) or (text.isprintable() and text.isascii()):
            return text
        return "".join(
            char
            if char in "\n\t" or ord(char) >= 160 or 32 <= ord(char) < 127
            else "\\x{:02x}".format(ord(char))
            for char in text
        )

    @staticmethod
    def _is_terminal(stream: Optional[TextIO]) -> bool:
        return stream is not None and stream.isatty()


def _facts(error: Exception) -> Dict[str, Any]:
    """Give the facts of an error; one that is not ours (ImportError, OSError) has but its message."""
    facts: Dict[str, Any] = {"type": type(error).__name__, "code": "CONFIGURATION", "message": str(error)}
    for name in (
        "code",
        "message",
        "trace_id",
        "status",
        "request_id",
        "attempts",
        "delivered",
        "effect",
        "retry_after",
    ):
        facts[name] = getattr(error, name, facts.get(name))
    return facts
