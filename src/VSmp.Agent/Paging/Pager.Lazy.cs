// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Paging;

/// <content>Lazy release consistency: acquire, release, diffs. The order of the calls: <see cref="LazyNodeController"/>.</content>
internal sealed unsafe partial class Pager
{
    private readonly byte* _diffScratch = (byte*)NativeMemory.AllocZeroed((2 * PageNumber.Bytes) + PageDiff.MaxBytes);

    /// <summary>A rank releases: what was written here goes to its homes. Complete when <see cref="LazyNodeController.TryTakeNotices"/> says so.</summary>
    public void Release(LazyProtocol region)
    {
        _lazyNode.Release(region.Region, _effects);
        Drain();
    }

    /// <summary>A rank acquires: copies of pages that others wrote go.</summary>
    /// <exception cref="ProtocolViolationException">A page is not of the region.</exception>
    public void Acquire(LazyProtocol region, ReadOnlySpan<PageNumber> pages)
    {
        _lazyNode.Acquire(region.Region, pages, _effects);
        Drain();
    }

    /// <summary>A rank acquires, and nobody knows any more what others wrote since it did last: every copy goes.</summary>
    public void AcquireAll(LazyProtocol region)
    {
        _lazyNode.AcquireAll(region.Region, _effects);
        Drain();
    }

    private void SendDiff(PagedRegion region, in Effect effect)
    {
        byte* frame = _diffScratch, zeros = frame + PageNumber.Bytes, room = zeros + PageNumber.Bytes;
        region.Frames.Read(effect.Page, frame, 1);
        byte* twin = region.Twins.Find(effect.Page);
        // SAFETY: the scratch memory is two pages and the longest diff, of which the second page stays zeros; a twin is one page.
        int bytes = PageDiff.Write(new ReadOnlySpan<byte>(twin is null ? zeros : twin, PageNumber.Bytes),
            new ReadOnlySpan<byte>(frame, PageNumber.Bytes), new Span<byte>(room, PageDiff.MaxBytes));
        SendFrame(region, effect.To, in effect.Message, effect.Page, 1, effect.Message.Flags, new ReadOnlySpan<byte>(room, bytes));
    }

    /// <summary>Writes the runs of a diff into the home copy; what guests here have mapped of it changes with it.</summary>
    private static void MergeDiff(PagedRegion region, PageNumber page, ReadOnlySpan<byte> diff)
    {
        while (PageDiff.TryTakeRun(ref diff, out int offset, out ReadOnlySpan<byte> bytes)) region.Frames.WriteBytes(page, offset, bytes);
    }
}
