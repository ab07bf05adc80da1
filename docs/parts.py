"""What the scripts that make pages write alike."""

from __future__ import annotations


def block(text: str, language: str = "text") -> str:
    """Return a text as it is, in a block of code."""
    return "```{}\n{}\n```".format(language, text.rstrip("\n"))


def row(*cells: str) -> str:
    """Return a row of a table; a ``|`` in a cell is escaped."""
    return "| {} |".format(" | ".join(cell.replace("|", "\\|") for cell in cells))


def head(*cells: str) -> str:
    """Return the first two lines of a table."""
    return "{}\n|{}".format(row(*cells), "---|" * len(cells))
