# SPDX-License-Identifier: Apache-2.0
# Completion of vsmp for bash: the command itself knows what can follow.

_vsmp() {
    local word=${COMP_WORDS[COMP_CWORD]} i
    # Behind `run`, the program and its arguments complete as they would alone.
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then
            if declare -F _command_offset > /dev/null; then _command_offset $((i + 1)); else compopt -o default; fi
            return
        fi
    done
    case ${COMP_WORDS[COMP_CWORD - 1]} in
        --stats | --config | --secret | --dir)
            compopt -o default
            COMPREPLY=()
            return
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$(vsmp "[suggest:$COMP_POINT]" "$COMP_LINE" 2> /dev/null)" -- "$word")
}
complete -F _vsmp vsmp
