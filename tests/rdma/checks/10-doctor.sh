# SPDX-License-Identifier: Apache-2.0
#
# check: the kernel has what `vsmp doctor` asks for
# machines: alone
# seconds: 90
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
"$BUILD/vsmp" doctor | tee /tmp/doctor
grep -qE '^userfaultfd features +ok ' /tmp/doctor || fail "no userfaultfd features that are good enough"
