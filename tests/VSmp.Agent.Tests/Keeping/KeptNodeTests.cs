// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Cli;
using VSmp.Agent.Fabric;
using VSmp.Agent.Interop;
using VSmp.Agent.Keeping;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Keeping;

/// <summary>What an agent has its keeper hold comes back to the next one, and means the same to it.</summary>
public sealed partial class KeptNodeTests
{
    private static readonly MappingRecord Range = new(new HoldKey(0x101), RegionId.Create(new NodeId(3), 7), 0x7000_0000_0000, new PageNumber(512), 1 << 20);

    [Fact]
    public void A_node_that_is_held_is_read_back_from_a_real_keeper()
    {
        using BorrowedKeeper borrowed = new();
        using var guest = Process.Start("sleep", "600");
        using SafeFileHandle process = ProcessControl.Open(guest.Id)!;
        GuestRecord who = new(ProcessIdentity.Of(guest.Id)!.Value, Range.Region, null, "0123456789ABCDEF", "a program"),
            rank = who with { Region = null, Rank = 5, Name = "" };
        using (var gate = new PeerGate("test", ClusterSecret.FromBytes(new byte[32]), _ => { }))
        using (KeeperClient client = borrowed.Connect())
        {
            using (var empty = KeptNode.Of(client.List()))
            {
                Assert.Equal((null, 0, 0, KeptNode.FirstKey), (empty.Sockets, empty.Guests.Count, empty.Mappings.Count, empty.NextKey));
            }
            IPEndPoint address = gate.Listen(new IPEndPoint(IPAddress.Loopback, 0));
            Assert.Equal(0, client.Hold(KeptNode.SocketsKey, HoldKind.Other, [gate.Descriptors.Listener, gate.Descriptors.Datagrams], default));
            Assert.Equal(0, client.Hold(Range.Guest, HoldKind.Guest, [Descriptor(process)], who.ToBytes()));
            Assert.Equal(0, client.Hold(new HoldKey(0x102), HoldKind.Guest, [Descriptor(process)], rank.ToBytes()));
            using SafeFileHandle memory = NewUserfaultfd();
            Assert.Equal(0, client.Hold(new HoldKey(0x103), HoldKind.Mapping, [Descriptor(memory)], Range.ToBytes(), Range.Guest));
            borrowed.KillAgent();
        }
        using (KeeperClient client = borrowed.Connect())
        {
            using var node = KeptNode.Of(client.List());
            Assert.Equal([who, rank], node.Guests.OrderBy(g => g.Key.Value).Select(g => g.Who));
            Assert.All(node.Guests, g => Assert.True(!g.IsGone && ProcessControl.Signal(g.Process, 0)));
            KeptMapping mapping = Assert.Single(node.Mappings);
            Assert.Equal((new HoldKey(0x103), Range), (mapping.Key, mapping.Range));
            Assert.Equal(new HoldKey(0x104), node.NextKey);

            // Whoever connects meanwhile is not refused, and is met by the next agent.
            using var gate = new PeerGate("test", ClusterSecret.FromBytes(new byte[32]), _ => { });
            IPEndPoint address = Sockets.LocalAddress(Descriptor(node.Sockets!.Listener));
            using TcpClient early = new();
            early.Connect(address);
            Assert.Equal(address, gate.Listen(node.Sockets.Listener, node.Sockets.Datagrams));
            Assert.Equal(address, Sockets.LocalAddress(gate.Descriptors.Datagrams));

            Assert.Equal(2, KeptGuests.End(client, node, node.Guests, "the test is over"));
            Assert.True(guest.WaitForExit(KeeperPrograms.Patience));
            using var left = KeptNode.Of(client.List());
            Assert.Equal((0, 0), (left.Guests.Count, left.Mappings.Count));
            Assert.NotNull(left.Sockets);
        }
    }

    [Fact]
    public void What_no_agent_of_this_build_has_written_is_refused_and_closed()
    {
        GuestRecord who = new(new ProcessIdentity(4711, 99), null, 0, "token", new string('n', 5000));
        byte[] guest = who.ToBytes(), mapping = Range.ToBytes();
        Assert.Equal(who with { Name = new string('n', 1024) }, GuestRecord.TryRead(guest));
        Assert.Equal(Range, MappingRecord.TryRead(mapping));
        for (int length = 0; length < guest.Length; length++) Assert.Null(GuestRecord.TryRead(guest.AsSpan(0, length)));
        for (int length = 0; length < mapping.Length; length++) Assert.Null(MappingRecord.TryRead(mapping.AsSpan(0, length)));
        Assert.Null(GuestRecord.TryRead([2, .. guest[1..]]));
        Assert.Null(MappingRecord.TryRead([2, .. mapping[1..]]));
        Assert.Null(MappingRecord.TryRead((Range with { Address = 1 }).ToBytes()));
        Assert.Null(MappingRecord.TryRead((Range with { PageCount = 0 }).ToBytes()));
        Assert.Null(MappingRecord.TryRead((Range with { PageCount = ulong.MaxValue }).ToBytes()));
        Assert.Null(MappingRecord.TryRead((Range with { First = new PageNumber(ulong.MaxValue) }).ToBytes()));

        KeptHold[] holds = [NewHold(0x101, HoldKind.Guest, guest), NewHold(0x102, HoldKind.Mapping, mapping, 0x101), NewHold(0x103, HoldKind.Mapping, mapping, 0x109)];
        Assert.Contains("0x103", Assert.Throws<InvalidDataException>(() => KeptNode.Of(holds)).Message, StringComparison.Ordinal);
        Assert.All(holds, hold => Assert.True(hold.Descriptors[0].IsClosed));
        Assert.Throws<InvalidDataException>(() => KeptNode.Of([NewHold(0x101, HoldKind.Other, [])]));
        Assert.Throws<InvalidDataException>(() => KeptNode.Of([NewHold(1, HoldKind.Other, [])])); // one socket, where there are two
    }

    [Fact]
    public void The_systemd_unit_starts_agents_as_vsmp_up_does()
    {
        string unit = File.ReadAllText(Path.Combine(KeeperPrograms.Root, "packaging", "systemd", "vsmp-agent@.service"));
        string[] expected = KeptAgents.CommandLine($"@PREFIX@/lib/vsmp/{KeptAgents.KeeperName}", ["@PREFIX@/bin/vsmp", "agent", "--config", "/etc/vsmp/%i.json"]);
        Assert.Contains($"\nExecStart={string.Join(' ', expected)}\n", unit, StringComparison.Ordinal);
        Assert.Contains("\nNotifyAccess=all\n", unit, StringComparison.Ordinal);
    }

    private static KeptHold NewHold(ulong key, HoldKind kind, byte[] data, ulong guest = 0) => new()
    {
        Key = new HoldKey(key),
        Kind = kind,
        Guest = new HoldKey(guest),
        Data = data,
        Descriptors = [new SafeFileHandle(Libc.EventFd(0, Libc.EFD_CLOEXEC), ownsHandle: true)],
    };

    private static int Descriptor(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private static SafeFileHandle NewUserfaultfd()
    {
        const long SYS_userfaultfd = 323, UFFD_USER_MODE_ONLY = 1;
        long fd = SystemCall(SYS_userfaultfd, Libc.O_CLOEXEC | UFFD_USER_MODE_ONLY);
        Assert.True(fd >= 0, "userfaultfd is not permitted");
        return new SafeFileHandle((nint)fd, ownsHandle: true);
    }

    [LibraryImport("libc", EntryPoint = "syscall")]
    private static partial long SystemCall(long number, long flags);
}
