// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// How long a page stays with a thread that was just given it. Pure, so that it can be tried against any timing.
/// </summary>
/// <remarks>
/// An instruction may need several pages at once (a locked add that crosses a page, a move from one page to another): while its thread
/// waits for a further page, those that it has are held on, and for a moment more when it has got it. Two nodes that each hold what the
/// other waits for would wait for ever; so each gives up after a while, which is drawn anew each time: the one that draws
/// longer gets both.
/// </remarks>
/// <param name="self">The node: others are to draw other numbers.</param>
internal sealed class HoldRules(NodeId self)
{
    /// <summary>How long a page stays at least; and by how much a hold is extended at a time.</summary>
    public const long HoldMicroseconds = 50;

    /// <summary>The holds of a thread that comes back for the same page, and has not got to use it, are this many times doubled (<see cref="PageReturns"/>).</summary>
    public const int MaxDoublings = 3;

    /// <summary>Extensions while the thread waits for another page: at least so many, and at most that many more.</summary>
    private const int LeastExtensions = 8, MoreExtensions = 32;

    /// <summary>Further pages that one instruction can need: two operands, each across a page.</summary>
    private const int MaxFurtherPages = 3;

    private uint _yields;

    /// <summary>A page is given to a thread.</summary>
    public Hold Begin() => new(Extensions: 0, DrawLimit(), FurtherPages: 0, IsExtended: false);

    /// <summary>A hold's time is up. Extends it by <see cref="HoldMicroseconds"/>, if the thread has not had its chance.</summary>
    /// <param name="hold">The hold.</param>
    /// <param name="waits">Whether the thread waits for another page.</param>
    /// <returns>Whether it was extended.</returns>
    public bool TryExtend(ref Hold hold, bool waits)
    {
        if (!waits)
        {
            // It has got the other page: a moment for both.
            if (!hold.IsExtended) return false;
            hold = hold with { IsExtended = false };
            return true;
        }
        int furtherPages = hold.FurtherPages + (hold.IsExtended ? 0 : 1);
        if (hold.Extensions >= hold.Limit || furtherPages > MaxFurtherPages)
        {
            _yields++;
            return false;
        }
        hold = hold with { Extensions = hold.Extensions + 1, FurtherPages = furtherPages, IsExtended = true };
        return true;
    }

    /// <summary>Differs from node to node and from time to time, and is the same in every run of the same events.</summary>
    private int DrawLimit()
    {
        uint h = (self.Value + 1u) * 0x9E37_79B1;
        h = (h ^ (_yields * 0x85EB_CA6B)) * 0xC2B2_AE35;
        return LeastExtensions + (int)((h >> 16) % MoreExtensions);
    }

    /// <summary>A page that must stay for a moment.</summary>
    /// <param name="Extensions">How often it was extended.</param>
    /// <param name="Limit">How often it may be.</param>
    /// <param name="FurtherPages">For how many pages the thread has waited meanwhile.</param>
    /// <param name="IsExtended">Whether it is held on because the thread waits for another page.</param>
    internal readonly record struct Hold(int Extensions, int Limit, int FurtherPages, bool IsExtended);
}
