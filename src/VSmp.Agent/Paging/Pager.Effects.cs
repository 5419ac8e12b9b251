// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Runtime.CompilerServices;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Paging;

/// <content>What the protocol asks for.</content>
internal sealed unsafe partial class Pager
{
    /// <summary>Executes the effects so far, in order. None of them steps the protocol, so none adds effects.</summary>
    /// <param name="message">The message that caused them, whose data they use.</param>
    /// <param name="payload">Its data.</param>
    private void ExecuteEffects(in Message message, ReadOnlySpan<byte> payload)
    {
        if (_effects.Count == 0) return;
        _fabric.HoldsBack = IsRecording;
        for (int i = 0; i < _effects.Count; i++)
        {
            ref readonly Effect effect = ref _effects[i];
            PagedRegion? region = Find(effect.Region);
            if (region is null) continue;
            if (region.Records is not null) RecordBefore(region, i);
            if (CaptureOf(region) is { } capture) BeforeChange(region, capture, in effect, in message);
            switch (effect.Kind)
            {
                case EffectKind.Send:
                    Send(region, in effect);
                    break;
                case EffectKind.WriteFrame:
                    WriteFrames(region, in effect, in message, payload);
                    break;
                case EffectKind.InstallReadable:
                case EffectKind.InstallWritable:
                    WriteFrames(region, in effect, in message, payload);
                    if (region.Records is not null) Record(region, in effect);
                    Map(region, effect.Page, effect.Count, effect.Kind == EffectKind.InstallWritable);
                    break;
                case EffectKind.MakeWritable:
                    Map(region, effect.Page, effect.Count, writable: true);
                    break;
                case EffectKind.WriteProtect:
                    WriteProtect(region, effect.Page, effect.Count);
                    break;
                case EffectKind.Keep:
                    for (uint p = 0; p < effect.Count; p++) region.Kept.Keep(effect.Page.Plus(p), region.Frames);
                    PagesCopiedOut += effect.Count;
                    break;
                case EffectKind.KeepInstead:
                    for (uint p = 0; p < effect.Count; p++) region.Kept.KeepInstead(effect.Page.Plus(p), region.Frames);
                    PagesCopiedOut += effect.Count;
                    break;
                case EffectKind.KeepZero or EffectKind.Record:
                    break;
                case EffectKind.Unmap:
                    for (uint p = 0; p < effect.Count; p++) region.LocalAt(effect.Page.Plus(p)).Mapped = 0;
                    region.Frames.Punch(effect.Page, effect.Count);
                    _hasProgressed = true;
                    break;
                case EffectKind.RestoreKept:
                    for (uint p = 0; p < effect.Count; p++) RestoreKept(region, effect.Page.Plus(p));
                    break;
                case EffectKind.Poison:
                    for (uint p = 0; p < effect.Count; p++) Poison(region, effect.Page.Plus(p));
                    break;
                case EffectKind.ReleaseKept:
                    for (uint p = 0; p < effect.Count; p++) region.Kept.Release(effect.Page.Plus(p));
                    _hasProgressed = true;
                    break;
                case EffectKind.WriteHome:
                    if ((message.Flags & MessageFlags.Zero) != 0) WriteZerosHome(region, effect.Page, effect.Count);
                    else WriteData(region, in effect, in message, payload);
                    break;
                case EffectKind.DropHome:
                    region.Frames.Punch(effect.Page, effect.Count);
                    break;
                case EffectKind.Complete:
                    _hasProgressed = true;
                    Retry(region, effect.Page, effect.Count);
                    break;
                case EffectKind.MakeTwin:
                    for (uint p = 0; p < effect.Count; p++) region.Twins.Keep(effect.Page.Plus(p), region.Frames);
                    break;
                case EffectKind.DropTwin:
                    for (uint p = 0; p < effect.Count; p++) region.Twins.Release(effect.Page.Plus(p));
                    break;
                case EffectKind.MergeDiff:
                    MergeDiff(region, effect.Page, payload);
                    break;
                case EffectKind.DiscardRefused:
                    Log.Error($"region {region.Layout.Name}: {effect.Page} was thrown away by one guest while others use it; its contents stay");
                    break;
            }
        }
        if (IsRecording) RecordAfter();
        _effects.Clear();
        _fabric.HoldsBack = false;
    }

    /// <summary>Zeros need no frame at home, unless guests here have copies: those are the same frames (an owner can write back while the home reads).</summary>
    private static void WriteZerosHome(PagedRegion region, PageNumber page, uint pageCount)
    {
        for (uint p = 0; p < pageCount; p++)
        {
            PageNumber at = page.Plus(p);
            bool isInUse = region.Layout.IsOpen(at.Extent) && region.Protocol.CopyOf(at) != PageCopy.None;
            if (isInUse) region.Frames.MakeZeros(at, 1);
            else region.Frames.Punch(at, 1);
        }
    }

    /// <summary>Puts the part of a message's data that an effect is about into the frames.</summary>
    private void WriteData(PagedRegion region, in Effect effect, in Message message, ReadOnlySpan<byte> payload)
    {
        ReadOnlySpan<byte> data = payload.Slice((int)(effect.Page.Value - message.Page.Value) << PageNumber.Shift, (int)effect.Count << PageNumber.Shift);
        // SAFETY: the data are pinned while they are written, and as long as the frames.
        fixed (byte* first = data) region.Frames.Write(effect.Page, first, effect.Count);
        _reactor.Stages?.Mark(Stage.Written);
        PagesCopiedIn += effect.Count;
    }

    private void WriteFrames(PagedRegion region, in Effect effect, in Message message, ReadOnlySpan<byte> payload)
    {
        if ((message.Flags & MessageFlags.NoData) != 0) return;
        if ((message.Flags & MessageFlags.Zero) != 0)
        {
            region.Frames.MakeZeros(effect.Page, effect.Count);
            return;
        }
        WriteData(region, in effect, in message, payload);
        if (region.Run is { } run) run.Counters.PagesFetched += effect.Count;
    }

    /// <summary>Maps pages that this node was just granted, and tries what waited for them.</summary>
    private void Map(PagedRegion region, PageNumber page, uint pageCount, bool writable)
    {
        _hasProgressed = true;
        bool isCopy = !region.Layout.IsHome(page.Extent);
        if (isCopy)
        {
            for (uint i = 0; i < pageCount; i++) region.Run!.Copies.OnInstalled(region, page.Plus(i), region.Run.Budget.LimitPages);
        }
        // One mapping: the whole run at once, read-ahead pages too. Several: each page where it is asked for.
        if (region.Mappings.Count == 1 && !region.Mappings[0].IsGone) MapRange(region.Mappings[0], page, pageCount, writable);
        Retry(region, page, pageCount);
    }

    /// <summary>Those who wait for the pages try again, after the effects of this step.</summary>
    private void Retry(PagedRegion region, PageNumber page, uint pageCount)
    {
        for (uint p = 0; p < pageCount; p++)
        {
            if (!region.Layout.IsOpen(page.Extent)) return;
            ref LocalPage local = ref region.LocalAt(page.Plus(p));
            if (!local.IsAwaited) continue;
            local.IsAwaited = false;
            for (int i = _waiting.Count - 1; i >= 0; i--)
            {
                Fault fault = _waiting[i];
                if (fault.Mapping.Region != region || fault.Page.Value != page.Value + p) continue;
                _waiting.RemoveAt(i);
                _again.Enqueue(fault);
            }
        }
    }

    /// <summary>Maps a page whose right is here for a thread that waits.</summary>
    private static void MapForFault(in Fault fault, bool writable)
    {
        Mapping mapping = fault.Mapping;
        // The fault says whether the page is missing or protected; what is remembered of the mapping may be older than the kernel's.
        int error = fault.IsProtection && writable
            ? Unprotect(mapping, fault.Page, 1)
            : Continue(mapping, fault.Page, 1, writable);
        if (Check(mapping, fault.Page, 1, error)) SetMapped(mapping, fault.Page);
    }

    private static void SetMapped(Mapping mapping, PageNumber page)
    {
        ref LocalPage local = ref mapping.Region.LocalAt(page);
        local.Mapped |= mapping.Mask;
        local.IsPoisoned = false;
    }

    private static bool Check(Mapping mapping, PageNumber page, uint pageCount, int error)
    {
        switch (error)
        {
            case 0:
                return true;
            case Errno.ESRCH:
                mapping.IsGone = true; // the pidfd, or the socket, will tell
                return false;
            case Errno.ENOENT:
                // The guest has unmapped it, or mapped something else there. Who waits looks again.
                _ = Userfaultfd.Wake(mapping.Userfaultfd, mapping.AddressOf(page), pageCount * (ulong)PageNumber.Bytes);
                return false;
            default:
                mapping.Guest.Kill($"{page} could not be mapped: {Errno.Text(error)}");
                return false;
        }
    }

    /// <summary>Makes pages present in a mapping with the right that the node has.</summary>
    private static void MapRange(Mapping mapping, PageNumber page, uint pageCount, bool writable)
    {
        PagedRegion region = mapping.Region;
        uint bit = mapping.Mask;
        uint done = 0;
        while (done < pageCount)
        {
            PageNumber at = page.Plus(done);
            bool isMapped = (region.LocalAt(at).Mapped & bit) != 0;
            uint run = 1;
            while (done + run < pageCount && ((region.LocalAt(page.Plus(done + run)).Mapped & bit) != 0) == isMapped) run++;
            int error = isMapped && writable ? Unprotect(mapping, at, run) : Continue(mapping, at, run, writable);
            done += run;
            if (error == Errno.ENOENT && run > 1)
            {
                // The run crosses a border between the guest's mappings, where some may be foreign: each page for itself.
                for (uint i = 0; i < run; i++) MapRange(mapping, at.Plus(i), 1, writable);
                continue;
            }
            if (!Check(mapping, at, run, error)) continue;
            for (uint i = 0; i < run; i++) SetMapped(mapping, at.Plus(i));
        }
    }

    private static int Unprotect(Mapping mapping, PageNumber page, uint pageCount)
    {
        ulong address = mapping.AddressOf(page);
        ulong bytes = pageCount * (ulong)PageNumber.Bytes;
        int error;
        while ((error = Userfaultfd.WriteProtect(mapping.Userfaultfd, address, bytes, on: false)) == Errno.EAGAIN) Thread.Yield();
        return error;
    }

    private static int Continue(Mapping mapping, PageNumber page, uint pageCount, bool writable)
    {
        ulong address = mapping.AddressOf(page);
        ulong left = pageCount * (ulong)PageNumber.Bytes;
        while (left > 0)
        {
            int error = Userfaultfd.Continue(mapping.Userfaultfd, address, left, writable, out long mapped);
            if (error == 0) return 0;
            if (mapped > 0)
            {
                address += (ulong)mapped;
                left -= (ulong)mapped;
            }
            switch (error)
            {
                case Errno.EEXIST:
                    // There already (the fault was late): give it the right, wake who waits, go on behind it.
                    error = writable
                        ? Userfaultfd.WriteProtect(mapping.Userfaultfd, address, PageNumber.Bytes, on: false)
                        : Userfaultfd.Wake(mapping.Userfaultfd, address, PageNumber.Bytes);
                    if (error is not (0 or Errno.EAGAIN)) return error;
                    if (error == 0)
                    {
                        address += PageNumber.Bytes;
                        left -= PageNumber.Bytes;
                    }
                    break;
                case Errno.EAGAIN:
                    Thread.Yield(); // mappings are being changed
                    break;
                default:
                    return error;
            }
        }
        return 0;
    }

    private static void WriteProtect(PagedRegion region, PageNumber page, uint pageCount)
    {
        foreach (Mapping mapping in region.Mappings)
        {
            if (mapping.IsGone) continue;
            int error;
            do
            {
                error = Userfaultfd.WriteProtect(mapping.Userfaultfd, mapping.AddressOf(page), pageCount * (ulong)PageNumber.Bytes, on: true);
            }
            while (error == Errno.EAGAIN);
            if (error == Errno.ESRCH)
            {
                mapping.IsGone = true;
            }
            else if (error == Errno.ENOENT)
            {
                // Something in the range is not ours any more; the rest must be protected all the same.
                if (pageCount > 1)
                {
                    for (uint i = 0; i < pageCount; i++) WriteProtect(region, page.Plus(i), 1);
                }
            }
            else if (error != 0) mapping.Guest.Kill($"{page} could not be write-protected: {Errno.Text(error)}");
        }
    }

    private void Send(PagedRegion region, in Effect effect)
    {
        if (effect.To == Self)
        {
            Debug.Assert(effect.Source == DataSource.None, "the home's copy is the frame");
            _toSelf.Enqueue(effect.Message);
            return;
        }
        switch (effect.Source)
        {
            case DataSource.None:
                SendFrame(region, effect.To, in effect.Message, effect.Message.Page, effect.Count, effect.Message.Flags, []);
                break;
            case DataSource.Frame:
                {
                    Span<byte> room = _fabric.Begin(effect.To, (int)effect.Count * PageNumber.Bytes);
                    // SAFETY: the room is unmanaged memory of that many pages.
                    region.Frames.Read(effect.Page, (byte*)Unsafe.AsPointer(ref room[0]), effect.Count);
                    PagesCopiedOut += effect.Count;
                    Commit(region, effect.To, in effect.Message, effect.Page, effect.Count, effect.Message.Flags, room.Length);
                    break;
                }
            case DataSource.Kept:
                SendKept(region, in effect);
                break;
            case DataSource.Diff:
                SendDiff(region, in effect);
                break;
        }
    }

    /// <summary>Kept copies that are zeros travel as such.</summary>
    private void SendKept(PagedRegion region, in Effect effect)
    {
        for (uint done = 0; done < effect.Count;)
        {
            PageNumber first = effect.Page.Plus(done);
            bool zero = region.Kept.Find(first) is null;
            uint run = 1;
            while (done + run < effect.Count && (region.Kept.Find(first.Plus(run)) is null) == zero) run++;
            if (zero)
            {
                SendFrame(region, effect.To, in effect.Message, first, run, effect.Message.Flags | MessageFlags.Zero, []);
            }
            else
            {
                Span<byte> room = _fabric.Begin(effect.To, (int)run * PageNumber.Bytes);
                for (int i = 0; i < run; i++)
                {
                    // SAFETY: a kept copy is one page of unmanaged memory.
                    new ReadOnlySpan<byte>(region.Kept.Find(first.Plus((uint)i)), PageNumber.Bytes).CopyTo(room[(i * PageNumber.Bytes)..]);
                }
                PagesCopiedOut += run;
                Commit(region, effect.To, in effect.Message, first, run, effect.Message.Flags, room.Length);
            }
            done += run;
        }
    }

    private void SendFrame(PagedRegion region, NodeId to, in Message m, PageNumber page, uint count, MessageFlags flags, ReadOnlySpan<byte> payload)
    {
        payload.CopyTo(_fabric.Begin(to, payload.Length));
        Commit(region, to, in m, page, count, flags, payload.Length);
    }

    private void Commit(PagedRegion region, NodeId to, in Message m, PageNumber page, uint count, MessageFlags flags, int payloadBytes)
    {
        FrameHeader header = FrameHeader.Of(in m) with { Flags = flags, Page = page, Count = count };
        _fabric.Commit(in header);
        if (region.Run is { } run)
        {
            run.Counters.BytesSent += FrameHeader.Bytes + (ulong)payloadBytes;
        }
    }
}
