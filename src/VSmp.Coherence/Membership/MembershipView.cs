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
/// One generation of the membership, immutable. The coordinator makes the next one; the others adopt what it announces.
/// </summary>
public sealed class MembershipView
{
    /// <summary>Most members: their list fits into one frame.</summary>
    public const int MaxMembers = 512;

    private readonly Member[] _members;
    private readonly int _nextId;

    private MembershipView(Epoch epoch, ViewNumber number, Member[] members, int nextId)
    {
        Epoch = epoch;
        Number = number;
        _members = members;
        _nextId = nextId;
    }

    /// <summary>The node that founds a cluster coordinates it.</summary>
    public static NodeId Coordinator => new(0);

    /// <summary>The cluster's life.</summary>
    public Epoch Epoch { get; }

    /// <summary>Which generation this is.</summary>
    public ViewNumber Number { get; }

    /// <summary>The members, by ascending number.</summary>
    public IReadOnlyList<Member> Members => _members;

    /// <summary>The first view: the founder alone.</summary>
    public static MembershipView Found(Epoch epoch, string name, IPEndPoint address, ulong contributedBytes) =>
        new(epoch, new ViewNumber(1), [new Member(Coordinator, name, address, contributedBytes)], 1);

    /// <summary>A view that was announced.</summary>
    /// <returns>Null if it cannot be one: no members, not in ascending order, a name twice.</returns>
    public static MembershipView? FromAnnouncement(Epoch epoch, ViewNumber number, IReadOnlyList<Member> members)
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
        return new MembershipView(epoch, number, [.. members], last + 1);
    }

    /// <summary>The member of that number, or null.</summary>
    public Member? Find(NodeId id) => Array.Find(_members, member => member.Id == id);

    /// <summary>The member of that name, or null.</summary>
    public Member? Find(string name) =>
        Array.Find(_members, member => string.Equals(member.Name, name, StringComparison.Ordinal));

    /// <summary>The next view, with one more member. Coordinator only.</summary>
    public AdmissionError TryAdmit(string name, IPEndPoint address, ulong contributedBytes, out MembershipView next)
    {
        next = this;
        if (!Member.IsName(name)) return AdmissionError.BadName;
        if (Find(name) is not null) return AdmissionError.NameTaken;
        if (_members.Length == MaxMembers || _nextId >= NodeId.None.Value) return AdmissionError.Full;
        var member = new Member(new NodeId((ushort)_nextId), name, address, contributedBytes);
        next = new MembershipView(Epoch, NextNumber(), [.. _members, member], _nextId + 1);
        return AdmissionError.None;
    }

    /// <summary>The next view, without that member; this one if it is not a member. Coordinator only.</summary>
    public MembershipView Without(NodeId id) => Find(id) is null
        ? this
        : new MembershipView(Epoch, NextNumber(), Array.FindAll(_members, member => member.Id != id), _nextId);

    /// <summary>
    /// Whether a member that has this view may go over to another: later, of the same epoch, with no number given to another
    /// node,
    /// and none that has been gone before.
    /// </summary>
    public bool CanBeFollowedBy(MembershipView next)
    {
        if (next.Epoch != Epoch || next.Number.Value <= Number.Value) return false;
        foreach (Member member in next._members)
        {
            if (Find(member.Id) is { } known ? known != member : member.Id.Value < _nextId) return false;
        }
        return true;
    }

    private ViewNumber NextNumber() => new(checked(Number.Value + 1));
}
