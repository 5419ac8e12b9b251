# SPDX-License-Identifier: Apache-2.0
#
# check: page faults over verbs take the frames that the protocol says, and what they take over TCP: a clean read or upgrade two messages
# machines: alone
# seconds: 400
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
# It fails by itself if a transition takes other frames than the protocol says. What TCP takes was counted on the host.
"$BUILD/vsmp-bench" fault --agents 3 --pages 20 --transport "verbs:$BED_DEVICE" --json "$BED_DIR/faults-verbs.json"
python3 - "$BUILD/rdma/faults-tcp.json" "$BED_DIR/faults-verbs.json" << 'EOF'
import json, sys

tcp, verbs = ({r["transition"]["name"]: r for r in json.load(open(name))["results"]} for name in sys.argv[1:])
wrong = [f"{name}: {figure}: {tcp[name][figure]} over TCP, {verbs[name][figure]} over verbs"
         for name in tcp for figure in ("frames", "bytes", "copiesOut", "copiesIn") if tcp[name][figure] != verbs[name][figure]]
for kind, results in (("TCP", tcp), ("verbs", verbs)):
    for name in ("I→S clean", "S→M no other sharer"):
        if results[name]["messages"] > 2:
            wrong.append(f"{name}: {results[name]['messages']} messages over {kind}, a request and a response at most")
for line in wrong:
    print(line)
sys.exit(len(wrong) > 0)
EOF
