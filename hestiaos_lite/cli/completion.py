"""completion: print the completion script of a shell. The scripts ask the program itself (complete.py), so they never age."""

from __future__ import annotations

from .exits import DONE
from .output import Output
from .parser import OUTPUT_OPTIONS, Arguments, Parser

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


def declare(parser: Parser) -> None:
    """Declare ``completion``."""
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
    if output.json:
        output.document({"shell": args.shell, "script": script})
    else:
        output.text(script)
    return DONE
