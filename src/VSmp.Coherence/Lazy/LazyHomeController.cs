// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Messages;

namespace VSmp.Coherence.Lazy;

/// <summary>
/// The home's side of lazy release consistency. The home copy is always there and is never asked back: a GetS is answered with it, a
/// diff is merged into it, both at once.
/// </summary>
public sealed class LazyHomeController(NodeId self)
{
    /// <summary>The node.</summary>
    public NodeId Self { get; } = self;

    /// <summary>Whether messages of this type are for the home's side.</summary>
    public static bool Takes(MessageType type) => type is MessageType.GetS or MessageType.Diff;

    /// <summary>A GetS, or a Diff whose contents <see cref="PageDiff.Violation"/> found nothing wrong with.</summary>
    /// <exception cref="ProtocolViolationException">The message cannot be for this home.</exception>
    public void OnMessage(LazyRegion region, in Message message, EffectBuffer effects)
    {
        for (uint i = 0; i < message.Count; i++)
        {
            PageNumber page = message.Page.Plus(i);
            if (!region.IsHome(page.Extent)) throw new ProtocolViolationException($"this node is not the home: {message}");
            switch (message.Type)
            {
                case MessageType.GetS:
                    bool isTouched = region.IsTouched(page);
                    bool isLocal = message.Source == Self;
                    // A local guest gets the home copy itself, and needs a frame to map; what others get are zeros without one.
                    if (isLocal) region.IsTouched(page) = true;
                    MessageFlags flags = !isTouched ? MessageFlags.Zero : isLocal ? MessageFlags.NoData : 0;
                    Reply(MessageType.DataS, flags, flags == 0 ? DataSource.Frame : DataSource.None, in message, page, effects);
                    break;
                case MessageType.Diff:
                    region.IsTouched(page) = true;
                    effects.Add(EffectKind.MergeDiff, region.Id, page);
                    Reply(MessageType.DiffAck, 0, DataSource.None, in message, page, effects);
                    break;
                default:
                    throw new ProtocolViolationException($"{message.Type} is no message to a home: {message}");
            }
        }
    }

    private void Reply(MessageType type, MessageFlags flags, DataSource source, in Message cause, PageNumber page, EffectBuffer effects)
    {
        Message message = new()
        {
            Type = type,
            Flags = flags,
            Source = Self,
            Requestor = cause.Source,
            Transaction = cause.Transaction,
            Count = 1,
            Region = cause.Region,
            Page = page,
        };
        effects.AddSend(cause.Source, source, in message);
    }
}
