"""`machine completion`: click's completion, with scripts that know where a word goes on.

A shell asks by running the program with the line up to the cursor in ``COMP_WORDS`` and
``_MACHINE_COMPLETE=SHELL_complete``. The answer is a line a candidate: value, tab, help.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Final

import click
import typer
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    shell_complete,
    split_arg_string,
)

from machine.cli import output
from machine.errors import UsageError

PROGRAM: Final = "machine"
VARIABLE: Final = "_MACHINE_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")

_BASH: Final = r"""%(complete_func)s() {
    local value help
    COMPREPLY=()
    while IFS=$'\t' read -r value help; do
        [[ $value ]] || continue
        [[ $value == *[:/=] ]] && compopt -o nospace
        COMPREPLY+=("$value")
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
        %(complete_var)s=bash_complete command %(prog_name)s 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_ZSH: Final = r"""#compdef %(prog_name)s
%(complete_func)s() {
    local -a whole begun
    local value help
    while IFS=$'\t' read -r value help; do
        if [[ -z $value ]]; then
            continue
        elif [[ $value == *[:/=] ]]; then
            begun+=("${value//:/\\:}")
        else
            whole+=("${value//:/\\:}${help:+:$help}")
        fi
    done < <(COMP_WORDS="${(j: :)words[1,CURRENT-1]} $PREFIX" \
        %(complete_var)s=zsh_complete command %(prog_name)s 2>/dev/null)
    (( $#whole )) && _describe -V '%(prog_name)s' whole
    (( $#begun )) && _describe -V '%(prog_name)s' begun -S ''
    (( $#whole + $#begun ))
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""
_FISH: Final = r"""function %(complete_func)s
    env COMP_WORDS=(commandline -cp | string collect) %(complete_var)s=fish_complete \
        %(prog_name)s 2>/dev/null | string match -r '.+'
end
complete -c %(prog_name)s -f -a '(%(complete_func)s)'
"""


class _Lines(ShellComplete):
    """What the three have in common: how they ask, and how they are answered."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        incomplete = "" if line[-1:].isspace() else words.pop()
        return words, incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        items = super().get_completions(args, incomplete)
        option, sign, _ = incomplete.partition("=")
        if sign and option.startswith("-"):  # click completes what follows the sign
            return [CompletionItem(f"{option}={item.value}", help=item.help) for item in items]
        return items

    def format_completion(self, item: CompletionItem[str]) -> str:
        return f"{item.value}\t{' '.join((item.help or '').split())}"


class Bash(_Lines, BashComplete):
    """Bash takes a word apart at further characters, and wants what follows the last of them,
    quoted as it would be typed."""

    source_template = _BASH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        breaks = os.environ.get("COMP_WORDBREAKS", "=:@")
        kept = max((incomplete.rfind(each) for each in breaks), default=-1) + 1
        items = super().get_completions(args, incomplete)
        return [CompletionItem(_quoted(item.value[kept:]), help=item.help) for item in items]


class Zsh(_Lines, ZshComplete):
    source_template = _ZSH


class Fish(_Lines, FishComplete):
    source_template = _FISH


for _class in (Bash, Zsh, Fish):
    add_completion_class(_class)


def completion(
    shell: Annotated[
        str, typer.Argument(metavar="SHELL", autocompletion=lambda: SHELLS, help="bash, zsh, fish")
    ],
) -> None:
    """Print the lines that make a shell complete this command; for it to evaluate."""
    if shell not in SHELLS:
        raise UsageError(f"{shell} is no shell that can be served", hint=", ".join(SHELLS))
    found = get_completion_class(shell)
    assert found is not None
    output.raw(found(_command(), {}, PROGRAM, VARIABLE).source())


def answer(instruction: str) -> int:
    """Print the candidates that a shell asks for; the exit code."""
    return shell_complete(_command(), {}, PROGRAM, VARIABLE, instruction)


def _command() -> click.Command:
    from machine.cli.app import app

    return typer.main.get_command(app)


def _quoted(value: str) -> str:
    return re.sub(r"[^\w./:=@%+,~-]", r"\\\g<0>", value)
