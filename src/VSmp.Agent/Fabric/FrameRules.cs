// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric;

/// <summary>
/// What every frame has to satisfy, whoever sends it: checked by the sender (a defect) and by the receiver (a violation).
/// </summary>
internal static class FrameRules
{
    /// <summary>Most pages that one message may be about: 1 GiB.</summary>
    public const uint MaxCount = 1u << 18;

    private const ulong MaxPage = 1ul << (64 - PageNumber.Shift);
    private const MessageFlags KnownFlags = MessageFlags.Zero | MessageFlags.NoData | MessageFlags.Prefetch | MessageFlags.FromOwner;

    /// <summary>
    /// What is wrong with a header's fields, or null. Session fields (sequence, CRC, source, epoch) are not looked at.
    /// </summary>
    public static string? Violation(in FrameHeader header)
    {
        if (header.Reserved0 != 0 || header.Reserved2 != 0 || header.Reserved3 != 0)
            return "reserved bytes are not zero";
        if ((header.Tag0 | header.Tag1) != 0) return "an authentication tag that was not negotiated";
        if ((header.Flags & ~KnownFlags) != 0) return "unknown flags";
        if ((header.Flags & MessageFlags.FromOwner) != 0 && header.Type is not (MessageType.DataM or MessageType.InstallAck))
            return "a flag that does not fit the type";
        if (header.Network != MessageTypes.NetworkOf(header.Type)) return "a type on the wrong virtual network";
        return header.Type switch
        {
            MessageType.DataS or MessageType.DataE or MessageType.DataM or MessageType.PutM or MessageType.PutO or MessageType.Writeback
                or MessageType.MirrorPut or MessageType.Recalled =>
                PagesViolation(header) ?? DataViolation(header),
            MessageType.GetS or MessageType.GetM or MessageType.Upgrade or MessageType.PutZ or MessageType.FwdGetS
                or MessageType.FwdGetM or MessageType.Inv or MessageType.InvAck or MessageType.InstallAck or MessageType.PutAck
                or MessageType.WritebackAck or MessageType.PutE or MessageType.OwnerGrant or MessageType.SoleGrant or MessageType.WritebackClean
                or MessageType.DiffAck or MessageType.Nack or MessageType.MirrorAck or MessageType.Poisoned or MessageType.Recall or MessageType.Promote =>
                PagesViolation(header) ?? (header.PayloadBytes != 0 ? "a payload where none belongs" : null),
            MessageType.Diff =>
                PagesViolation(header) ?? (header.Count != 1 ? "a diff of more than one page"
                    : header.PayloadBytes > PageDiff.MaxBytes ? "a payload that is too long" : null),
            MessageType.ReserveExtents or MessageType.ReserveReply or MessageType.ReleaseExtents or MessageType.DropRegion
                or MessageType.DropRegionAck or MessageType.NodeReport or MessageType.ViewChange or MessageType.Leave or MessageType.AskView or MessageType.ProposeView
                or MessageType.NodeAsk or MessageType.NodeAnswer
                or MessageType.JobCall or MessageType.JobReply or MessageType.JobRankGone or MessageType.JobAttach
                or MessageType.JobAttachReply or MessageType.JobDetach or MessageType.JobAbort or MessageType.JobStart
                or MessageType.JobOutput or MessageType.JobOutputAck or MessageType.JobSignal or MessageType.JobWrites or MessageType.JobNotices
                or MessageType.JobInput or MessageType.JobInputAck or (>= MessageType.RegionFreeze and <= MessageType.RegionsHeld)
                or (>= MessageType.CheckpointOrder and <= MessageType.CheckpointLoaded) =>
                header.PayloadBytes > FrameHeader.MaxPayloadBytes ? "a payload that is too long" : null,
            MessageType.SessionAck or MessageType.SessionClose =>
                header.PayloadBytes != 0 ? "a payload where none belongs" : null,
            _ => "an unknown type",
        };
    }

    private static string? PagesViolation(in FrameHeader header)
    {
        if (header.Count is 0 or > MaxCount) return "a page count out of bounds";
        return header.Page.Value > MaxPage - header.Count ? "a page beyond the address space" : null;
    }

    /// <summary>Contents are whole pages, as many as the header counts; or the header says that they do not travel.</summary>
    private static string? DataViolation(in FrameHeader header)
    {
        if ((header.Flags & (MessageFlags.Zero | MessageFlags.NoData)) != 0)
            return header.PayloadBytes != 0 ? "a payload beside the word that there is none" : null;
        if (header.Count > FrameHeader.MaxPages) return "more pages than a frame may carry";
        return header.PayloadBytes != header.Count * PageNumber.Bytes ? "a payload that does not match the page count" : null;
    }
}
