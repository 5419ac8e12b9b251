# SPDX-License-Identifier: Apache-2.0
#
# check: page faults over verbs take the frames that the protocol says, as over TCP: a clean read or upgrade a request and a response
# machines: alone
# seconds: 600
set -euo pipefail
source "$REPOSITORY/tests/rdma/bed.sh"
for transport in "verbs:$BED_DEVICE" tcp; do
    # It fails by itself if a transition takes other frames than the protocol says. On a busy host agents may take longer to start, in
    # emulation, than others wait for them, or be lost at once: that, and only that, may be tried again.
    for attempt in 1 2 3 4 5; do
        "$BUILD/vsmp-bench" fault --agents 3 --pages 20 --transport "$transport" --json "$BED_DIR/faults-${transport%%:*}.json" \
            2> "$BED_DIR/faults.errors" && break
        cat "$BED_DIR/faults.errors" >&2
        grep -q 'vsmp up ended\|there is no node' "$BED_DIR/faults.errors" && [[ $attempt -lt 5 ]] || fail "vsmp-bench fault over $transport"
    done
done
python3 - "$BED_DIR/faults-tcp.json" "$BED_DIR/faults-verbs.json" << 'EOF'
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
