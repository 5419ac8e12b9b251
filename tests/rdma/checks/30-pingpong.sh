# SPDX-License-Identifier: Apache-2.0
#
# check: two processes exchange messages over a reliable connection, and what arrives is what was sent (ibv_rc_pingpong)
# machines: alone
# seconds: 60
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
options=(--ib-dev="$BED_DEVICE" --gid-idx="$BED_GID" --size=4096 --iters=200 --chk)
ibv_rc_pingpong "${options[@]}" > /tmp/server 2>&1 &
server=$!
until_true 20 listening 18515
ibv_rc_pingpong "${options[@]}" "$BED_ADDRESS"
wait "$server" || fail "the server: $(cat /tmp/server)"
cat /tmp/server
