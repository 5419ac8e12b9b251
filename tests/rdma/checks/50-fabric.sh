# SPDX-License-Identifier: Apache-2.0
#
# check: the fabric over verbs keeps what every fabric promises, and leaves nothing behind when links break
# machines: alone
# seconds: 400
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
export VSMP_RDMA_ADDRESS=$BED_ADDRESS LD_LIBRARY_PATH=$BUILD
dotnet "$REPOSITORY/tests/rdma/VSmp.Rdma.Tests/bin/Release/net10.0/VSmp.Rdma.Tests.dll" -noLogo -noColor -class- '*HostilePeerTests'
