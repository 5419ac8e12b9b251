// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Messages;

namespace VSmp.Coherence.Homes;

/// <summary>The mirror's side: takes what a home is given, and says so. It never decides anything until it is made the home.</summary>
/// <param name="self">The node.</param>
public sealed class MirrorController(NodeId self)
{
    private const MessageFlags LostFlags = MessageFlags.NoData | MessageFlags.Zero;

    /// <summary>A home's MirrorPut.</summary>
    public void OnMessage(Region region, in Message message, EffectBuffer effects)
    {
        if (message.Generation != region.Generation || region.IsDeaf) return; // of a home that counts no more
        for (uint i = 0; i < message.Count; i++)
        {
            PageNumber page = message.Page.Plus(i);
            if (!region.Mirrored.Contains(page.Extent)) continue; // given back meanwhile, and so is the home
            ref MirrorEntry entry = ref region.Mirrored.At(page);
            bool isLost = (message.Flags & LostFlags) == LostFlags;
            if (!isLost && entry.Contents is (MirrorContents.Zero or MirrorContents.Data) && message.Version.Value < entry.Version.Value)
            {
                throw new ProtocolViolationException($"{page} of {region.Id} is mirrored here in version {entry.Version.Value} already: {message}");
            }
            entry.Version = message.Version;
            entry.Contents = isLost ? MirrorContents.Unknown
                : (message.Flags & MessageFlags.NoData) != 0 ? MirrorContents.Elsewhere
                : (message.Flags & MessageFlags.Zero) != 0 ? MirrorContents.Zero : MirrorContents.Data;
            effects.Add((message.Flags & MessageFlags.NoData) != 0 ? EffectKind.DropHome : EffectKind.WriteHome, region.Id, page);
            Message ack = new()
            {
                Type = MessageType.MirrorAck,
                Flags = message.Flags & MessageFlags.Prefetch, // nobody waits for it
                Source = self,
                Requestor = message.Requestor,
                Transaction = message.Transaction,
                Count = 1,
                Region = region.Id,
                Page = page,
                Version = message.Version,
                Generation = region.Generation,
            };
            effects.AddSend(message.Source, DataSource.None, in ack);
        }
    }
}
