// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Recovery;

/// <summary>
/// Rebuilds the directories of a region at one of its homes after a node was lost, from what the home itself has and from what every user of the
/// region that is left says that it has (<see cref="Claim"/>).
/// </summary>
/// <remarks>
/// <para>
/// All who take part have frozen the region before: what was under way in the generation before is dropped wherever it arrives. That loses nothing,
/// for whoever gives up what may be the last copy of a page keeps it until it is safe elsewhere.
/// </para>
/// <para>
/// Then, for each page: a right that somebody has is good, since there was one writer or many readers when it was given, and nothing was
/// given since. If nobody has one, the newest contents count: of the home copy (the mirror's, if the home itself is lost) and of the copies that were being
/// given up. A page whose owner is lost, and which nobody has a copy of, is lost.
/// </para>
/// </remarks>
public sealed class DirectoryRebuild
{
    private readonly NodeId _self;
    private readonly Region _region;
    private readonly Dictionary<PageNumber, (NodeId Node, PageVersion Version)> _kept = [];
    private readonly Dictionary<PageNumber, (NodeId First, bool AreSeveral)> _readers = []; // where there is no home copy
    private readonly HashSet<PageNumber> _thrownAway = [];
    private int _answersOut;

    /// <summary>Begins.</summary>
    /// <param name="self">This home.</param>
    /// <param name="region">The region, in its new generation.</param>
    public DirectoryRebuild(NodeId self, Region region)
    {
        _self = self;
        _region = region;
    }

    /// <summary>Whether every page is settled.</summary>
    public bool IsDone => IsDecided && _answersOut == 0;

    /// <summary>Whether <see cref="Finish"/> has been called.</summary>
    public bool IsDecided { get; internal set; }

    /// <summary>The newest copy of a page that somebody was giving up, for saving and restoring.</summary>
    internal Dictionary<PageNumber, (NodeId Node, PageVersion Version)> Kept => _kept;

    /// <summary>Who has a read copy of a page of which there is none at home, for saving and restoring.</summary>
    internal Dictionary<PageNumber, (NodeId First, bool AreSeveral)> Readers => _readers;

    /// <summary>Pages that were being thrown away, for saving and restoring.</summary>
    internal HashSet<PageNumber> ThrownAway => _thrownAway;

    /// <summary>Copies that were asked for and are not here yet, and words of mirrors and new owners that are out; for saving and restoring.</summary>
    internal int AnswersOut
    {
        get => _answersOut;
        set => _answersOut = value;
    }

    /// <summary>
    /// Reduces every entry of the homes that are here to what the home itself has: a copy of some version, or none.
    /// </summary>
    /// <param name="isLost">Whether a node is lost.</param>
    /// <param name="isAnyUserLost">Whether any node is lost that used the region.</param>
    /// <param name="beginsAnew">Whether a recovery was under way, and nothing decided yet: entries are what that has made of them.</param>
    /// <param name="effects">What is to be done.</param>
    public void Begin(Func<NodeId, bool> isLost, bool isAnyUserLost, bool beginsAnew, EffectBuffer effects)
    {
        for (uint e = 0; e < _region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (_region.IsHome(extent)) Reduce(_self, _region, extent, isLost, isAnyUserLost, beginsAnew, effects);
        }
    }

    /// <summary>Reduces the entries of an extent whose home is here to what the home itself has.</summary>
    internal static void Reduce(NodeId self, Region region, ExtentNumber extent, Func<NodeId, bool> isLost, bool isAnyUserLost, bool beginsAnew, EffectBuffer effects)
    {
        for (uint i = 0; region.IsTouched(extent) && i < ExtentNumber.Pages; i++)
        {
            PageNumber page = extent.FirstPage.Plus(i);
            Reduce(ref region.EntryAt(page), page, isLost, isAnyUserLost, beginsAnew, region, self, effects);
        }
    }

    /// <summary>A user of the region says what it has. Its pages have their home here.</summary>
    /// <exception cref="ProtocolViolationException">It contradicts what another has: there would be two writers.</exception>
    public void OnClaim(NodeId node, in Claim claim)
    {
        for (uint i = 0; i < claim.Count; i++) OnClaim(node, claim.Page.Plus(i), claim.Kind, claim.Version);
    }

    /// <summary>Everybody has said what he has: decides each page, and asks for copies that the home needs.</summary>
    /// <param name="effects">What is to be done.</param>
    /// <param name="lost">Gets the pages that nobody has.</param>
    public void Finish(EffectBuffer effects, List<PageNumber> lost)
    {
        IsDecided = true;
        _region.Decide();
        for (uint e = 0; e < _region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!_region.IsHome(extent) || !_region.IsTouched(extent)) continue;
            for (uint i = 0; i < ExtentNumber.Pages; i++)
            {
                PageNumber page = extent.FirstPage.Plus(i);
                ref DirectoryEntry entry = ref _region.EntryAt(page);
                if (entry.State == DirectoryState.Lost && !_thrownAway.Contains(page))
                {
                    TellMirrorOfLoss(in entry, page, effects); // it was lost before, and its mirror may be another one, or may not have heard of it
                    continue;
                }
                Decide(ref entry, page, effects, lost);
                entry.Flags &= ~(DirectoryFlags.OwnerLost | DirectoryFlags.Forwarded);
                if (entry.State is not (DirectoryState.I or DirectoryState.S)) entry.Flags &= ~DirectoryFlags.MirrorLacks; // what the home has does not count
            }
        }
    }

    /// <summary>A copy that was asked for has come, the mirror has one, or a reader knows that it is the owner.</summary>
    internal void OnAnswer(in Message m, EffectBuffer effects)
    {
        if (_answersOut == 0) throw new ProtocolViolationException($"nothing is asked for any more: {m}");
        ref DirectoryEntry entry = ref _region.EntryAt(m.Page);
        if (m.Type == MessageType.MirrorAck)
        {
            entry.Flags &= ~DirectoryFlags.MirrorLacks;
            effects.Touch(_region.Id, m.Page);
            _answersOut--;
            return;
        }
        if (entry.State == DirectoryState.M && entry.Owner == m.Source)
        {
            _answersOut--; // it knows that it is the owner: thawed before, it could give up or write what it takes for one of several copies
            return;
        }
        if ((entry.Flags & DirectoryFlags.Dropped) == 0 || entry.State is not (DirectoryState.I or DirectoryState.S))
        {
            throw new ProtocolViolationException($"it was not recalled: {m}");
        }
        entry.Flags &= ~DirectoryFlags.Dropped;
        if ((m.Flags & MessageFlags.Zero) != 0) entry.Flags |= DirectoryFlags.Zero;
        else entry.Flags &= ~DirectoryFlags.Zero;
        entry.Version = m.Version;
        if ((m.Flags & MessageFlags.NoData) == 0) effects.Add(EffectKind.WriteHome, _region.Id, m.Page);
        effects.Touch(_region.Id, m.Page);
        if (!SendToMirror(ref entry, in m, effects)) _answersOut--;
    }

    private static void Reduce(ref DirectoryEntry entry, PageNumber page, Func<NodeId, bool> isLost, bool isAnyUserLost, bool beginsAnew, Region region,
        NodeId self, EffectBuffer effects)
    {
        if ((entry.Flags & DirectoryFlags.Kept) != 0)
        {
            effects.Add(EffectKind.RestoreKept, region.Id, page);
            effects.Add(EffectKind.ReleaseKept, region.Id, page);
        }
        DirectoryFlags keep = entry.Flags & (DirectoryFlags.Zero | DirectoryFlags.Dropped | DirectoryFlags.OwnerLost | DirectoryFlags.MirrorLacks);
        switch (entry.State)
        {
            case DirectoryState.I or DirectoryState.S when beginsAnew && (entry.Flags & DirectoryFlags.Forwarded) != 0:
                if (isAnyUserLost)
                {
                    keep |= DirectoryFlags.Dropped | DirectoryFlags.OwnerLost; // who had a newer copy, and had not said so yet
                    entry.Version = new PageVersion(uint.MaxValue);
                }
                else
                {
                    keep |= DirectoryFlags.Forwarded;
                }
                break;
            case DirectoryState.I or DirectoryState.S or DirectoryState.I_A:
                break;
            case DirectoryState.I_W or DirectoryState.S_W or DirectoryState.I_AW:
                keep |= DirectoryFlags.MirrorLacks;
                break;
            case DirectoryState.Lost:
                return;
            case DirectoryState.M_A:
                // Nobody has seen what a new owner that is lost may have written: the copy that it was granted from counts.
                entry.Version = entry.Version.Previous();
                if ((entry.Flags & DirectoryFlags.Forwarded) != 0)
                {
                    if (isAnyUserLost) keep |= DirectoryFlags.Dropped | DirectoryFlags.OwnerLost;
                    // A home copy that is still there is from before the former owner's grant, which may never have arrived, or was written under.
                    else if ((keep & DirectoryFlags.Dropped) == 0)
                    {
                        entry.Version = entry.Version.Previous();
                        keep |= DirectoryFlags.Forwarded;
                    }
                }
                else if (entry.Owner == self && region.PageAt(page).State != NodeState.I)
                {
                    // Its frame is what this node itself has of the page. (If it has nothing, the agent was killed between granting and being granted.)
                    keep |= DirectoryFlags.Dropped;
                }
                break;
            default:
                if (isLost(entry.Owner))
                {
                    keep |= DirectoryFlags.Dropped | DirectoryFlags.OwnerLost;
                    break;
                }
                if ((keep & DirectoryFlags.Dropped) != 0) break;
                if (entry.State != DirectoryState.M) entry.Version = entry.Version.Previous(); // the home copy is from before the grant
                keep |= DirectoryFlags.Forwarded;
                break;
        }
        if ((keep & DirectoryFlags.Dropped) != 0) keep &= ~DirectoryFlags.Zero;
        entry.State = DirectoryState.I;
        entry.Flags = keep;
        entry.Owner = NodeId.None;
        entry.ClearSharers();
    }

    private void OnClaim(NodeId node, PageNumber page, ClaimKind kind, PageVersion version)
    {
        if (!_region.IsHome(page.Extent)) throw new ProtocolViolationException($"{node} claims {page} of {_region.Id}, whose home is not here");
        ref DirectoryEntry entry = ref _region.EntryAt(page);
        switch (kind)
        {
            case ClaimKind.Modified:
                if (entry.State != DirectoryState.I) ThrowTwo(node, page, kind, in entry);
                entry.State = DirectoryState.M;
                entry.Owner = node;
                entry.Version = version;
                break;
            case ClaimKind.Owned:
                if (!entry.Owner.IsNone) ThrowTwo(node, page, kind, in entry);
                entry.State = DirectoryState.O;
                entry.Owner = node;
                entry.Version = version;
                break;
            case ClaimKind.Shared:
                if (entry.State is DirectoryState.M or DirectoryState.Lost) ThrowTwo(node, page, kind, in entry);
                if (entry.State != DirectoryState.O)
                {
                    entry.State = DirectoryState.S;
                    bool isOlder = version.Value > entry.Version.Value; // a mirror that was not told of the last owner
                    if (isOlder || (entry.Flags & DirectoryFlags.Dropped) != 0)
                    {
                        entry.Flags = (entry.Flags | DirectoryFlags.Dropped) & ~DirectoryFlags.Zero;
                        entry.Version = version;
                        _readers[page] = _readers.TryGetValue(page, out (NodeId First, bool) known) ? (known.First, true) : (node, false);
                    }
                }
                entry.AddSharer(node);
                break;
            case ClaimKind.Kept:
                if (!_kept.TryGetValue(page, out (NodeId, PageVersion Version) best) || version.Value > best.Version.Value) _kept[page] = (node, version);
                break;
            case ClaimKind.ThrownAway:
                _thrownAway.Add(page);
                break;
        }
    }

    private void Decide(ref DirectoryEntry entry, PageNumber page, EffectBuffer effects, List<PageNumber> lost)
    {
        Message cause = new() { Region = _region.Id, Page = page, Count = 1, Generation = _region.Generation, Source = _self, Requestor = _self };
        bool hasCopy = (entry.Flags & DirectoryFlags.Dropped) == 0;
        switch (entry.State)
        {
            case DirectoryState.M or DirectoryState.O:
                // Guests here may read what the owner has, in the same frame.
                bool isInUse = _region.IsOpen(page.Extent) && NodeStates.MayRead(_region.PageAt(page).State);
                if (hasCopy && !isInUse) effects.Add(EffectKind.DropHome, _region.Id, page);
                entry.Flags = (entry.Flags | DirectoryFlags.Dropped) & ~DirectoryFlags.Zero;
                break;
            case DirectoryState.S when hasCopy:
                Complete(ref entry, in cause, effects);
                break;
            case DirectoryState.S:
                (NodeId reader, bool areSeveral) = _readers[page];
                if (areSeveral)
                {
                    Ask(reader, MessageType.Recall, in cause, entry.Version, effects);
                    _answersOut++;
                    break;
                }
                // It has the only copy that is left: that one is spared a journey.
                entry.State = DirectoryState.M;
                entry.Owner = reader;
                entry.Version = entry.Version.Next();
                entry.ClearSharers();
                Ask(reader, MessageType.Promote, in cause, entry.Version, effects);
                _answersOut++;
                break;
            case DirectoryState.I or DirectoryState.Lost when _thrownAway.Contains(page):
                entry.State = DirectoryState.I;
                entry.Version = entry.Version.Value == uint.MaxValue ? new PageVersion(1) : entry.Version.Next();
                entry.Flags = DirectoryFlags.Zero | DirectoryFlags.MirrorLacks;
                effects.Add(EffectKind.DropHome, _region.Id, page);
                Complete(ref entry, in cause, effects);
                break;
            // Of two copies of one version the kept one is no older; and the mirror may lack the home's.
            case DirectoryState.I when _kept.TryGetValue(page, out (NodeId Node, PageVersion Version) kept) && kept.Version.Value >= entry.Version.Value:
                entry.Flags |= DirectoryFlags.Dropped;
                entry.Version = kept.Version; // if its keeper is lost before it has answered, no older copy is to come in its place
                Ask(kept.Node, MessageType.Recall, in cause, kept.Version, effects);
                _answersOut++;
                break;
            case DirectoryState.I when hasCopy:
                Complete(ref entry, in cause, effects);
                break;
            default:
                entry.State = DirectoryState.Lost;
                if (entry.Version.Value == uint.MaxValue) entry.Version = default; // thrown away, it begins anew
                effects.Add(EffectKind.DropHome, _region.Id, page);
                TellMirrorOfLoss(in entry, page, effects);
                lost.Add(page);
                break;
        }
    }

    /// <summary>The home copy is good. What was on its way to the mirror when the region was frozen goes there again.</summary>
    private void Complete(ref DirectoryEntry entry, in Message cause, EffectBuffer effects)
    {
        if ((entry.Flags & DirectoryFlags.MirrorLacks) == 0) return;
        if (SendToMirror(ref entry, in cause, effects)) _answersOut++;
    }

    /// <summary>Sends the home copy to the mirror, which lacks it until it has said that it has it: another recovery may begin before that.</summary>
    /// <returns>Whether there is a mirror.</returns>
    private bool SendToMirror(ref DirectoryEntry entry, in Message cause, EffectBuffer effects)
    {
        bool isMirrored = HomeController.TryMirror(_self, _region, in entry, in cause, _self, effects);
        if (isMirrored) entry.Flags |= DirectoryFlags.MirrorLacks;
        else entry.Flags &= ~DirectoryFlags.MirrorLacks;
        return isMirrored;
    }

    /// <summary>What a mirror has of a lost page is older than what was lost: it must not come back if the home is lost as well.</summary>
    private void TellMirrorOfLoss(in DirectoryEntry entry, PageNumber page, EffectBuffer effects)
    {
        Message cause = new() { Region = _region.Id, Page = page, Count = 1, Generation = _region.Generation, Source = _self, Requestor = _self };
        if (HomeController.TryMirror(_self, _region, in entry, in cause, _self, effects)) _answersOut++;
    }

    private static void Ask(NodeId node, MessageType type, in Message cause, PageVersion version, EffectBuffer effects)
    {
        Message message = cause;
        message.Type = type;
        message.Version = version;
        effects.AddSend(node, DataSource.None, in message);
    }

    private void ThrowTwo(NodeId node, PageNumber page, ClaimKind kind, in DirectoryEntry entry) =>
        throw new ProtocolViolationException($"{node} claims {page} of {_region.Id} as {kind}, but it is {entry.State} of {entry.Owner} already");
}
