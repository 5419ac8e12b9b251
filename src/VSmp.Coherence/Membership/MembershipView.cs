// SPDX-License-Identifier: Apache-2.0
using System.Net;

namespace VSmp.Coherence.Membership;

/// <summary>Why a node was not admitted.</summary>
public enum AdmissionError
{
    /// <summary>It was.</summary>
    None = 0,
    /// <summary>A member has that name.</summary>
    NameTaken,
    /// <summary>There are as many members as there can be, or all numbers have been used.</summary>
    Full,
    /// <summary>The name is none.</summary>
    BadName,
}

/// <summary>
/// One generation of the membership, immutable. Each is made from the one before it, by one step: a member more, a member less, a member whose
/// agent was restarted, or the same members. So majorities of two that follow each other have a member in common.
/// </summary>
public sealed class MembershipView
{
    /// <summary>Most members: their list fits into one frame.</summary>
    public const int MaxMembers = 512;

    private readonly Member[] _members;

    private MembershipView(Epoch epoch, ViewNumber number, Member[] members, int nextId)
    {
        Epoch = epoch;
        Number = number;
        _members = members;
        NextId = nextId;
    }

    /// <summary>The node that founds a cluster coordinates it.</summary>
    public static NodeId Coordinator => new(0);

    /// <summary>The cluster's life.</summary>
    public Epoch Epoch { get; }

    /// <summary>Which generation this is.</summary>
    public ViewNumber Number { get; }

    /// <summary>The members, by ascending number.</summary>
    public IReadOnlyList<Member> Members => _members;

    /// <summary>The number of the next node that joins; those below have been given, perhaps to nodes that are gone.</summary>
    public int NextId { get; }

    /// <summary>The first view: the founder alone.</summary>
    public static MembershipView Found(Epoch epoch, string name, IPEndPoint address, ulong contributedBytes) =>
        new(epoch, new ViewNumber(1), [new Member(Coordinator, name, address, contributedBytes)], 1);

    /// <summary>A view that the coordinator announced; the coordinator alone knows which numbers have been given.</summary>
    /// <returns>Null if it cannot be one: no members, not in ascending order, a name twice.</returns>
    public static MembershipView? FromAnnouncement(Epoch epoch, ViewNumber number, IReadOnlyList<Member> members) =>
        FromRecord(epoch, number, members, members.Count == 0 ? 0 : members[^1].Id.Value + 1);

    /// <summary>A view as the store has it.</summary>
    /// <returns>Null if it cannot be one: no members, not in ascending order, a name twice, a number that has not been given.</returns>
    public static MembershipView? FromRecord(Epoch epoch, ViewNumber number, IReadOnlyList<Member> members, int nextId)
    {
        if (number.Value == 0 || members.Count is 0 or > MaxMembers) return null;
        var names = new HashSet<string>(StringComparer.Ordinal);
        int last = -1;
        foreach (Member member in members)
        {
            if (member.Id.IsNone || member.Id.Value <= last) return null;
            if (!Member.IsName(member.Name) || !names.Add(member.Name)) return null;
            last = member.Id.Value;
        }
        return nextId > last && nextId <= NodeId.None.Value ? new MembershipView(epoch, number, [.. members], nextId) : null;
    }

    /// <summary>The member of that number, or null.</summary>
    public Member? Find(NodeId id) => Array.Find(_members, member => member.Id == id);

    /// <summary>The member of that name, or null.</summary>
    public Member? Find(string name) =>
        Array.Find(_members, member => string.Equals(member.Name, name, StringComparison.Ordinal));

    /// <summary>The next view, with one more member.</summary>
    public AdmissionError TryAdmit(string name, IPEndPoint address, ulong contributedBytes, out MembershipView next)
    {
        next = this;
        if (!Member.IsName(name)) return AdmissionError.BadName;
        if (Find(name) is not null) return AdmissionError.NameTaken;
        if (_members.Length == MaxMembers || NextId >= NodeId.None.Value) return AdmissionError.Full;
        var member = new Member(new NodeId((ushort)NextId), name, address, contributedBytes);
        next = new MembershipView(Epoch, NextNumber(), [.. _members, member], NextId + 1);
        return AdmissionError.None;
    }

    /// <summary>The next view, without that member; this one if it is not a member.</summary>
    public MembershipView Without(NodeId id) => Find(id) is null
        ? this
        : new MembershipView(Epoch, NextNumber(), Array.FindAll(_members, member => member.Id != id), NextId);

    /// <summary>The next view, with the same members: what was voted in this one is void.</summary>
    public MembershipView Renewed() => new(Epoch, NextNumber(), _members, NextId);

    /// <summary>The next view, in which a member's agent has been restarted once more; this one if it is not a member.</summary>
    public MembershipView WithRestarted(NodeId id) => Find(id) is null
        ? this
        : new MembershipView(Epoch, NextNumber(),
            Array.ConvertAll(_members, m => m.Id == id ? m with { Incarnation = checked(m.Incarnation + 1) } : m), NextId);

    /// <summary>
    /// Whether a member that has this view may go over to another: later, of the same epoch, with no number given to another
    /// node, none that has been gone before, and no agent that was there before a later one of its node.
    /// </summary>
    public bool CanBeFollowedBy(MembershipView next)
    {
        if (next.Epoch != Epoch || next.Number.Value <= Number.Value) return false;
        foreach (Member member in next._members)
        {
            if (Find(member.Id) is not { } known)
            {
                if (member.Id.Value < NextId) return false;
            }
            else if (member.Incarnation < known.Incarnation || known != member with { Incarnation = known.Incarnation })
            {
                return false;
            }
        }
        return true;
    }

    private ViewNumber NextNumber() => new(checked(Number.Value + 1));
}
