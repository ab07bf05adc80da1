"""completion: print the completion script of a shell."""

from __future__ import annotations

import pkgutil

from .exits import DONE
from .output import Output
from .parser import OUTPUT_OPTIONS, PROGRAM, Arguments, Parser

SHELLS = ("bash", "zsh", "fish")


def declare(parser: Parser) -> None:
    """Declare ``completion``."""
    parser.takes = OUTPUT_OPTIONS
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    parser.description = """\
Print the completion script of a shell. To switch it on:

  bash   hestiaos-lite completion bash > ~/.local/share/bash-completion/completions/hestiaos-lite
  zsh    hestiaos-lite completion zsh > /a/folder/of/your/fpath/_hestiaos-lite
  fish   hestiaos-lite completion fish > ~/.config/fish/completions/hestiaos-lite.fish
"""
    parser.set_defaults(execute=_print)


def _print(args: Arguments, output: Output) -> int:
    script = pkgutil.get_data(
        __package__, "completions/{}.{}".format(PROGRAM, args.shell)
    )  # from a zip file too
    if script is None:
        raise FileNotFoundError("the package was installed without its completions")
    text = script.decode("utf-8")
    if output.json:
        output.document({"shell": args.shell, "script": text})
    else:
        output.text(text)
    return DONE
