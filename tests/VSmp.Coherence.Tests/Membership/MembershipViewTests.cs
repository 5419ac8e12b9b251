// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Coherence.Membership;
using Xunit;

namespace VSmp.Coherence.Tests.Membership;

/// <summary>Views follow each other by one rule, whoever applies it.</summary>
public sealed class MembershipViewTests
{
    private static readonly IPEndPoint Address = new(IPAddress.Loopback, 4000);
    private static readonly Epoch Epoch7 = new(7);

    [Fact]
    public void Numbers_are_given_in_turn_and_never_again()
    {
        MembershipView view = MembershipView.Found(Epoch7, "a", Address, 1);
        Assert.Equal((1u, 1), (view.Number.Value, view.Members.Count));
        view = Admit(view, "b");
        view = Admit(view, "c");
        view = view.Without(new NodeId(2));
        view = Admit(view, "c");
        Assert.Equal([0, 1, 3], view.Members.Select(member => (int)member.Id.Value));
        Assert.Equal(5u, view.Number.Value);
        Assert.Null(view.Find(new NodeId(2)));
        Assert.Equal(new NodeId(3), view.Find("c")!.Id);
    }

    [Fact]
    public void A_name_twice_a_name_that_is_none_and_one_node_too_many_are_not_admitted()
    {
        MembershipView view = MembershipView.Found(Epoch7, "a", Address, 1);
        Assert.Equal(AdmissionError.NameTaken, view.TryAdmit("a", Address, 1, out MembershipView same));
        Assert.Same(view, same);
        Assert.Equal(AdmissionError.BadName, view.TryAdmit("-a", Address, 1, out _));
        Assert.Equal(AdmissionError.BadName, view.TryAdmit(new string('x', 64), Address, 1, out _));
        for (int i = 1; i < MembershipView.MaxMembers; i++) view = Admit(view, $"n{i}");
        Assert.Equal(AdmissionError.Full, view.TryAdmit("late", Address, 1, out _));
    }

    [Fact]
    public void Numbers_run_out_rather_than_come_again()
    {
        MembershipView view = MembershipView.Found(Epoch7, "a", Address, 1);
        for (int i = 1; i < NodeId.None.Value; i++) view = Admit(view, "b").Without(new NodeId((ushort)i));
        Assert.Equal(AdmissionError.Full, view.TryAdmit("b", Address, 1, out _));
    }

    [Fact]
    public void Removing_who_is_no_member_changes_nothing()
    {
        MembershipView view = MembershipView.Found(Epoch7, "a", Address, 1);
        Assert.Same(view, view.Without(new NodeId(9)));
    }

    [Fact]
    public void A_view_follows_only_an_earlier_one_of_its_epoch_that_it_does_not_contradict()
    {
        MembershipView one = Admit(MembershipView.Found(Epoch7, "a", Address, 1), "b");
        MembershipView two = Admit(one, "c");
        MembershipView three = two.Without(new NodeId(1));
        Assert.True(one.CanBeFollowedBy(two));
        Assert.True(one.CanBeFollowedBy(three));
        Assert.False(two.CanBeFollowedBy(one));
        Assert.False(two.CanBeFollowedBy(two));
        Assert.False(three.CanBeFollowedBy(Announce(4, Epoch7, one.Members)), "b was gone");
        Assert.False(one.CanBeFollowedBy(Announce(9, new Epoch(8), two.Members)), "another epoch");
        Member impostor = one.Members[1] with { Address = new IPEndPoint(IPAddress.Loopback, 4001) };
        Assert.False(one.CanBeFollowedBy(Announce(9, Epoch7, [one.Members[0], impostor])), "b changed its address");
    }

    [Fact]
    public void An_agent_that_was_restarted_is_the_same_member_in_a_later_incarnation()
    {
        MembershipView one = Admit(MembershipView.Found(Epoch7, "a", Address, 1), "b");
        MembershipView two = one.WithRestarted(new NodeId(1));
        Assert.Equal((one.Number.Value + 1, 0u, 1u), (two.Number.Value, two.Members[0].Incarnation, two.Members[1].Incarnation));
        Assert.True(one.CanBeFollowedBy(two));
        Assert.False(two.CanBeFollowedBy(Announce(9, Epoch7, one.Members)), "an agent that was there before");
        Assert.Same(one, one.WithRestarted(new NodeId(5)));
    }

    [Fact]
    public void A_renewed_view_has_another_number_and_the_same_members()
    {
        MembershipView one = Admit(MembershipView.Found(Epoch7, "a", Address, 1), "b");
        MembershipView two = one.Renewed();
        Assert.Equal(one.Number.Value + 1, two.Number.Value);
        Assert.Equal(one.Members, two.Members);
        Assert.True(one.CanBeFollowedBy(two));
    }

    [Fact]
    public void A_record_knows_which_numbers_have_been_given()
    {
        MembershipView view = Admit(MembershipView.Found(Epoch7, "a", Address, 1), "b").Without(new NodeId(1));
        MembershipView read = MembershipView.FromRecord(Epoch7, view.Number, view.Members, view.NextId)!;
        Assert.Equal(new NodeId(2), Admit(read, "c").Find("c")!.Id);
        Assert.Null(MembershipView.FromRecord(Epoch7, view.Number, view.Members, 0));
        Assert.Null(MembershipView.FromRecord(Epoch7, view.Number, view.Members, NodeId.None.Value + 1));
    }

    [Fact]
    public void What_cannot_be_a_view_is_none()
    {
        IReadOnlyList<Member> good = Admit(MembershipView.Found(Epoch7, "a", Address, 1), "b").Members;
        Assert.NotNull(MembershipView.FromAnnouncement(Epoch7, new ViewNumber(2), good));
        Assert.Null(MembershipView.FromAnnouncement(Epoch7, new ViewNumber(0), good));
        Assert.Null(MembershipView.FromAnnouncement(Epoch7, new ViewNumber(2), []));
        Assert.Null(MembershipView.FromAnnouncement(Epoch7, new ViewNumber(2), [good[1], good[0]]));
        Assert.Null(MembershipView.FromAnnouncement(Epoch7, new ViewNumber(2), [good[0], good[0]]));
        Assert.Null(MembershipView.FromAnnouncement(Epoch7, new ViewNumber(2), [good[0], good[1] with { Name = "a" }]));
        Assert.Null(MembershipView.FromAnnouncement(Epoch7, new ViewNumber(2), [good[0], good[1] with { Id = NodeId.None }]));
    }

    [Fact]
    public void The_largest_list_of_members_fits_into_a_frame_and_reads_as_it_was_written()
    {
        MembershipView view = MembershipView.Found(Epoch7, new string('a', 63), new IPEndPoint(IPAddress.IPv6Loopback, 65535),
            ulong.MaxValue);
        for (int i = 1; i < MembershipView.MaxMembers; i++)
        {
            string name = $"{i}-".PadRight(Member.MaxNameLength, 'x');
            Assert.Equal(AdmissionError.None, view.TryAdmit(name, new IPEndPoint(IPAddress.IPv6Loopback, i), 1, out view));
        }
        view = view.WithRestarted(new NodeId(7)).WithRestarted(new NodeId(7));
        byte[] bytes = new byte[MemberList.MaxBytes];
        int written = MemberList.Write(bytes, view.Members);
        Assert.InRange(written, 1, Messages.FrameHeader.MaxPayloadBytes);
        Assert.Equal(view.Members, MemberList.Read(bytes.AsSpan(0, written)));
        Assert.Null(MemberList.Read(bytes.AsSpan(0, written - 1)));
        Assert.Null(MemberList.Read([.. bytes[..written], 0]));
    }

    [Fact]
    public void A_list_of_members_has_every_field_where_the_format_says()
    {
        byte[] bytes = new byte[MemberList.MaxBytes];
        int written = MemberList.Write(bytes, [new Member(new NodeId(0x0201), "ab", new IPEndPoint(IPAddress.Loopback, 0x2221), 0x1817161514131211, 0x34333231)]);
        Assert.Equal("0100" + "0102" + "31323334" + "1112131415161718" + "2122" + "04" + "7F000001" + "02" + "6162", Convert.ToHexString(bytes.AsSpan(0, written)));
    }

    private static MembershipView Admit(MembershipView view, string name)
    {
        Assert.Equal(AdmissionError.None, view.TryAdmit(name, Address, 1, out MembershipView next));
        return next;
    }

    private static MembershipView Announce(uint number, Epoch epoch, IReadOnlyList<Member> members) =>
        MembershipView.FromAnnouncement(epoch, new ViewNumber(number), members)!;
}
