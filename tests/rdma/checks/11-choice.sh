# SPDX-License-Identifier: Apache-2.0
#
# check: a device or a GID that is not there is refused with those that are; doctor shows them
# machines: alone
# seconds: 90
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"

# refused TRANSPORT WORDS: the exit code of a usage error or a failure, and words that help.
refused() {
    local status=0
    "$BUILD/vsmp" up --agents 1 --transport "$1" > /tmp/refusal 2>&1 || status=$?
    cat /tmp/refusal
    [[ $status -ne 0 ]] || fail "--transport $1 was taken"
    grep -qF -- "$2" /tmp/refusal || fail "--transport $1: does not say: $2"
}
refused "verbs:$BED_DEVICE:200" "$BED_GID ($BED_ADDRESS)"
refused 'verbs:nosuch0' "$BED_DEVICE"
"$BUILD/vsmp" doctor | grep -F "RDMA $BED_DEVICE port 1" | tee /tmp/port
grep -qF "GID $BED_GID $BED_ADDRESS" /tmp/port || fail "doctor does not show the GID"
