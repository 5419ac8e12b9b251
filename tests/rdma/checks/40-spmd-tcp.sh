# SPDX-License-Identifier: Apache-2.0
#
# check: guests work here: two agents over TCP, and two ranks that count on one page, with atomic instructions and under a lock
# machines: alone
# seconds: 300
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
# An agent's first handshake compiles what it runs. On a busy host that may take longer, in emulation, than the two seconds that the
# other agent waits; so the start, and only that, may be tried again.
for attempt in 1 2 3; do
    "$BUILD/vsmp" up --agents 2 --memory 64M && break
    [[ $attempt -lt 3 ]] || fail "two agents did not start"
    "$BUILD/vsmp" down || true
done
"$BUILD/vsmp" spmd -n 2 -- "$BUILD/tests/spmd-hello" 50
"$BUILD/vsmp" down
