#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check: agents over verbs serve programs: ranks that share pages, litmus tests, memtester on four times its local budget; nothing is left
# machines: alone
# seconds: 480
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
vsmp=$BUILD/vsmp
step() { echo "== $SECONDS s: $*"; }

step 'two agents'
"$vsmp" up --agents 2 --memory 64M --transport "verbs:$BED_DEVICE"
"$vsmp" status
step 'ranks that count on one page, and that go through one region with less memory than it has'
"$vsmp" spmd -n 4 -- "$BUILD/tests/spmd-hello" 50
"$vsmp" spmd -n 3 --protocol moesi --local 8M -- "$BUILD/tests/spmd-share" 3 16 1
"$vsmp" spmd -n 2 --protocol lazy --local 8M -- "$BUILD/tests/spmd-lazy" 3 1
step 'litmus tests'
"$vsmp-bench" litmus SB MP IRIW --cluster default --runs 50 --protocol mesi --seed 1 | tail -n 2
step 'memtester'
MEMTESTER_TEST_MASK=1 "$vsmp" run --local 8M --stats /tmp/stats.json -- memtester 32M 1 | tr -d '\b' | tail -n 3
grep -E 'pages(Fetched|WrittenBack)' /tmp/stats.json
step 'what agents say'
"$vsmp" doctor
step 'the end'
"$vsmp" down
[[ -z $(rdma resource show qp link "$BED_DEVICE" | grep -v 'type GSI\|type SMI' || true) ]] || fail "queue pairs are left: $(rdma resource show qp)"
