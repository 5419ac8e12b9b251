// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Membership;

/// <summary>What a step of a <see cref="MembershipMachine"/> wants done, in order.</summary>
public enum MembershipEffectKind : byte
{
    /// <summary>Send <see cref="MembershipEffect.Heartbeat"/> to <see cref="MembershipEffect.Node"/>, at once or not at all.</summary>
    SendHeartbeat,

    /// <summary>
    /// Replace the record by <see cref="MembershipEffect.View"/> if its revision is still <see cref="MembershipEffect.Revision"/>. Answer with
    /// <see cref="MembershipMachine.OnRecord"/>, <see cref="MembershipMachine.OnSwapLost"/> or, if it is not known what became of it,
    /// <see cref="MembershipMachine.OnStoreAway"/>.
    /// </summary>
    Propose,

    /// <summary>
    /// Read the record, from <see cref="MembershipEffect.Node"/> who has a newer one, or from the store if that is none (or if the node does not
    /// answer). Answer with <see cref="MembershipMachine.OnRecord"/>.
    /// </summary>
    AskRecord,

    /// <summary>This node stands in <see cref="MembershipEffect.View"/> now.</summary>
    Adopt,

    /// <summary><see cref="MembershipEffect.Node"/> is no member any more and its guests are stopped: what it was home of may be re-homed.</summary>
    Excluded,

    /// <summary>The agent of <see cref="MembershipEffect.Node"/> is another one: its transactions are void, its data are not.</summary>
    Restarted,

    /// <summary>This node is no member any more, or another agent has its number. Nothing follows.</summary>
    Expelled,

    /// <summary>This node's guests may run until <see cref="MembershipEffect.Ticks"/> by its clock; later than any time told before.</summary>
    LeaseUntil,

    /// <summary>The lease has run out: guests are stopped until the next <see cref="LeaseUntil"/>.</summary>
    LeaseRanOut,

    /// <summary>For the log: <see cref="MembershipEffect.Node"/> is suspected.</summary>
    Suspects,

    /// <summary>For the log: <see cref="MembershipEffect.Node"/> is not suspected any more.</summary>
    Unsuspects,
}

/// <summary>One thing to be done.</summary>
public struct MembershipEffect
{
    /// <summary>What.</summary>
    public MembershipEffectKind Kind;
    /// <summary>The node that it is about or goes to.</summary>
    public NodeId Node;
    /// <summary>Propose, Adopt: the view.</summary>
    public MembershipView? View;
    /// <summary>Propose: the revision that the record must have.</summary>
    public long Revision;
    /// <summary>LeaseUntil: the time.</summary>
    public long Ticks;
    /// <summary>SendHeartbeat: what to send.</summary>
    public Heartbeat Heartbeat;

    /// <inheritdoc/>
    public override readonly string ToString() => Kind switch
    {
        MembershipEffectKind.Propose or MembershipEffectKind.Adopt => $"{Kind} view {View!.Number.Value}",
        MembershipEffectKind.LeaseUntil => $"{Kind} {Ticks}",
        _ => $"{Kind} {Node}",
    };
}

/// <summary>The effects of one step, in a buffer that is used again.</summary>
public sealed class MembershipEffects
{
    private MembershipEffect[] _effects = new MembershipEffect[16];

    /// <summary>How many there are.</summary>
    public int Count { get; private set; }

    /// <summary>The effect at a position.</summary>
    public ref readonly MembershipEffect this[int index] => ref _effects[index];

    /// <summary>Forgets all.</summary>
    public void Clear() => Count = 0;

    internal ref MembershipEffect Add(MembershipEffectKind kind, NodeId node)
    {
        if (Count == _effects.Length) Array.Resize(ref _effects, Count * 2);
        ref MembershipEffect effect = ref _effects[Count++];
        effect = default;
        effect.Kind = kind;
        effect.Node = node;
        return ref effect;
    }
}
