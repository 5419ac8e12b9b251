#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check: a cluster sets up soft-RoCE for itself, serves programs over it (ranks, litmus tests, memtester on four times its budget), and leaves nothing; faults take the frames that they take over TCP
# machines: alone
# seconds: 600
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
vsmp=$BUILD/vsmp
step() { echo "== $SECONDS s: $*"; }

step 'three agents, and the device that they need'
rdma link delete "$BED_DEVICE"
"$vsmp" up --agents 3 --memory 96M --transport "rxe:$BED_INTERFACE" | tee /tmp/up
grep -q 'set up soft-RoCE' /tmp/up || fail 'vsmp up did not say what it did'
step 'ranks that count on one page, and that go through one region with less memory than it has'
"$vsmp" spmd -n 4 -- "$BUILD/tests/spmd-hello" 50
"$vsmp" spmd -n 3 --protocol moesi --local 8M -- "$BUILD/tests/spmd-share" 3 16 1
"$vsmp" spmd -n 2 --protocol lazy --local 8M -- "$BUILD/tests/spmd-lazy" 3 1
step 'litmus tests'
"$vsmp-bench" litmus SB MP IRIW --cluster default --runs 50 --protocol mesi --seed 1 | tail -n 2
step 'page faults'
# It fails by itself if a transition takes other frames than the protocol says. What TCP takes was counted on the host.
"$vsmp-bench" fault --cluster default --pages 20 --json "$BED_DIR/faults-verbs.json"
python3 - "$BUILD/rdma/faults-tcp.json" "$BED_DIR/faults-verbs.json" << 'EOF'
import json, sys

tcp, verbs = ({r["transition"]["name"]: r for r in json.load(open(name))["results"]} for name in sys.argv[1:])
wrong = [f"{name}: {figure}: {tcp[name][figure]} over TCP, {verbs[name][figure]} over verbs"
         for name in tcp for figure in ("frames", "bytes", "copiesOut", "copiesIn") if tcp[name][figure] != verbs[name][figure]]
for kind, results in (("TCP", tcp), ("verbs", verbs)):
    for name in ("I→S clean", "S→M no other sharer"):
        if results[name]["messages"] > 2:
            wrong.append(f"{name}: {results[name]['messages']} messages over {kind}, a request and a response at most")
for line in wrong:
    print(line)
sys.exit(len(wrong) > 0)
EOF
step 'memtester'
MEMTESTER_TEST_MASK=1 "$vsmp" run --local 4M --stats /tmp/stats.json -- memtester 16M 1 | tr -d '\b' | tail -n 3
grep -E 'pages(Fetched|WrittenBack)' /tmp/stats.json
step 'what agents say'
"$vsmp" doctor
step 'the end'
"$vsmp" down | tee /tmp/down
grep -q 'removed the RDMA device' /tmp/down || fail 'vsmp down did not say what it did'
! rdma link | grep -q netdev || fail "a device is left: $(rdma link)"
