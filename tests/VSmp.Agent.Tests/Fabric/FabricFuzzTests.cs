// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>Tests that measure the whole process run while nothing else does.</summary>
[CollectionDefinition(nameof(Alone), DisableParallelization = true)]
public sealed class Alone;

/// <summary>
/// A million random and mutated frames: a fabric that is sent them stays unharmed, within bounds, and serves its other peers as
/// if
/// nothing were. The seed is printed; a seed that found something becomes a test.
/// </summary>
[Collection(nameof(Alone))]
public sealed class FabricFuzzTests
{
    private const int FramesBeforeHandshake = 300_000, FramesAfterHandshake = 700_000, FramesPerBurst = 250;
    private const long MaxGrowthBytes = 96L << 20;

    private static readonly Epoch Epoch5 = new(5);

    private readonly int _seed = Environment.TickCount;

    [Fact]
    public async Task A_million_mutated_frames_before_and_after_the_handshake_harm_nothing()
    {
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {_seed}");
        // Node 0 is under attack, node 1 is the attacker that knows the secret, node 2 is honest.
        var victimRecorder = new Victim();
        await using var victim = new FabricNode(victimRecorder);
        await using var honest = new FabricNode();
        victim.Fabric.SetIdentity(new NodeId(0), Epoch5);
        honest.Fabric.SetIdentity(new NodeId(2), Epoch5);
        var attackerAddress = new IPEndPoint(IPAddress.Loopback, 1);
        // The member that misbehaves too often is lost; here it may always come back.
        victimRecorder.OnDown = peer => victim.Fabric.Add(peer, attackerAddress);
        victim.Start();
        honest.Start();
        await victim.OnAsync(fabric =>
        {
            fabric.Add(new NodeId(1), attackerAddress);
            fabric.Add(new NodeId(2), honest.Address);
        });
        await honest.OnAsync(fabric => fabric.Add(new NodeId(0), victim.Address));
        await honest.UntilAsync(() => honest.Recorder.Ups.Count == 1);
        int descriptorsBefore = CountDescriptors();
        long residentBefore = Environment.WorkingSet;

        using var attacker = new Attacker(victim.Address, new Random(_seed));
        uint numbered = 0;
        int sent = 0;
        int burst = 0;
        while (sent < FramesBeforeHandshake + FramesAfterHandshake)
        {
            if (sent < FramesBeforeHandshake) attacker.AttackBeforeHandshake(FramesPerBurst);
            else attacker.AttackAfterHandshake(FramesPerBurst);
            sent += FramesPerBurst;
            if (++burst % 20 != 0) continue;
            await honest.OnAsync(fabric =>
            {
                for (int i = 0; i < 10; i++)
                {
                    fabric.Begin(new NodeId(0), 64).Fill((byte)numbered);
                    fabric.Commit(new FrameHeader { Type = MessageType.NodeReport, Transaction = ++numbered });
                }
            });
        }

        await victim.UntilAsync(() => victimRecorder.HonestFrames == numbered);
        Assert.True(victimRecorder.HonestInOrder, "the honest peer's frames came out of order");
        Assert.Equal(0, victimRecorder.HonestDowns);
        Assert.True(attacker.Accepted > 100, $"the attacker was let in only {attacker.Accepted} times: nothing got deep");
        Assert.True(victimRecorder.AttackerFrames > 10_000,
            $"only {victimRecorder.AttackerFrames} of the attacker's frames got through");
        int chunks = 0;
        await victim.OnAsync(fabric => chunks = fabric.Chunks.InUse);
        Assert.InRange(chunks, 0, 4);
        Assert.InRange(CountDescriptors(), 0, descriptorsBefore + PeerGate.MaxHalfOpen + 16);
        Assert.True(Environment.WorkingSet - residentBefore < MaxGrowthBytes,
            $"memory grew by {(Environment.WorkingSet - residentBefore) >> 20} MiB");
        Assert.True(victim.Log.Count < 1000, $"{victim.Log.Count} lines of log");
    }

    [Fact]
    public void A_session_takes_no_mutated_frame_that_breaks_the_rules_and_no_frame_twice()
    {
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {_seed}");
        var random = new Random(_seed);
        using var pool = new ChunkPool();
        using var session = new PeerSession(new NodeId(0), new NodeId(1), Epoch5, pool);
        byte[] buffer = new byte[FrameHeader.Bytes + FrameHeader.MaxPayloadBytes];
        ulong delivered = 0;
        for (int i = 0; i < 200_000; i++)
        {
            ulong next = session.LastTaken + 1;
            int bytes = FrameMutator.Write(random, buffer, Epoch5, new NodeId(1), ref next);
            // SAFETY: the array is pinned, and as large as the largest frame.
            unsafe
            {
                fixed (byte* raw = buffer)
                {
                    var frame = (FrameHeader*)raw;
                    if (PeerSession.FrameBytes(frame) != bytes) continue;
                    FrameVerdict verdict = session.Take(frame);
                    if (verdict is not (FrameVerdict.Deliver or FrameVerdict.Close)) continue;
                    Assert.Equal(++delivered, frame->Sequence);
                    Assert.Null(FrameRules.Violation(*frame));
                    Assert.Equal((new NodeId(1), Epoch5), (frame->Source, frame->Epoch));
                }
            }
        }
        Assert.InRange(delivered, 1000ul, 200_000ul);
    }

    [Fact]
    public void A_mutated_list_of_members_is_read_as_a_list_or_not_at_all()
    {
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {_seed}");
        var random = new Random(_seed);
        Member[] members = [.. Enumerable.Range(0, 20).Select(i =>
            new Member(new NodeId((ushort)i), $"node-{i}",
                new IPEndPoint(i % 2 == 0 ? IPAddress.Loopback : IPAddress.IPv6Loopback, i), 1))];
        byte[] good = new byte[MemberList.MaxBytes];
        good = good[..MemberList.Write(good, members)];
        Assert.Equal(members, MemberList.Read(good));
        int read = 0;
        for (int i = 0; i < 100_000; i++)
        {
            byte[] bad = [.. good];
            for (int n = random.Next(1, 4); n > 0; n--) bad[random.Next(bad.Length)] = (byte)random.Next(256);
            if (random.Next(4) == 0) bad = bad[..random.Next(bad.Length)];
            if (MemberList.Read(bad) is not { } list) continue;
            read++;
            Assert.InRange(list.Count, 0, MembershipView.MaxMembers);
            Assert.All(list, member => Assert.True(Member.IsName(member.Name)));
        }
        Assert.InRange(read, 1, 99_999);
    }

    private static int CountDescriptors() => Directory.GetFiles("/proc/self/fd").Length;

    /// <summary>Counts; keeps nothing.</summary>
    private sealed class Victim : IFrameReceiver
    {
        public long AttackerFrames { get; private set; }

        public uint HonestFrames { get; private set; }

        public bool HonestInOrder { get; private set; } = true;

        public int HonestDowns { get; private set; }

        public Action<NodeId>? OnDown { get; set; }

        public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
        {
            if (peer.Value == 1)
            {
                AttackerFrames++;
                return;
            }
            HonestInOrder &= header.Transaction == ++HonestFrames && payload.IndexOfAnyExcept((byte)(HonestFrames - 1)) < 0;
        }

        public void OnPeerUp(NodeId peer)
        {
        }

        public void OnPeerDown(NodeId peer, string reason)
        {
            if (peer.Value == 1) OnDown?.Invoke(peer);
            else HonestDowns++;
        }
    }

    /// <summary>A hostile host. It knows the cluster secret when it chooses to.</summary>
    private sealed class Attacker(IPEndPoint victim, Random random) : IDisposable
    {
        private readonly byte[] _burst = new byte[4 << 20];
        private readonly byte[] _answer = new byte[4096];
        private ulong _sessionId = 1;
        private Socket? _socket;

        public int Accepted { get; private set; }

        public void Dispose() => _socket?.Dispose();

        public void AttackBeforeHandshake(int frames)
        {
            Open();
            switch (random.Next(4))
            {
                case 0: // frames instead of a handshake
                    break;
                case 1: // random bytes
                    random.NextBytes(_burst.AsSpan(0, 4096));
                    Send(4096);
                    break;
                case 2: // a hello that is nearly right
                    byte[] hello = MakeHello(HandshakePurpose.Session);
                    Mutate(hello);
                    hello.CopyTo(_burst, 0);
                    Send(hello.Length);
                    break;
                default: // a right hello, and a proof that is wrong, or right with a body that is not
                    HandshakePurpose purpose = random.Next(2) == 0 ? HandshakePurpose.Session : HandshakePurpose.Join;
                    byte[] goodHello = MakeHello(purpose);
                    goodHello.CopyTo(_burst, 0);
                    Send(goodHello.Length);
                    byte[]? challenge = Receive(Handshake.ChallengeBytes);
                    if (challenge is null) break;
                    byte[] body = new byte[random.Next(100)];
                    random.NextBytes(body);
                    byte[] proof = HandshakeTests.MakeProof(goodHello, challenge, body);
                    if (random.Next(2) == 0) Mutate(proof);
                    proof.CopyTo(_burst, 0);
                    Send(proof.Length);
                    break;
            }
            SendFrames(frames, 1);
        }

        public void AttackAfterHandshake(int frames)
        {
            Open();
            byte[] hello = MakeHello(HandshakePurpose.Session);
            hello.CopyTo(_burst, 0);
            Send(hello.Length);
            if (Receive(Handshake.ChallengeBytes) is not { } challenge) return;
            byte[] body = new byte[Handshake.SessionBodyBytes];
            Handshake.WriteSessionBody(body, _sessionId, 0);
            byte[] proof = HandshakeTests.MakeProof(hello, challenge, body);
            proof.CopyTo(_burst, 0);
            Send(proof.Length);
            if (Receive(Handshake.AnswerBytes) is not { } answer) return;
            if (answer[0] == (byte)HandshakeStatus.OtherSession) _sessionId++; // lost and made anew in the meantime
            if (answer[0] != 0 || Receive(Handshake.SessionBodyBytes) is not { } resume) return;
            Accepted++;
            SendFrames(frames, Handshake.ReadSessionBody(resume).LastTaken + 1);
        }

        private void SendFrames(int frames, ulong sequence)
        {
            int bytes = 0;
            for (int i = 0; i < frames; i++)
            {
                if (_burst.Length - bytes < FrameHeader.Bytes + FrameHeader.MaxPayloadBytes)
                {
                    Send(bytes);
                    bytes = 0;
                }
                bytes += FrameMutator.Write(random, _burst.AsSpan(bytes), Epoch5, new NodeId(1), ref sequence);
            }
            Send(bytes);
        }

        private static byte[] MakeHello(HandshakePurpose purpose)
        {
            byte[] hello = new byte[Handshake.HelloBytes];
            Handshake.WriteHello(hello, purpose, TransportKind.Tcp, Epoch5, new NodeId(1), new NodeId(0), "test");
            return hello;
        }

        private void Mutate(byte[] bytes)
        {
            for (int n = random.Next(1, 4); n > 0; n--) bytes[random.Next(bytes.Length)] ^= (byte)(1 << random.Next(8));
        }

        private void Open()
        {
            _socket?.Dispose();
            _socket = new Socket(victim.AddressFamily, SocketType.Stream, ProtocolType.Tcp)
            {
                NoDelay = true,
                ReceiveTimeout = 3000
            };
            _socket.Connect(victim);
        }

        private void Send(int bytes)
        {
            try
            {
                for (int done = 0; done < bytes;) done += _socket!.Send(_burst, done, bytes - done, SocketFlags.None);
            }
            catch (SocketException)
            {
                // The victim has had enough, as it should.
            }
        }

        private byte[]? Receive(int bytes)
        {
            try
            {
                for (int have = 0; have < bytes;)
                {
                    int got = _socket!.Receive(_answer, have, bytes - have, SocketFlags.None);
                    if (got == 0) return null;
                    have += got;
                }
                return _answer[..bytes];
            }
            catch (SocketException)
            {
                return null;
            }
        }
    }
}

/// <summary>Makes frames that are right, nearly right, or noise; their CRC is right more often than not.</summary>
internal static class FrameMutator
{
    /// <summary>Writes one frame, with the next number if its type has one.</summary>
    /// <returns>How long it is.</returns>
    public static unsafe int Write(Random random, Span<byte> to, Epoch epoch, NodeId source, ref ulong sequence)
    {
        var type = (MessageType)Types[random.Next(Types.Length)];
        uint count = (uint)random.Next(1, 3);
        bool carriesPages = type is MessageType.DataS or MessageType.DataM or MessageType.PutM or MessageType.Writeback;
        bool takesAnything = (byte)type is >= 64 and < 128;
        int payloadBytes = carriesPages ? (int)count * PageNumber.Bytes : takesAnything ? random.Next(200) : 0;
        int bytes = FrameHeader.Bytes + payloadBytes;
        var header = new FrameHeader
        {
            Magic = FrameHeader.MagicValue,
            Version = FrameHeader.CurrentVersion,
            Type = type,
            View = new ViewNumber(1),
            Epoch = epoch,
            Source = source,
            Requestor = new NodeId((ushort)random.Next(65536)),
            Network = MessageTypes.NetworkOf(type),
            Transaction = (uint)random.Next(),
            Count = count,
            Sequence = type == MessageType.SessionAck ? 0 : sequence++,
            Region = new RegionId((ulong)random.NextInt64()),
            Page = new PageNumber((ulong)random.Next()),
            PayloadBytes = (uint)payloadBytes,
        };
        MemoryMarshal.Write(to, header);
        // One in thirty is mutated in its header, so that a connection gets deep before it is dropped.
        if (random.Next(30) == 0)
        {
            for (int n = random.Next(1, 4); n > 0; n--)
            {
                int at = random.Next(FrameHeader.Bytes);
                if (random.Next(2) == 0) to[at] ^= (byte)(1 << random.Next(8));
                else to[at] = Extremes[random.Next(Extremes.Length)];
            }
        }
        if (random.Next(500) == 0)
        {
            random.NextBytes(to[..FrameHeader.Bytes]);
            if (random.Next(2) == 0) BinaryPrimitives.WriteUInt32LittleEndian(to, FrameHeader.MagicValue);
        }
        BinaryPrimitives.WriteUInt32LittleEndian(to[72..], 0);
        // SAFETY: the span holds the frame in full.
        fixed (byte* start = to)
        {
            uint crc = Crc32C.Compute(start, bytes);
            if (random.Next(2000) == 0) crc ^= 1;
            BinaryPrimitives.WriteUInt32LittleEndian(to[72..], crc);
        }
        return bytes;
    }

    private static readonly byte[] Extremes = [0, 1, 0x7F, 0x80, 0xFF];

    /// <summary>All types but the one that ends the session, weighted towards short frames.</summary>
    private static readonly byte[] Types =
        [1, 2, 3, 5, 16, 17, 18, 19, 34, 35, 37, 1, 2, 3, 5, 16, 17, 18, 19, 34, 35, 37, 4, 32, 33, 38, 64, 65, 66, 67, 68, 80,
            81, 82, 128];
}
