// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// Decides how far to ask ahead of a miss: not at all, unless the miss continues a stream of misses; then twice as far each time. Memory that
/// was never written costs no data, so it starts farther.
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
/// </remarks>
internal sealed class ReadAhead
{
    /// <summary>Farthest, in pages: a few frames of the largest size, so that the one is sent while another is installed.</summary>
    public const uint MaxWindow = 64;

    /// <summary>How far memory is asked for that was never written.</summary>
    public const uint FreshWindow = 8;

    private const int Streams = 8;

    private readonly Stream[] _streams = new Stream[Streams];
    private int _next;
    private int _current;

    /// <summary>A miss.</summary>
    /// <param name="page">Where.</param>
    /// <param name="isFresh">Whether it was never written.</param>
    /// <returns>The pages to ask for beside it; say with <see cref="AskedUpTo"/> how many of them were.</returns>
    public (PageNumber First, uint Count) OnMiss(PageNumber page, bool isFresh)
    {
        uint least = isFresh ? FreshWindow : 1;
        _current = Find(page);
        if (_current < 0)
        {
            _current = _next++ % Streams;
            _streams[_current] = new Stream { Frontier = page.Value, Window = least };
        }
        else
        {
            _streams[_current].Window = Math.Clamp(_streams[_current].Window * 2, least, MaxWindow);
        }
        ref Stream stream = ref _streams[_current];
        stream.LastMiss = page.Value;
        ulong first = Math.Max(stream.Frontier, page.Value + 1), end = page.Value + stream.Window;
        stream.Frontier = first;
        return (new PageNumber(first), first < end ? (uint)(end - first) : 0);
    }

    /// <summary>The pages before this one were asked for, of those that the last miss was to have asked for.</summary>
    public void AskedUpTo(PageNumber page) => _streams[_current].Frontier = page.Value;

    // A loop: a function that is given the page would be an object for each miss.
    private int Find(PageNumber page)
    {
        for (int i = 0; i < Streams; i++)
        {
            if (page.Value >= _streams[i].LastMiss && page.Value <= _streams[i].Frontier + 1) return i;
        }
        return -1;
    }

    private struct Stream
    {
        public ulong LastMiss;
        public ulong Frontier;
        public uint Window;
    }
}
