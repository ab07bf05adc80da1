"""help and completion: what --help says, as a command; two pages that no command's help has room for; the shells' scripts.

A completion script asks the program itself what may come next, so it never ages: ``hestiaos-lite __complete WORD...``; the
last word is the one to be completed, perhaps empty. Each line of the answer is a word and, after a tab, its explanation; the
line `FILES` asks the shell for file names, after the part of the word that follows its tab (``--out=``, ``@``).
"""

from __future__ import annotations

import argparse
import functools
from typing import Iterator, Optional, Sequence

from .commands import commands_of
from .exits import DONE
from .output import Output
from .parser import (
    EXIT_CODES,
    OPTIONS,
    OUTPUT_OPTIONS,
    Arguments,
    Parser,
    UsageError,
    build_parser,
    command_in,
    find_command,
)

ENVIRONMENT = """\
environment variables; an argument wins over a variable, a variable over the configuration file

  HESTIAOS_BASE_URL, AEGIS_BASE_URL          URL of the service (default http://localhost:8000)
  HESTIAOS_API_KEY, AEGIS_API_KEY            API key
  HESTIAOS_API_KEY_FILE, AEGIS_API_KEY_FILE  file to read the API key from, where the variable above is not set
  HESTIAOS_TIMEOUT, AEGIS_TIMEOUT            total deadline of a call in seconds (default 30; AEGIS 10)
  AEGIS_TENANT_ID, AEGIS_THREAD_ID           tenant and thread of a decision
  HESTIAOS_CONFIG                            the configuration file (default hestiaos/config.ini in XDG_CONFIG_HOME,
                                             which is ~/.config by default)
  HESTIAOS_PROFILE                           the section of that file to use (default "default")
  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY         the proxy; NO_PROXY names the hosts that are asked without one.
                                             A service on this machine is always asked without one
  REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE         file or folder with the certificate authorities to trust
  NO_COLOR, TERM=dumb                        no colours on a terminal; COLUMNS is the width of the help

hestiaos-lite doctor shows which of them are in use
"""
PAGES = {"environment": ENVIRONMENT, "exit-codes": EXIT_CODES}


def declare_help(parser: Parser) -> None:
    parser.takes = OUTPUT_OPTIONS
    help = "a command, such as run or hitl approve; or environment, or exit-codes"
    parser.add_argument("topic", nargs="*", metavar="TOPIC", help=help)
    parser.set_defaults(execute=_help)


def _help(args: Arguments, output: Output) -> int:
    topic = " ".join(args.topic)
    text = PAGES.get(topic) or build_parser(functools.reduce(command_in, args.topic, "")).format_help()
    output.result({"topic": topic, "text": text}, text=text)
    return DONE


# -- completion

FILES = ":files"
_FILE = ("FILE", "IN", "OUT", "BAD")  # the metavars of arguments that name a file
_FILE_AFTER_AT = "JSON"  # JSON as it is, or @FILE

# bash cuts a word at = and @ (COMP_WORDBREAKS): the words are put together again by the white space between them, and what
# precedes the part that bash completes is cut off each answer. File names are left to readline, which knows about quoting;
# those after an @ are not, since it would look for a host.
_BASH = r"""# bash completion of hestiaos-lite
_hestiaos_lite() {
    local rest=${COMP_LINE:0:COMP_POINT} i space word words=() answer prefix
    for ((i = 0; i <= COMP_CWORD; i++)); do
        space=${rest%%[![:space:]]*}
        rest=${rest#"$space"}
        word=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || word=$rest
        if ((i == 0)) || [[ -n $space ]]; then words+=("$word"); else words[${#words[@]} - 1]+=$word; fi
        rest=${rest#"$word"}
    done
    word=${words[${#words[@]} - 1]}
    COMPREPLY=()
    compopt +o default 2>/dev/null
    while IFS=$'\t' read -r answer prefix; do
        if [[ $answer != :files ]]; then
            COMPREPLY+=("$answer")
        elif [[ $prefix == *@ ]]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r answer; do COMPREPLY+=("$prefix$answer"); done < <(compgen -f -- "${word#"$prefix"}")
        else
            compopt -o default 2>/dev/null
        fi
    done < <("$1" __complete "${words[@]:1}" 2>/dev/null)
    for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"${word%"$2"}"}; done
}
complete -o default -F _hestiaos_lite hestiaos-lite
"""

_ZSH = r"""#compdef hestiaos-lite
_hestiaos_lite() {
    local line
    local -a answer offered
    answer=("${(@f)$("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    for line in $answer; do
        if [[ $line == :files$'\t'* ]]; then
            compset -P "${(b)line#*$'\t'}"
            _files
        else
            offered+=("${${line//:/\\:}/$'\t'/:}")
        fi
    done
    (( $#offered )) && _describe hestiaos-lite offered
}
if [[ $funcstack[1] == _hestiaos_lite ]]; then _hestiaos_lite; else compdef _hestiaos_lite hestiaos-lite; fi
"""

_FISH = r"""# fish completion of hestiaos-lite
function __hestiaos_lite_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
        if string match -q ':files*' -- $line
            set -l prefix (string split \t -- $line)[2]
            set -l typed (string sub -s (math 1 + (string length -- "$prefix")) -- "$current")
            for path in (complete -C "'' $typed")
                echo "$prefix$path"
            end
        else
            echo $line
        end
    end
end
complete -c hestiaos-lite -f -a '(__hestiaos_lite_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def declare_completion(parser: Parser) -> None:
    parser.takes = OUTPUT_OPTIONS
    parser.add_argument("shell", choices=list(SCRIPTS), metavar="SHELL", help="bash, zsh or fish")
    parser.description = """\
Print the completion script of a shell. To switch it on:

  bash   hestiaos-lite completion bash > ~/.local/share/bash-completion/completions/hestiaos-lite
  zsh    hestiaos-lite completion zsh > /a/folder/of/your/fpath/_hestiaos-lite
  fish   hestiaos-lite completion fish > ~/.config/fish/completions/hestiaos-lite.fish
"""
    parser.set_defaults(execute=_print)


def _print(args: Arguments, output: Output) -> int:
    script = SCRIPTS[args.shell]
    output.result({"shell": args.shell, "script": script}, text=script)
    return DONE


def complete(words: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the answer."""
    *before, current = words or [""]
    if before[:1] == ["help"]:  # a command, as anywhere, or a page
        yield from (page for page in PAGES if len(before) == 1 and page.startswith(current))
        del before[0]
    try:
        name, _, left = find_command(before)
    except UsageError:
        return
    parser = build_parser(name)
    only_places = "--" in left
    given = [  # what is no option, nor the value of one
        word
        for word, previous in zip(left, [""] + left)
        if (word == "-" or not word.startswith("-")) and not _takes_next(parser, previous)
    ]
    places = [action for action in parser.arguments if not action.option_strings][len(given) :]
    option_name, equals, value = current.partition("=")
    if before and not only_places and _takes_next(parser, before[-1]):
        yield from _values(_option(parser, before[-1]), current, "")
    elif current.startswith("-") and not only_places:
        if equals:
            yield from _values(_option(parser, option_name), value, option_name + equals)
        else:
            yield from _options(parser, current)
    elif only_places and parser.takes_command:
        yield FILES + "\t"
    elif places:
        yield from _values(places[0], current, "")
    else:
        for command in commands_of(name):
            if command.word.startswith(current):
                yield _line(command.word, command.help)


def _option(parser: Parser, name: str) -> Optional[argparse.Action]:
    return next((action for action in parser.arguments if name in action.option_strings), None)


def _takes_next(parser: Parser, word: str) -> bool:
    """Tell whether the word is an option whose value is the next word."""
    option = _option(parser, word)
    return option is not None and option.nargs is None


def _options(parser: Parser, current: str) -> Iterator[str]:
    """Yield the options that begin so, in long form."""
    for action in parser.arguments:
        help = OPTIONS[action.dest][1] if action.help == argparse.SUPPRESS else action.help
        for name in action.option_strings:
            if name.startswith(current) and (name.startswith("--") or name == current):
                yield _line(name, help)


def _values(action: Optional[argparse.Action], current: str, prefix: str) -> Iterator[str]:
    """Yield what the argument may be; ``prefix`` is the part of the word before ``current``."""
    if action is None:
        return
    for choice in action.choices or ():
        if str(choice).startswith(current):
            yield prefix + str(choice)
    if action.metavar in _FILE:
        yield "{}\t{}".format(FILES, prefix)
    elif action.metavar == _FILE_AFTER_AT and current.startswith("@"):
        yield "{}\t{}@".format(FILES, prefix)


def _line(word: str, help: Optional[str]) -> str:
    return "{}\t{}".format(word, " ".join(help.split())) if help else word
