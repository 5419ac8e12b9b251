# SPDX-License-Identifier: Apache-2.0
#
# check: there is a soft-RoCE device with an active port, and verbs find it
# machines: alone
# seconds: 30
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
rdma link show | tee /tmp/link
grep -q "^link $BED_DEVICE/1 state ACTIVE physical_state LINK_UP netdev $BED_INTERFACE" /tmp/link || fail "no link"
ibv_devinfo -d "$BED_DEVICE" | tee /tmp/device
grep -q 'state:.*PORT_ACTIVE' /tmp/device || fail "the port is not active"
