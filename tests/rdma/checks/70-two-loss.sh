# SPDX-License-Identifier: Apache-2.0
#
# check: netem's loss hits soft-RoCE's packets, and a reliable connection hides it
# machines: two
# seconds: 150
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
case $BED_MACHINE in
    a)
        serve_rping 60 120
        ;;
    b)
        meet listening
        modprobe sch_netem
        tc qdisc add dev "$BED_INTERFACE" root netem loss 3%
        ask_rping "$BED_PEER_ADDRESS" 60
        meet asked
        tc -s qdisc show dev "$BED_INTERFACE" | tee /tmp/qdisc
        dropped=$(sed -n 's/.*(dropped \([0-9]*\),.*/\1/p' /tmp/qdisc)
        [[ $dropped -gt 0 ]] || fail "nothing was lost, so nothing was shown"
        ;;
esac
