// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;

namespace VSmp.Bench.Checking;

/// <summary>What is bounded in a search of lazy release.</summary>
/// <param name="Nodes">Nodes; node 0 is the home.</param>
/// <param name="Ranks">Ranks, spread over the nodes.</param>
/// <param name="Sections">How often each rank takes a lock.</param>
/// <param name="Accesses">Accesses under each lock at most.</param>
internal sealed record LazyBounds(int Nodes, int Ranks, int Sections, int Accesses)
{
    /// <inheritdoc/>
    public override string ToString() =>
        $"{LazySearch.Name}: {Nodes} nodes × 1 page, {Ranks} ranks, {Sections} × {Accesses} accesses per rank under two locks";
}

/// <summary>What a search of lazy release found.</summary>
/// <param name="States">States seen.</param>
/// <param name="Moves">Moves made.</param>
/// <param name="Depth">Moves of the longest shortest way to a state.</param>
/// <param name="Elapsed">How long it took.</param>
/// <param name="Violation">What was broken, and the shortest way there; null if nothing was and every state was seen.</param>
internal sealed record LazySearchResult(int States, long Moves, int Depth, TimeSpan Elapsed, IReadOnlyList<string>? Violation);

/// <summary>Every state of lazy release consistency within bounds, breadth first.</summary>
internal static class LazySearch
{
    /// <summary>What users call it.</summary>
    public const string Name = "lazy";

    /// <summary>The bounds that are searched.</summary>
    public static IReadOnlyList<LazyBounds> Bounds(bool deep) => deep
        ? [new(2, 2, 2, 2), new(2, 2, 3, 2), new(3, 3, 1, 2), new(2, 3, 1, 2)]
        : [new(2, 2, 2, 2), new(3, 3, 1, 1), new(2, 3, 1, 1)];

    /// <summary>Searches until the frontier is exhausted, or something is broken.</summary>
    /// <param name="bounds">The bounds.</param>
    /// <param name="bug">What to break.</param>
    public static LazySearchResult Run(LazyBounds bounds, LazyBug bug = LazyBug.None)
    {
        var watch = Stopwatch.StartNew();
        var world = new LazyWorld(bounds, bug);
        var states = new List<(byte[] State, int From, int Move, int Depth)> { (world.Save(), -1, -1, 0) };
        var known = new HashSet<byte[]>(new ByBytes()) { states[0].State };
        long moves = 0;
        for (int at = 0; at < states.Count; at++)
        {
            for (int move = 0; move < world.MoveCount; move++)
            {
                world.Restore(states[at].State);
                try
                {
                    if (!world.TryMove(move)) continue;
                    moves++;
                    world.CheckQuiet();
                }
                catch (Exception e) when (e is InvariantException or Coherence.ProtocolViolationException)
                {
                    return Result([.. Tell(world, states, at, move), e.Message]);
                }
                byte[] state = world.Save();
                if (known.Add(state)) states.Add((state, at, move, states[at].Depth + 1));
            }
        }
        return Result(null);

        LazySearchResult Result(IReadOnlyList<string>? violation) => new(states.Count, moves, states[^1].Depth, watch.Elapsed, violation);
    }

    private static List<string> Tell(LazyWorld world, List<(byte[] State, int From, int Move, int Depth)> states, int at, int move)
    {
        var lines = new List<string>();
        for (; at >= 0; (move, at) = (states[at].Move, states[at].From))
        {
            world.Restore(states[at].State);
            lines.Add(world.Tell(move));
        }
        lines.Reverse();
        return lines;
    }

    private sealed class ByBytes : IEqualityComparer<byte[]>
    {
        public bool Equals(byte[]? x, byte[]? y) => x.AsSpan().SequenceEqual(y);

        public int GetHashCode(byte[] bytes)
        {
            var hash = new HashCode();
            hash.AddBytes(bytes);
            return hash.ToHashCode();
        }
    }
}
