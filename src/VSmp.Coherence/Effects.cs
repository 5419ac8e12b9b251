// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Messages;

namespace VSmp.Coherence;

/// <summary>What a protocol step wants done to the world, in order.</summary>
public enum EffectKind : byte
{
    /// <summary>Send <see cref="Effect.Message"/> to <see cref="Effect.To"/>; its data come from <see cref="Effect.Source"/>.</summary>
    Send,

    /// <summary>Put the data of the message being handled into the frame (zeros, or nothing, as its flags say); do not map.</summary>
    WriteFrame,

    /// <summary>As <see cref="WriteFrame"/>, then map read-only for whoever waits; accesses that wait are tried again.</summary>
    InstallReadable,

    /// <summary>As <see cref="WriteFrame"/>, then map writable for whoever waits; accesses that wait are tried again.</summary>
    InstallWritable,

    /// <summary>The frame has the contents already: lift its write-protection; accesses that wait are tried again.</summary>
    MakeWritable,

    /// <summary>Take the right to write away from every local mapping.</summary>
    WriteProtect,

    /// <summary>Copy the frame, which nobody can write any more, to where it is kept until an acknowledgement comes.</summary>
    Keep,

    /// <summary>As <see cref="Keep"/>, in place of the copy that is kept already, which nobody will ask for any more.</summary>
    KeepInstead,

    /// <summary>Keep zeros: the contents are being thrown away.</summary>
    KeepZero,

    /// <summary>Take the page away from every local mapping and free its frame.</summary>
    Unmap,

    /// <summary>The kept copy is not needed any more.</summary>
    ReleaseKept,

    /// <summary>Home: put the data of the message being handled into the home copy (zeros mean: free its frame).</summary>
    WriteHome,

    /// <summary>Home: the home copy is stale or zero: free its frame. Its space stays reserved.</summary>
    DropHome,

    /// <summary>A transaction has ended without a mapping: accesses and operations that wait are tried again.</summary>
    Complete,

    /// <summary>A page was not thrown away because others use it.</summary>
    DiscardRefused,

    /// <summary>Copy the frame, which nobody can write yet, to the page's twin.</summary>
    MakeTwin,

    /// <summary>The page's twin is not needed any more.</summary>
    DropTwin,

    /// <summary>Home: the copy that is kept is the home copy again: put it into the frame. It stays kept.</summary>
    RestoreKept,

    /// <summary>The page is lost: whoever waits for it, or touches it later, is to be told so by a signal.</summary>
    Poison,

    /// <summary>Home: write the runs of the diff being handled into the home copy, and nothing else (<see cref="Lazy.PageDiff"/>).</summary>
    MergeDiff,

    /// <summary>Nothing, but that what is known of the page has changed: it is to be recorded (<see cref="Recovery.PageRecords"/>).</summary>
    Record,
}

/// <summary>Where the data of a message to be sent are.</summary>
public enum DataSource : byte
{
    /// <summary>It carries none.</summary>
    None,
    /// <summary>In the frame file.</summary>
    Frame,
    /// <summary>In the kept copy.</summary>
    Kept,
    /// <summary>What differs between the frame file and the page's twin.</summary>
    Diff,
}

/// <summary>One thing to be done to <see cref="Count"/> pages from <see cref="Page"/> on.</summary>
public struct Effect
{
    /// <summary>What.</summary>
    public EffectKind Kind;
    /// <summary>Send: the data.</summary>
    public DataSource Source;
    /// <summary>Send: the receiver.</summary>
    public NodeId To;
    /// <summary>Region, page and count of any effect; of Send, the message.</summary>
    public Message Message;

    /// <summary>The region.</summary>
    public readonly RegionId Region => Message.Region;
    /// <summary>The first page.</summary>
    public readonly PageNumber Page => Message.Page;
    /// <summary>How many pages.</summary>
    public readonly uint Count => Message.Count;

    /// <inheritdoc/>
    public override readonly string ToString() => Kind == EffectKind.Send ? $"Send to {To} ({Source}): {Message}" : $"{Kind} {Page}+{Count}";
}

/// <summary>
/// The effects of one step, in a buffer that is allocated once. Effects on neighbouring pages are merged into runs where that
/// changes the order of effects on different pages only: effects on one page are never reordered.
/// </summary>
public sealed class EffectBuffer
{
    private const int LookBack = 6;

    private Effect[] _effects = new Effect[1024];

    /// <summary>How many there are.</summary>
    public int Count { get; private set; }

    /// <summary>The effect at a position.</summary>
    public ref readonly Effect this[int index] => ref _effects[index];

    /// <summary>Forgets all.</summary>
    public void Clear() => Count = 0;

    /// <summary>Adds a local effect on a page.</summary>
    public void Add(EffectKind kind, RegionId region, PageNumber page)
    {
        for (int i = Count - 1; i >= 0 && i >= Count - LookBack; i--)
        {
            ref Effect earlier = ref _effects[i];
            if (earlier.Kind == kind && earlier.Region == region && earlier.Page.Value + earlier.Count == page.Value)
            {
                earlier.Message.Count++;
                return;
            }
            if (Covers(in earlier, region, page.Value, 1)) break; // what was asked of this page before must happen before
        }
        ref Effect effect = ref Append();
        effect.Kind = kind;
        effect.Message.Region = region;
        effect.Message.Page = page;
        effect.Message.Count = 1;
    }

    /// <summary>What is known of a page has changed: there is at least one effect on it.</summary>
    public void Touch(RegionId region, PageNumber page)
    {
        for (int i = Count - 1; i >= 0 && i >= Count - LookBack; i--)
        {
            if (Covers(in _effects[i], region, page.Value, 1)) return;
        }
        Add(EffectKind.Record, region, page);
    }

    /// <summary>Adds the sending of a message.</summary>
    public void AddSend(NodeId to, DataSource source, in Message message)
    {
        for (int i = Count - 1; i >= 0 && i >= Count - LookBack; i--)
        {
            ref Effect earlier = ref _effects[i];
            if (source == DataSource.Diff) break; // a frame has room for one, of any length
            if (earlier.Kind != EffectKind.Send || !Continues(in earlier, to, source, in message)) continue;
            if (IsUntouchedFrom(i + 1, in message))
            {
                // Nothing that was asked since is about the later page: it may as well go with the earlier one.
                earlier.Message.Count += message.Count;
                return;
            }
            if (IsFollowedByOther(i)) break;
            // The run goes to the end, so that whatever must precede the sending of the later page still does.
            Effect run = earlier;
            run.Message.Count += message.Count;
            Array.Copy(_effects, i + 1, _effects, i, Count - 1 - i);
            _effects[Count - 1] = run;
            return;
        }
        ref Effect effect = ref Append();
        effect.Kind = EffectKind.Send;
        effect.To = to;
        effect.Source = source;
        effect.Message = message;
    }

    private static bool Covers(in Effect effect, RegionId region, ulong page, uint count) =>
        effect.Region == region && effect.Page.Value < page + count && page < effect.Page.Value + effect.Count;

    private bool IsUntouchedFrom(int index, in Message message)
    {
        for (int i = index; i < Count; i++)
        {
            if (Covers(in _effects[i], message.Region, message.Page.Value, message.Count)) return false;
        }
        return true;
    }

    /// <summary>
    /// Whether a later effect, other than a sending to another node, is about pages of an effect: then that cannot be moved behind it.
    /// </summary>
    private bool IsFollowedByOther(int index)
    {
        ref Effect moved = ref _effects[index];
        for (int i = index + 1; i < Count; i++)
        {
            ref Effect later = ref _effects[i];
            bool isElsewhere = later.Kind == EffectKind.Send && later.To != moved.To;
            if (!isElsewhere && Covers(in later, moved.Region, moved.Page.Value, moved.Count)) return true;
        }
        return false;
    }

    private static bool Continues(in Effect earlier, NodeId to, DataSource source, in Message message)
    {
        ref readonly Message m = ref earlier.Message;
        uint limit = source == DataSource.None ? ExtentNumber.Pages : (uint)FrameHeader.MaxPages;
        return earlier.To == to && earlier.Source == source && m.Type == message.Type && m.Flags == message.Flags
            && m.Region == message.Region && m.Page.Value + m.Count == message.Page.Value && m.Count + message.Count <= limit
            && m.Requestor == message.Requestor && m.AckCount == message.AckCount && m.Transaction == message.Transaction
            && m.Version == message.Version;
    }

    private ref Effect Append()
    {
        if (Count == _effects.Length) Array.Resize(ref _effects, Count * 2); // happens a few times in a life
        ref Effect effect = ref _effects[Count++];
        effect = default;
        return ref effect;
    }
}
