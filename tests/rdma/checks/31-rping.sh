# SPDX-License-Identifier: Apache-2.0
#
# check: a connection made by the RDMA connection manager carries RDMA reads and writes (rping)
# machines: alone
# seconds: 60
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
rping -s -a "$BED_ADDRESS" -p 7174 -C 20 -V &
until_true 20 rdma_listening 7174
ask_rping "$BED_ADDRESS" 20
wait "$!" || true # see ask_rping
