"""The scripts of ``detlit completion``: tables of options and values, and lines for each shell that search them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

__all__ = ["SCRIPTS", "Shell"]

Shell = Literal["bash", "zsh", "fish"]

Groups = Sequence[tuple[list[str], list[str]]]
"""Commands, and the options that exactly these have."""

Places = Mapping[Any, list[str]]
"""``COMMAND OPTION`` by the values (words, files, optional) that follow."""


def bash(commands: Mapping[str, str], groups: Groups, places: Places) -> str:
    """Return the script for bash, 3.2 included."""
    return _BASH.replace("@COMMANDS@", " ".join(commands)).replace("@TABLES@", _tables(groups, places))


def zsh(commands: Mapping[str, str], groups: Groups, places: Places) -> str:
    """Return the script for zsh."""
    described = " ".join(f"'{name}:{_quoted(what)}'" for name, what in commands.items())
    return _ZSH.replace("@COMMANDS@", described).replace("@TABLES@", _tables(groups, places))


def fish(commands: Mapping[str, str], groups: Groups, places: Places) -> str:
    """Return the script for fish."""
    lines = ["function __detlit_options -a subcommand"]
    for names, options in groups:
        lines += ["    switch $subcommand", f"        case {' '.join(names)}"]
        lines += [f"            string split ' ' -- '{' '.join(options)}'", "    end"]
    lines += ["end", "", "# Print whether nothing and whether a file may follow, then the words that may.", ""]
    lines += ["function __detlit_values -a place", "    switch $place"]
    for (words, files, optional), where in places.items():
        lines.append("        case " + " ".join(f"'{place}'" for place in where))
        lines.append(f"            string split ' ' -- '{' '.join((str(int(optional)), str(int(files)), *words))}'")
    lines += ["        case '*'", "            string split ' ' -- '1 0'", "    end", "end"]
    described = "\n".join(f"        printf '%s\\t%s\\n' {name} '{_quoted(what)}'" for name, what in commands.items())
    return _FISH.replace("@COMMANDS@", described).replace("@TABLES@", "\n".join(lines))


SCRIPTS: dict[Shell, Callable[[Mapping[str, str], Groups, Places], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _tables(groups: Groups, places: Places) -> str:
    """Return the tables as ``case`` statements, which bash and zsh read alike."""
    lines = ["_detlit_options() {", "  flags="]
    for names, options in groups:
        lines.append(f"  case $1 in {'|'.join(names)}) flags+=' {' '.join(options)}' ;; esac")
    lines += ["}", "", "_detlit_values() {", "  choices= files=0 optional=0", "  case $1 in"]
    for (words, files, optional), where in places.items():
        patterns = "|".join(_pattern(place) for place in where)
        lines.append(f"    {patterns}) choices='{' '.join(words)}' files={int(files)} optional={int(optional)} ;;")
    return "\n".join([*lines, "    *) optional=1 ;;", "  esac", "}"])


def _pattern(place: str) -> str:
    command, _, option = place.partition(" ")
    return f"*' {option}'" if command == "*" else f"'{place}'"


def _quoted(text: str) -> str:
    return text.replace("'", "").replace(":", "\\:")


_BASH = """\
# Completion of detlit in bash, made by: detlit completion bash

@TABLES@

_detlit() {
  local command=${COMP_WORDS[1]} current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
  local flags choices files optional option rest IFS=$' \\t\\n'
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W '@COMMANDS@ --help --version' -- "$current"))
    return
  fi
  if [[ $current == = ]]; then  # bash makes words of --option=VALUE
    current=
  elif [[ $previous == = ]]; then
    previous=${COMP_WORDS[COMP_CWORD-2]}
  fi
  if [[ $previous != -* ]] || ((COMP_CWORD == 2)); then previous=; fi
  _detlit_values "$command $previous"
  if [[ $current != -* ]]; then
    COMPREPLY=($(compgen -W "$choices" -- "$current"))
    if ((files && ${#COMPREPLY[@]})); then
      IFS=$'\\n'
      COMPREPLY+=($(compgen -f -- "$current"))
      compopt -o filenames 2>/dev/null
    fi
    if ((${#COMPREPLY[@]} || ! optional)); then return; fi
  fi
  _detlit_options "$command"
  for option in $(compgen -W "$flags" -- "$current"); do  # one level of dots at a time
    rest=${option#"$current"}
    case $rest in *.*) option=$current${rest%%.*}. ;; esac
    case " ${COMPREPLY[*]} " in *" $option "*) ;; *) COMPREPLY+=("$option") ;; esac
  done
  case " ${COMPREPLY[*]} " in *'. '*) compopt -o nospace 2>/dev/null ;; esac
}

complete -o default -F _detlit detlit
"""

_ZSH = """\
#compdef detlit
# Completion of detlit in zsh, made by: detlit completion zsh

@TABLES@

_detlit() {
  local subcommand=${words[2]} current=${words[CURRENT]} previous=${words[CURRENT-1]}
  local flags choices files optional option rest
  local -a whole parts described
  if ((CURRENT == 2)); then
    described=(@COMMANDS@)
    _describe command described
    return
  fi
  if [[ $current == -*=* ]]; then
    previous=${current%%=*} current=${current#*=}
    compset -P '*='
  fi
  if [[ $previous != -* ]] || ((CURRENT == 2)); then previous=; fi
  _detlit_values "$subcommand $previous"
  if [[ $current != -* ]]; then
    compadd -- ${=choices}
    ((files)) && _files
    ((optional)) || return 0
  fi
  _detlit_options $subcommand
  for option in ${=flags}; do  # one level of dots at a time
    [[ $option == "$current"* ]] || continue
    rest=${option#"$current"}
    if [[ $rest == *.* ]]; then parts+=($current${rest%%.*}.); else whole+=($option); fi
  done
  compadd -- $whole
  compadd -S '' -- ${(u)parts}
}

if [[ $funcstack[1] == _detlit ]]; then _detlit "$@"; else compdef _detlit detlit; fi
"""

_FISH = """\
# Completion of detlit in fish, made by: detlit completion fish

@TABLES@

function __detlit_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l previous $before[-1]
    set -l start ''
    if test (count $before) -eq 1
@COMMANDS@
        return
    end
    if string match -qr -- '^--?[^=]+=' $current  # --option=VALUE is one word
        set previous (string replace -r -- '=.*' '' $current)
        set start $previous=
        set current (string replace -r -- '^[^=]*=' '' $current)
    end
    if test (count $before) -eq 2 -a -z "$start"; or not string match -q -- '-*' $previous
        set previous ''
    end
    set -l values (__detlit_values "$before[2] $previous")
    if not string match -q -- '-*' $current
        printf '%s\\n' $start$values[3..]
        if test $values[2] = 1
            printf '%s\\n' $start(__fish_complete_path $current)
        end
        test $values[1] = 0; and return
    end
    for option in (__detlit_options $before[2])  # one level of dots at a time
        if string match -q -- "$current*" $option
            set -l rest (string sub -s (math (string length -- $current) + 1) -- $option)
            if string match -q '*.*' -- $rest
                echo $current(string split -m 1 . -- $rest)[1].
            else
                echo $option
            end
        end
    end
end

complete -c detlit -f -a '(__detlit_complete)'
"""
