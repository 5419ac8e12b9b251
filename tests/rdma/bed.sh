# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For check scripts: `source "$REPOSITORY/tests/rdma/bed.sh"`.

# fail TEXT…: ends the check, and it has failed.
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# skip TEXT…: ends the check, and it is counted as skipped. For what the kernel or a tool has not, never for what did not work.
skip() {
    echo "SKIPPED: $*" >&2
    exit 77
}

# until_true SECONDS COMMAND…: waits until the command succeeds; fails if it never does.
until_true() {
    local seconds=$1 deadline=$((SECONDS + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        [[ $SECONDS -lt $deadline ]] || fail "not true within $seconds s: $*"
        sleep 0.2
    done
}

has_met() {
    [[ -e $BED_DIR/$BED_CHECK.$1.$2 || -e $BED_DIR/$BED_CHECK.status.$2 ]]
}
# meet NAME [SECONDS]: with two machines, both wait here for each other. NAME is for one meeting in a check.
meet() {
    local other=a
    [[ $BED_MACHINE == a ]] && other=b
    touch "$BED_DIR/$BED_CHECK.$1.$BED_MACHINE"
    until_true "${2:-60}" has_met "$1" "$other"
    [[ -e $BED_DIR/$BED_CHECK.$1.$other ]] || fail "machine $other has ended this check"
}

# listening PORT: a TCP socket listens there. For `until_true`.
listening() {
    ss -Htln "sport = :$1" | grep -q .
}

# serve_rping COUNT SECONDS: answers that many rounds of the other machine's rping, which may begin when it has met us at `listening`, and which counts
# them; it has that many seconds until it meets us at `asked`. Then ours is ended and not awaited: an rping that ends says so to the other in one
# packet, and without that packet the other waits for ever.
serve_rping() {
    local server
    rping -s -a "$BED_ADDRESS" -p 7174 -C "$1" -V &
    server=$!
    until_true 30 rdma_listening 7174
    meet listening
    meet asked "$2"
    kill -KILL "$server" 2> /dev/null || true
}

# ask_rping ADDRESS COUNT: that many rounds with the rping that answers there. The rounds that came back right are counted, and rping's exit status is
# passed over: when it ends, one of its threads may still wait on the channel that the other has just closed, and calls that an error.
ask_rping() {
    local said=/tmp/rping-client status=0 right
    rping -c -a "$1" -p 7174 -C "$2" -V -v > "$said" 2>&1 || status=$?
    right=$(grep -c '^ping data: ' "$said" || true)
    [[ $right -eq $2 ]] || fail "rping (status $status): $right of $2 rounds came back right: $(tail -n 5 "$said")"
    echo "$right rounds of rping came back right"
}

# The RDMA device's counter NAME, as the kernel counts it.
counter() {
    cat "/sys/class/infiniband/$BED_DEVICE/ports/1/hw_counters/$1"
}

# rdma_listening PORT: the same for the RDMA connection manager.
rdma_listening() {
    rdma resource show cm_id | grep -qE "state LISTEN .*:$1( |$)"
}
