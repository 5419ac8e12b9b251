# SPDX-License-Identifier: Apache-2.0
#
# check: RDMA reads and writes between two kernels (rping)
# machines: two
# seconds: 60
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
case $BED_MACHINE in
    a)
        serve_rping 10 60
        ;;
    b)
        meet listening
        ask_rping "$BED_PEER_ADDRESS" 10
        meet asked
        ;;
esac
