#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check: vsmp up and down leave alone an RDMA device that was there; without one there is no cluster over verbs
# machines: alone
# seconds: 180
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
vsmp=$BUILD/vsmp
"$vsmp" up --agents 1 --memory 32M --transport "rxe:$BED_INTERFACE" | tee /tmp/up
grep -q "has the RDMA device $BED_DEVICE already" /tmp/up
"$vsmp" down
rdma link | grep -q "link $BED_DEVICE/1" || fail 'vsmp down removed a device that it had not made'

rdma link delete "$BED_DEVICE"
! "$vsmp" up --agents 1 --memory 32M --transport verbs 2> /tmp/error || fail 'a cluster came up without a device'
grep -q 'no RDMA device' /tmp/error || fail "$(< /tmp/error)"
! "$vsmp" up --agents 1 --memory 32M --transport rxe:nosuch 2> /tmp/error || fail 'a cluster came up without an interface'
grep -q 'no network interface nosuch' /tmp/error || fail "$(< /tmp/error)"
