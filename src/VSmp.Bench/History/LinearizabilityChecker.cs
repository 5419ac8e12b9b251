// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Bench.History;

/// <summary>Why a history cannot be explained.</summary>
/// <param name="Word">On which word.</param>
/// <param name="Reason">In words.</param>
/// <param name="Operations">Operations that contradict each other.</param>
public sealed record Violation(uint Word, string Reason, IReadOnlyList<Operation> Operations);

/// <summary>
/// Decides whether each word of a history is linearizable: whether its operations can be put in one order that agrees with real time
/// (what finished before another began comes first) and in which every read gives the last value.
/// </summary>
/// <remarks>
/// In general that is NP-complete; here every value of a word comes from one operation, and then it takes O(n log n) (Gibbons and Korach,
/// Testing Shared Memories, SIAM J. Comput. 26(4), 1997). A <em>block</em> is a write, the chain of fetch-and-adds that starts from its
/// value, and all reads of these values: nothing else can come between its operations, and their order among each other is fixed
/// but for reads of one value. So a word is linearizable if and only if
/// <list type="number">
/// <item>every value has one origin, and no operation that must come later in its block finished before an earlier one began;</item>
/// <item>the blocks can be ordered. Block A must come before B if an operation of A finished before one of B began: if f(A) &lt; s(B), with f
/// the earliest finish and s the latest start in a block. Of such a relation every cycle contains one of two: with no shorter way
/// round, f(A) &lt; s(B) ≤ f(C)… leads to f(A) &lt; f(A). Thus only pairs with f(A) &lt; s(B) and f(B) &lt; s(A) matter: two
/// <em>forward zones</em> [f, s] that overlap, or a <em>backward zone</em> [s, f] inside a forward one.</item>
/// </list>
/// </remarks>
public static class LinearizabilityChecker
{
    /// <summary>Checks every word.</summary>
    /// <param name="operations">The operations of all ranks, in any order. All are complete. Words begin as 0.</param>
    /// <returns>The violations found: at most one per word.</returns>
    public static IReadOnlyList<Violation> Check(IEnumerable<Operation> operations)
    {
        ArgumentNullException.ThrowIfNull(operations);
        Dictionary<uint, List<Operation>> words = [];
        foreach (Operation operation in operations)
        {
            CollectionsMarshal.GetValueRefOrAddDefault(words, operation.Word, out _) ??= [];
            words[operation.Word].Add(operation);
        }
        return [.. words.OrderBy(pair => pair.Key).Select(pair => CheckWord(pair.Key, pair.Value)).OfType<Violation>()];
    }

    private static Violation? CheckWord(uint word, List<Operation> operations)
    {
        // A value's cluster: the operation it comes from (none for the initial 0), its reads, the fetch-and-add that ends it.
        Dictionary<ulong, Cluster> clusters = new() { [0] = new Cluster() };
        foreach (Operation operation in operations)
        {
            if (operation.Kind == OperationKind.Read) continue;
            ref Cluster? cluster = ref CollectionsMarshal.GetValueRefOrAddDefault(clusters, operation.ValueAfter, out bool exists);
            if (exists)
            {
                return new Violation(word, $"the value {operation.ValueAfter:x} comes from two operations",
                    [.. cluster!.Origin is { } origin ? new[] { origin } : [], operation]);
            }
            cluster = new Cluster { Origin = operation };
        }
        foreach (Operation operation in operations)
        {
            if (operation.Kind == OperationKind.Write) continue;
            if (!clusters.TryGetValue(operation.Value, out Cluster? cluster))
            {
                return new Violation(word, $"nobody wrote the value {operation.Value:x}", [operation]);
            }
            if (operation.Kind == OperationKind.Read)
            {
                cluster.Reads.Add(operation);
            }
            else
            {
                // That two found the same value shows above: they would leave the same one.
                cluster.Next = operation;
            }
        }
        List<Block> blocks = [];
        foreach (Cluster cluster in clusters.Values)
        {
            if (cluster.Origin is { Kind: OperationKind.FetchAdd }) continue; // within a block, not its beginning
            Block block = new();
            for (Cluster? part = cluster; part is not null; part = part.Next is { } next ? clusters[next.ValueAfter] : null)
            {
                if (part.Origin is { } origin && block.Append(origin) is { } later) return OutOfOrder(word, later, origin);
                foreach (Operation read in part.Reads)
                {
                    if (block.LatestStartOperation is { } first && read.Finish < first.Start) return OutOfOrder(word, first, read);
                }
                foreach (Operation read in part.Reads) block.Include(read);
            }
            // The initial value was there before everything.
            if (cluster.Origin is null) block.EarliestFinish = 0;
            blocks.Add(block);
        }
        return CheckOrder(word, blocks);
    }

    // Operation `second` comes after `first` in the block, but was over before it began.
    private static Violation OutOfOrder(uint word, Operation first, Operation second) => new(word,
        "an operation finished before the one began that it depends on", [first, second]);

    private static Violation? CheckOrder(uint word, List<Block> blocks)
    {
        // Forward zones by their beginning; they must not overlap, so one look back is enough.
        List<Block> forward = [.. blocks.Where(block => block.EarliestFinish < block.LatestStart).OrderBy(block => block.EarliestFinish)];
        for (int i = 1; i < forward.Count; i++)
        {
            if (forward[i].EarliestFinish < forward[i - 1].LatestStart) return Contradiction(word, forward[i - 1], forward[i]);
        }
        foreach (Block block in blocks)
        {
            if (block.EarliestFinish < block.LatestStart) continue;
            // A backward zone [LatestStart, EarliestFinish] within a forward one: the last that begins before it, if any.
            int low = 0, high = forward.Count;
            while (low < high)
            {
                int middle = (low + high) / 2;
                if (forward[middle].EarliestFinish < block.LatestStart) low = middle + 1;
                else high = middle;
            }
            if (low > 0 && block.EarliestFinish < forward[low - 1].LatestStart) return Contradiction(word, forward[low - 1], block);
        }
        return null;
    }

    private static Violation Contradiction(uint word, Block a, Block b) => new(word,
        "two values were each current before and after the other",
        [.. new[] { a.EarliestFinishOperation, a.LatestStartOperation, b.EarliestFinishOperation, b.LatestStartOperation }
            .OfType<Operation>()]);

    private sealed class Cluster
    {
        public Operation? Origin { get; init; }
        public Operation? Next { get; set; }
        public List<Operation> Reads { get; } = [];
    }

    private sealed class Block
    {
        public ulong EarliestFinish { get; set; } = ulong.MaxValue;
        public ulong LatestStart { get; private set; }
        public Operation? EarliestFinishOperation { get; private set; }
        public Operation? LatestStartOperation { get; private set; }

        /// <summary>Adds an operation that comes after all so far.</summary>
        /// <returns>One of those so far that began only after it was over, if there is one: then it cannot.</returns>
        public Operation? Append(Operation operation)
        {
            if (LatestStartOperation is { } before && operation.Finish < before.Start) return before;
            Include(operation);
            return null;
        }

        public void Include(Operation operation)
        {
            if (operation.Finish < EarliestFinish) (EarliestFinish, EarliestFinishOperation) = (operation.Finish, operation);
            if (operation.Start >= LatestStart) (LatestStart, LatestStartOperation) = (operation.Start, operation);
        }
    }
}
