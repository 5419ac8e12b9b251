# SPDX-License-Identifier: Apache-2.0
#
# check: the fabric over verbs keeps what every fabric promises, leaves nothing behind when links break, and a member that does what it may not disturbs nobody else
# machines: alone
# seconds: 600
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
export VSMP_RDMA_ADDRESS=$BED_ADDRESS LD_LIBRARY_PATH=$BUILD:$BUILD/tests
dotnet "$REPOSITORY/tests/rdma/VSmp.Rdma.Tests/bin/Release/net10.0/VSmp.Rdma.Tests.dll" -noLogo -noColor
