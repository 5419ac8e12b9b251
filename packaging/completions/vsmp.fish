# SPDX-License-Identifier: Apache-2.0
# Completion of vsmp for fish: the command itself knows what can follow.

function __vsmp_complete
    set -l line (commandline -cp)
    # Behind `--`, the program and its arguments complete as they would alone.
    if set -l behind (string match -rg '^.*? -- (.*)$' -- $line)
        complete -C $behind
        return
    end
    vsmp "[suggest:"(string length -- $line)"]" $line 2> /dev/null
end

complete -c vsmp -f -a '(__vsmp_complete)'
complete -c vsmp -l stats -r -F
complete -c vsmp -l config -r -F
complete -c vsmp -l secret -r -F
complete -c vsmp -l dir -r -F
