// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Coherence.Membership;
using Xunit;

namespace VSmp.Coherence.Tests.Membership;

/// <summary>Heartbeats and records as bytes.</summary>
public sealed class MembershipFormatTests
{
    [Fact]
    public void A_heartbeat_reads_as_it_was_written()
    {
        Heartbeat written = Any();
        byte[] bytes = Bytes(written);
        Assert.True(HeartbeatFormat.TryRead(bytes, out Heartbeat read));
        Assert.Equal((written.View, written.Incarnation, written.Flags), (read.View, read.Incarnation, read.Flags));
        Assert.Equal((written.SentTicks, written.AcknowledgedTicks), (read.SentTicks, read.AcknowledgedTicks));
        for (int place = 0; place < MembershipView.MaxMembers; place++) Assert.Equal(written.VotedOut.Contains(place), read.VotedOut.Contains(place));
        written.AcknowledgedTicks = Heartbeat.NoTicks;
        Assert.True(HeartbeatFormat.TryRead(Bytes(written), out read));
        Assert.Equal(Heartbeat.NoTicks, read.AcknowledgedTicks);
    }

    [Fact]
    public void A_heartbeats_bytes_are_frozen() => Assert.Equal(
        "0700000003000000" + "D204000000000000" + "E803000000000000" + "03" + "00000000000000" + "0A" + new string('0', 124) + "80",
        Convert.ToHexString(Bytes(Any())));

    [Theory]
    [InlineData(0, 0)] // no view
    [InlineData(15, 0x80)] // a clock before the host was started
    [InlineData(15, 0x7F)] // or after the end of time
    [InlineData(23, 0x7F)]
    [InlineData(23, 0x80)]
    [InlineData(24, 0x08)] // a flag that nobody knows
    [InlineData(31, 1)] // not zero
    public void What_is_no_heartbeat_is_refused(int at, byte value)
    {
        byte[] bytes = Bytes(Any());
        bytes[at] = value;
        Assert.False(HeartbeatFormat.TryRead(bytes, out _));
    }

    [Fact]
    public void A_heartbeat_of_another_length_is_refused()
    {
        byte[] bytes = Bytes(Any());
        Assert.False(HeartbeatFormat.TryRead(bytes.AsSpan(1), out _));
        Assert.False(HeartbeatFormat.TryRead([.. bytes, 0], out _));
        Assert.False(HeartbeatFormat.TryRead([], out _));
    }

    [Fact]
    public void A_record_reads_as_it_was_written_with_the_numbers_that_were_given()
    {
        MembershipView view = Three().Without(new NodeId(2));
        MembershipView read = ViewRecord.Read(ViewRecord.Write(view))!;
        Assert.Equal((view.Epoch, view.Number, view.NextId), (read.Epoch, read.Number, read.NextId));
        Assert.Equal(view.Members, read.Members);
        Assert.True(ViewRecord.MaxBytes < 64 * 1024);
    }

    [Fact]
    public void A_records_bytes_are_frozen() => Assert.Equal(
        "56535657" + "0100" + "0000" + "09000000" + "01000000" + "01000000" + "0100" + "0000" + "00000000" + "0010000000000000" + "9E1B" + "04" + "0A000001" + "05"
        + "616C706861", Convert.ToHexString(ViewRecord.Write(MembershipView.Found(new Epoch(9), "alpha", new IPEndPoint(0x0100000A, 7070), 4096))));

    [Fact]
    public void Damaged_records_are_refused_or_are_other_views_and_never_throw()
    {
        byte[] good = ViewRecord.Write(Three());
        for (int length = 0; length < good.Length; length++) Assert.Null(ViewRecord.Read(good.AsSpan(0, length)));
        Assert.Null(ViewRecord.Read([.. good, 0]));
        int seed = Environment.TickCount;
        Random random = new(seed);
        for (int i = 0; i < 20_000; i++)
        {
            byte[] bad = [.. good];
            for (int flips = random.Next(1, 4); flips > 0; flips--) bad[random.Next(bad.Length)] = (byte)random.Next(256);
            if (ViewRecord.Read(bad) is { } view) Assert.True(view.NextId > view.Members[^1].Id.Value, $"seed {seed}");
        }
        foreach (int at in new[] { 0, 4, 6 })
        {
            byte[] bad = [.. good];
            bad[at] ^= 0x40;
            Assert.Null(ViewRecord.Read(bad));
        }
    }

    private static Heartbeat Any()
    {
        Heartbeat heartbeat = new()
        {
            View = new ViewNumber(7),
            Incarnation = 3,
            Flags = HeartbeatFlags.Settled | HeartbeatFlags.WantsRenewal,
            SentTicks = 1234,
            AcknowledgedTicks = 1000,
        };
        heartbeat.VotedOut.Add(1);
        heartbeat.VotedOut.Add(3);
        heartbeat.VotedOut.Add(MembershipView.MaxMembers - 1);
        return heartbeat;
    }

    private static byte[] Bytes(Heartbeat heartbeat)
    {
        byte[] bytes = new byte[HeartbeatFormat.Bytes];
        HeartbeatFormat.Write(bytes, in heartbeat);
        return bytes;
    }

    private static MembershipView Three()
    {
        MembershipView view = MembershipView.Found(new Epoch(9), "alpha", new IPEndPoint(IPAddress.Loopback, 7070), 4096);
        Assert.Equal(AdmissionError.None, view.TryAdmit("beta", new IPEndPoint(IPAddress.IPv6Loopback, 7071), 8192, out view));
        Assert.Equal(AdmissionError.None, view.TryAdmit("gamma", new IPEndPoint(IPAddress.Loopback, 7072), 8192, out view));
        return view;
    }
}
