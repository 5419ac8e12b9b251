#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check: vsmp up sets up soft-RoCE where there is none, says so, and takes it down again; it leaves alone what was there
# machines: alone
# seconds: 180
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
vsmp=$BUILD/vsmp
"$vsmp" up --agents 1 --memory 32M --transport "rxe:$BED_INTERFACE" | tee /tmp/up
grep -q 'has the RDMA device rxe0 already' /tmp/up
"$vsmp" down
rdma link | grep -q "link $BED_DEVICE/1" || fail 'vsmp down removed a device that it had not made'

rdma link delete "$BED_DEVICE"
"$vsmp" up --agents 2 --memory 32M --transport "rxe:$BED_INTERFACE" | tee /tmp/up
grep -q 'set up soft-RoCE' /tmp/up
"$vsmp" spmd -n 2 -- "$BUILD/tests/spmd-hello" 20
"$vsmp" down | tee /tmp/down
grep -q 'removed the RDMA device' /tmp/down
! rdma link | grep -q netdev || fail "a device is left: $(rdma link)"

! "$vsmp" up --agents 1 --memory 32M --transport verbs 2> /tmp/error || fail 'a cluster came up without a device'
grep -q 'no RDMA device' /tmp/error || fail "$(< /tmp/error)"
! "$vsmp" up --agents 1 --memory 32M --transport rxe:nosuch 2> /tmp/error || fail 'a cluster came up without an interface'
grep -q 'no network interface nosuch' /tmp/error || fail "$(< /tmp/error)"
rdma link add "$BED_DEVICE" type rxe netdev "$BED_INTERFACE"
