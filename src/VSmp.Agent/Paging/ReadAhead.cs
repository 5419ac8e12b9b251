// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Paging;

/// <summary>
/// Decides how many pages to ask for at a miss: one, unless the miss continues a stream of misses; then twice as many each time. Memory
/// that was never written costs no data, so it starts with more.
/// </summary>
internal sealed class ReadAhead
{
    private const int Streams = 8;
    private const uint MaxPages = FrameHeader.MaxPages;
    private const uint FirstTouchPages = 8;

    private readonly ulong[] _next = new ulong[Streams];
    private readonly uint[] _window = new uint[Streams];
    private int _clock;

    /// <summary>A miss: how many pages to ask for, from <paramref name="page"/> on.</summary>
    /// <param name="page">Where.</param>
    /// <param name="isFresh">Whether it was never written.</param>
    public uint OnMiss(PageNumber page, bool isFresh)
    {
        uint least = isFresh ? FirstTouchPages : 1u;
        for (int i = 0; i < Streams; i++)
        {
            if (page.Value < _next[i] || page.Value > _next[i] + 1) continue;
            uint window = Math.Min(Math.Max(_window[i] * 2, least), MaxPages);
            _window[i] = window;
            _next[i] = page.Value + window;
            return window;
        }
        int slot = _clock++ % Streams;
        _window[slot] = least;
        _next[slot] = page.Value + least;
        return least;
    }
}
