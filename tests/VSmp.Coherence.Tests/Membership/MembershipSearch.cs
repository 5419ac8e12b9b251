// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Coherence.Membership;

namespace VSmp.Coherence.Tests.Membership;

/// <summary>What may go wrong in a search, in any round and any combination.</summary>
/// <param name="DecidedBy">Who makes a majority.</param>
/// <param name="Links">Links (from × 3 + to) that may lose or hold back what they carry.</param>
internal sealed record SearchBounds(string Name, DecidedBy DecidedBy, params int[] Links)
{
    /// <summary>Whether links also hold back what they carry; if not, they lose it.</summary>
    public bool Holds { get; init; }

    /// <summary>Whether the links fail together, in one direction each or not at all.</summary>
    public bool Together { get; init; }

    /// <summary>Whether the store is away at times; swaps sent then are carried out later.</summary>
    public bool StoreFails { get; init; }

    /// <summary>Hosts that die.</summary>
    public int Kills { get; init; }

    /// <summary>Agents that die and come back.</summary>
    public int Restarts { get; init; }

    /// <summary>Ticks that clocks miss.</summary>
    public int Misses { get; init; }

    /// <summary>Whether transports say that a member is gone which is not.</summary>
    public bool Refuses { get; init; }

    /// <summary>Nothing is searched beyond this view.</summary>
    public uint LastView { get; init; } = 5;

    public override string ToString() => Name;
}

/// <summary>
/// Exhaustive search of three members with coarse time: from each state, every combination of what may go wrong in the next round, until no state is
/// new. The code that is searched is the code that ships.
/// </summary>
internal static class MembershipSearch
{
    /// <summary>Searches.</summary>
    /// <returns>How many states there are, and what broke, if something did, with the way there.</returns>
    public static (int States, string? Broken) Run(SearchBounds bounds, MembershipRules rules, int maxStates)
    {
        var seen = new HashSet<UInt128>();
        var open = new Stack<(SearchWorld World, Way? Way)>();
        var key = new List<long>();
        var start = new SearchWorld(bounds, rules);
        _ = seen.Add(Key(start, key));
        open.Push((start, null));
        var moves = new List<SearchMove>();
        while (open.TryPop(out var at))
        {
            at.World.ListMoves(moves);
            foreach (SearchMove move in moves)
            {
                SearchWorld next = at.World.Copy();
                try
                {
                    next.Do(move);
                }
                catch (Exception e) when (e is MembershipBrokenException or ProtocolViolationException)
                {
                    return (seen.Count, $"{e.Message}\n{string.Join('\n', new Way(move, at.Way).Lines())}");
                }
                if (next.IsBeyond || !seen.Add(Key(next, key))) continue;
                if (seen.Count > maxStates) return (seen.Count, $"{bounds}: more than {maxStates} states");
                open.Push((next, new Way(move, at.Way)));
            }
        }
        return (seen.Count, null);
    }

    private static UInt128 Key(SearchWorld world, List<long> key)
    {
        key.Clear();
        world.Describe(key);
        ulong low = 0x9E3779B97F4A7C15, high = 0xC2B2AE3D27D4EB4F;
        foreach (long value in CollectionsMarshal.AsSpan(key))
        {
            low = Mix(low ^ (ulong)value);
            high = Mix(high + (ulong)value + 0x165667B19E3779F9);
        }
        return new UInt128(high, low);
    }

    private static ulong Mix(ulong x)
    {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    }

    private sealed record Way(SearchMove Move, Way? Before)
    {
        public List<string> Lines()
        {
            var lines = new List<string>();
            for (Way? way = this; way is not null; way = way.Before) lines.Add(way.Move.ToString());
            lines.Reverse();
            return lines;
        }
    }
}
