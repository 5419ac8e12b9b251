# SPDX-License-Identifier: Apache-2.0
#
# check: messages between two kernels over a reliable connection arrive as they were sent (ibv_rc_pingpong)
# machines: two
# seconds: 120
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
options=(--ib-dev="$BED_DEVICE" --gid-idx="$BED_GID" --size=4096 --iters=50 --chk)
case $BED_MACHINE in
    a)
        ibv_rc_pingpong "${options[@]}" &
        server=$!
        until_true 30 listening 18515
        meet listening
        wait "$server"
        ;;
    b)
        meet listening
        ibv_rc_pingpong "${options[@]}" "$BED_PEER_ADDRESS"
        ;;
esac
