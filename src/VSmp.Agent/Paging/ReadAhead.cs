// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// Decides how far to ask ahead of a miss: not at all, unless the miss continues a stream of misses; then twice as far each time. Memory that
/// was never written costs no data: there it starts farther, and goes on faster.
/// </summary>
/// <remarks>
/// <code>
///      last miss      miss                 frontier
///   ──────┴────────────┴───────────────────────┴──────────── pages
///                      └── asked for, not here ┘└─ ask now ─┐
///                      └──────────── window ────────────────┘
/// </code>
/// A miss short of the frontier is a reader that has caught up with what is on its way: the window is filled up again, so that
/// there is always something on its way while it reads.
/// <para>
/// A miss where a stream began before (a neighbour's row, read again in each step) is likely to want what that stream wanted, and no more:
/// as much is asked for at once. Pages that somebody wants to read, and pages that are here and are to be written, are different streams: where the
/// one ends the other may begin, and going on would take from others what they still need.
/// </para>
/// <para>
/// Memory that was never written, and that nobody else uses, may be touched at random: a hash table. The more often an extent is missed, the likelier all of
/// it will be, and the larger the block around a miss that is asked for.
/// </para>
/// </remarks>
internal sealed class ReadAhead
{
    /// <summary>Farthest, in pages: a few frames of the largest size, so that the one is sent while another is installed.</summary>
    public const uint MaxWindow = 64;

    /// <summary>How far memory is asked for that was never written, at first and at most: it takes a frame each, but no data.</summary>
    public const uint FreshWindow = 8, MaxFreshWindow = 128;

    /// <summary>How often a stream begins at the same page until its length is found out anew: it may have become shorter, which nobody would notice.</summary>
    public const int RestartsKnown = 16;

    private const int Streams = 16, Extents = 1024;

    private readonly Stream[] _streams = new Stream[Streams];
    private readonly Extent[] _extents = new Extent[Extents]; // where misses are at random, by number; who comes later takes the place
    private int _next;
    private int _current;

    /// <summary>
    /// How many pages behind each other the last miss's stream leaves out: of memory that ranks have dealt out page by page, a rank has its own already.
    /// </summary>
    public uint Gap => _streams[_current].Gap;

    /// <summary>A miss.</summary>
    /// <param name="page">Where.</param>
    /// <param name="isFresh">Whether it was never written.</param>
    /// <param name="isUpgrade">Whether its contents are here, and only the right to write is missing.</param>
    /// <param name="isRoomy">Whether there is room for pages, never written either, that may be wanted late or never, and that nobody else wants.</param>
    /// <returns>The pages to ask for beside it, or around it; say with <see cref="AskedUpTo"/> how many of them were.</returns>
    public (PageNumber First, uint Count) OnMiss(PageNumber page, bool isFresh, bool isUpgrade, bool isRoomy)
    {
        (uint least, uint most, _) = Windows(isFresh);
        if (Find(page, isUpgrade, isStart: false) is var continued && continued >= 0)
        {
            ref Stream stream = ref _streams[_current = continued];
            stream.Gap = (uint)(page.Value - Math.Min(page.Value, stream.Frontier));
            stream.IsWhole = false;
            Grow(page, ref stream, isFresh);
        }
        else if (Find(page, isUpgrade, isStart: true) is var begun && begun >= 0)
        {
            ref Stream stream = ref _streams[_current = begun];
            if (++stream.Restarts % RestartsKnown == 0) stream.Length = 1;
            stream.Frontier = page.Value;
            stream.IsWhole = true;
            stream.Window = (uint)Math.Min(stream.Length, most);
        }
        else
        {
            _current = _next++ % Streams;
            _streams[_current] = new Stream { Start = page.Value, Frontier = page.Value, Window = least, Length = 1, IsUpgrade = isUpgrade };
            if (isFresh && isRoomy) return AskAround(page, ref _streams[_current]);
        }
        return Ask(page, ref _streams[_current]);
    }

    /// <summary>A miss of a page that is on its way.</summary>
    /// <param name="page">Where.</param>
    /// <param name="isFresh">Whether it was never written.</param>
    /// <param name="isUpgrade">Whether the stream, if it is of one, is of pages that are here and are to be written.</param>
    /// <returns>As <see cref="OnMiss"/>; nothing if it is of no stream.</returns>
    public (PageNumber First, uint Count) OnCaughtUp(PageNumber page, bool isFresh, out bool isUpgrade)
    {
        isUpgrade = false;
        for (int i = 0; i < Streams; i++)
        {
            ref Stream stream = ref _streams[i];
            if (stream.Length == 0 || stream.IsWhole || page.Value <= stream.LastMiss || page.Value >= stream.Frontier) continue;
            _current = i;
            isUpgrade = stream.IsUpgrade;
            Grow(page, ref stream, isFresh && !isUpgrade);
            return Ask(page, ref stream);
        }
        return (page, 0);
    }

    /// <summary>The pages before this one were asked for, as far as the last miss was to have asked for them.</summary>
    public void AskedUpTo(PageNumber page) => _streams[_current].Frontier = page.Value;

    private static (uint Least, uint Most, uint Growth) Windows(bool isFresh) => isFresh ? (FreshWindow, MaxFreshWindow, 4u) : (1u, MaxWindow, 2u);

    private static void Grow(PageNumber page, ref Stream stream, bool isFresh)
    {
        (uint least, uint most, uint growth) = Windows(isFresh);
        stream.Window = Math.Clamp(stream.Window * growth, least, most);
        stream.Length = Math.Max(stream.Length, page.Value - stream.Start + 1);
    }

    private static (PageNumber First, uint Count) Ask(PageNumber page, ref Stream stream)
    {
        stream.LastMiss = page.Value;
        ulong first = Math.Max(stream.Frontier, page.Value + 1), end = page.Value + stream.Window;
        stream.Frontier = first;
        return (new PageNumber(first), first < end ? (uint)(end - first) : 0);
    }

    private (PageNumber First, uint Count) AskAround(PageNumber page, ref Stream stream)
    {
        ref Extent extent = ref _extents[page.Extent.Value % Extents];
        if (extent.Number != page.Extent) extent = new Extent { Number = page.Extent };
        uint block = Math.Min(FreshWindow << extent.Misses, MaxFreshWindow);
        if (block < MaxFreshWindow) extent.Misses++;
        ulong first = page.Value / block * block;
        stream.LastMiss = page.Value;
        stream.Frontier = first + block;
        stream.IsWhole = true;
        return (new PageNumber(first), block);
    }

    // A loop: a function that is given the page would be an object for each miss.
    private int Find(PageNumber page, bool isUpgrade, bool isStart)
    {
        for (int i = 0; i < Streams; i++)
        {
            ref readonly Stream stream = ref _streams[i];
            if (stream.Length == 0 || stream.IsUpgrade != isUpgrade) continue;
            if (isStart ? page.Value == stream.Start : page.Value > stream.LastMiss && page.Value <= stream.Frontier + 1) return i;
        }
        return -1;
    }

    private struct Extent
    {
        public ExtentNumber Number;
        public int Misses; // that began no stream as far as is known; counted as long as it matters
    }

    private struct Stream
    {
        public ulong Start;
        public ulong LastMiss;
        public ulong Frontier;
        public ulong Length; // from the start to the farthest miss; 0: no stream
        public uint Window;
        public uint Restarts;
        public bool IsUpgrade;
        public uint Gap; // between what was asked for and the miss that came next
        public bool IsWhole; // as much as is to be expected was asked for at once, and no miss since was beyond that
    }
}
