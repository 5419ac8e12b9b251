#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check: an agent on each of two machines: one memory over RDMA, through loss, delay and a pulled cable; when one dies the other goes on
# machines: two
# seconds: 600
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
vsmp=$BUILD/vsmp
export VSMP_CLUSTER=two
step() { echo "== $SECONDS s: $*"; }
trap 'cat /tmp/agent.log /run/vsmp/two/*/agent.log 2> /dev/null || true' EXIT

# agent ARGUMENT…: starts this machine's agent, and waits until it is ready.
agent() {
    install -m 600 "$BED_DIR/secret" /tmp/secret
    "$vsmp" agent --cluster two --name "$BED_MACHINE" --listen "$BED_ADDRESS:7070" --secret /tmp/secret --memory 64M \
        --transport "verbs:$BED_DEVICE" "$@" > /tmp/agent.log 2>&1 &
    agent=$!
    until grep -q 'is ready' /tmp/agent.log; do
        kill -0 "$agent" || fail "the agent has ended"
        sleep 0.5
    done
}
# members COUNT: so many are up, as this machine's agent sees it. For `until_true`.
members() {
    [[ $("$vsmp" status --json | grep -c '"state": "up"') -eq $1 ]]
}

if [[ $BED_MACHINE == b ]]; then
    meet founded
    agent --join "$BED_PEER_ADDRESS:7070"
    meet joined
    meet ended 540
    kill -KILL "$agent"
    meet killed
    exit
fi

od -An -tx1 -N32 /dev/urandom | tr -d ' \n' > "$BED_DIR/secret"
step 'an agent on each machine'
agent
meet founded
meet joined 90
until_true 20 members 2
ranks() { "$vsmp" spmd -n 2 --protocol "$1" --local 8M -- "$BUILD/tests/spmd-share" 5 16 1; }
step 'ranks on both'
ranks msi
step 'litmus tests'
"$vsmp-bench" litmus --cluster two SB MP IRIW --runs 20 --protocol moesi --seed 1 | tail -n 2
# All by the same time: a delay that varies would put packets out of order, which a reliable connection takes for loss.
step 'packets get lost and come late'
tc qdisc add dev "$BED_INTERFACE" root netem loss 0.5% delay 2ms
ranks moesi
tc qdisc del dev "$BED_INTERFACE" root
step 'the cable is pulled for a moment'
(sleep 8; ip link set "$BED_INTERFACE" down; sleep 0.3; ip link set "$BED_INTERFACE" up) &
"$vsmp" spmd -n 2 --protocol mesi --local 8M -- "$BUILD/tests/spmd-share" 25 16 1
wait $!
step 'the other machine dies'
mkfifo /tmp/input
"$vsmp" run --local 8M -- "$BUILD/tests/hold" 40 < /tmp/input > /tmp/hold 2>&1 &
run=$!
exec {input}> /tmp/input
until_true 60 grep -qx ready /tmp/hold
meet ended
meet killed
status=0
wait "$run" || status=$?
cat /tmp/hold
[[ $status -ne 0 ]] || fail 'a program went on whose memory is gone'
until_true 20 members 1
"$vsmp" run --local 16M -- "$BUILD/tests/random" 8 1
kill -TERM "$agent"
wait "$agent"
[[ -z $(rdma resource show qp link "$BED_DEVICE" | grep -v 'type GSI\|type SMI' || true) ]] || fail "queue pairs are left: $(rdma resource show qp)"
