"""lochness completion: what a shell must read to complete lochness's words."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Final

import typer

from lochness.cli.session import Session


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


SCRIPTS: Final = {
    Shell.BASH: r"""# bash completion for lochness
_lochness() {
    local IFS=$'\n'
    COMPREPLY=($(lochness __complete bash "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null))
}
complete -o default -F _lochness lochness
""",
    Shell.ZSH: r"""#compdef lochness
_lochness() {
    local -a found
    found=("${(@f)$(lochness __complete zsh "${words[CURRENT]}" "${(@)words[2,CURRENT-1]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        _describe 'lochness' found
    else
        _files
    fi
}
if [[ "${funcstack[1]}" = _lochness ]]; then
    _lochness "$@"
else
    compdef _lochness lochness
fi
""",
    Shell.FISH: r"""# fish completion for lochness
function __lochness_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found (lochness __complete fish "$current" $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path "$current"
    end
end
complete -c lochness -f -a '(__lochness_complete)'
""",
}


def completion(
    session: Session,  # noqa: ARG001  # every command has one
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", show_default=False)],
) -> None:
    """Print what a shell must read to complete lochness's words; names are asked of the controller, for 1 s at most.

    The Debian package brings it along. Else: source <(lochness completion bash), for zsh and bash; lochness completion
    fish | source.

    Example: lochness completion bash
    """
    sys.stdout.write(SCRIPTS[shell])
