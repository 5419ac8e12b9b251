# SPDX-License-Identifier: Apache-2.0
#
# check: a member that does over verbs what it may not loses its connection, reaches no memory, and disturbs nobody else
# machines: alone
# seconds: 400
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
export VSMP_RDMA_ADDRESS=$BED_ADDRESS LD_LIBRARY_PATH=$BUILD:$BUILD/tests
dotnet "$REPOSITORY/tests/rdma/VSmp.Rdma.Tests/bin/Release/net10.0/VSmp.Rdma.Tests.dll" -noLogo -noColor -class '*HostilePeerTests'
