// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Runtime.InteropServices;
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.Verbs;
using VSmp.Agent.Interop;
using VSmp.Agent.Tests.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Rdma.Tests;

/// <summary>
/// A member of the cluster that knows the secret, and keeps to no rule beyond the handshake: it has its queue pair in its own hands
/// (hostile.c), and makes messages of whatever bytes.
/// </summary>
internal sealed partial class HostilePeer : IDisposable
{
    /// <summary>Opcodes of <see cref="Post"/> (enum ibv_wr_opcode).</summary>
    public const uint Write = 0, WriteWithImmediate = 1, Send = 2, SendWithImmediate = 3, Read = 4, CompareAndSwap = 5;

    /// <summary>The peer's device refused to do it (IBV_WC_REM_INV_REQ_ERR).</summary>
    public const int InvalidRequest = 9;

    /// <summary>Receives that it posts unless it is to be silent.</summary>
    public const uint AllReceives = 64;

    private readonly FabricNode _victim;
    private readonly PeerGate _gate = new("test", FabricNode.Secret, _ => { });
    private readonly ChunkPool _pool = new();
    private readonly PeerSession _core;
    private readonly ulong _sessionId;
    private HandshakeResult? _handshake;
    private nint _peer;

    /// <summary>Node <paramref name="self"/>, which the victim must have as a member; its number is above the victim's, so that it connects.</summary>
    public HostilePeer(FabricNode victim, NodeId self)
    {
        _victim = victim;
        Self = self;
        _core = new PeerSession(self, victim.Fabric.Self, victim.Fabric.Epoch, _pool);
        _sessionId = self.Value;
        _gate.Transport = TransportKind.Verbs;
        _gate.Start();
    }

    public NodeId Self { get; }

    /// <summary>The TCP connection on which it has authenticated itself.</summary>
    public int Connection => _handshake!.Fd;

    /// <summary>Shows over TCP that it knows the secret.</summary>
    public async Task AuthenticateAsync()
    {
        byte[] body = new byte[Handshake.SessionBodyBytes];
        Handshake.WriteSessionBody(body, _sessionId, 0);
        var done = new TaskCompletionSource<HandshakeResult>(TaskCreationOptions.RunContinuationsAsynchronously);
        _gate.Connect(new OutgoingRequest(_victim.Address, HandshakePurpose.Session, _victim.Fabric.Epoch, Self, _victim.Fabric.Self, body), done.SetResult);
        _handshake = await done.Task.WaitAsync(TimeSpan.FromSeconds(30));
        Assert.Equal(HandshakeStatus.Ok, _handshake.Status);
    }

    /// <summary>The proof that the victim waits for now.</summary>
    public byte[] Proof()
    {
        byte[] proof = new byte[Verbs.PrivateBytes];
        VerbsProof.Make(_handshake!.Key, byClient: true).CopyTo(proof);
        return proof;
    }

    /// <summary>Asks for an RDMA connection and gets it, but leaves it half open.</summary>
    /// <returns>0, or a negative errno.</returns>
    public unsafe int Ask(byte[] proof, uint receives = AllReceives)
    {
        byte* address = stackalloc byte[Sockets.AddressBytes], source = stackalloc byte[Sockets.AddressBytes];
        _ = Sockets.Encode(_victim.Address, address);
        _ = Sockets.Encode(new IPEndPoint(_victim.Address.Address, 0), source);
        fixed (byte* bytes = proof) return Connect(source, address, bytes, (uint)proof.Length, receives, out _peer);
    }

    /// <summary>Completes what <see cref="Ask"/> began.</summary>
    public void Establish() => Assert.Equal(0, Establish(_peer));

    /// <summary>Becomes a peer as any other.</summary>
    public async Task ConnectAsync(uint receives = AllReceives)
    {
        await AuthenticateAsync();
        Assert.Equal(0, Ask(Proof(), receives));
        Establish();
        await _victim.UntilAsync(() => _victim.Fabric.IsConnected(Self));
    }

    /// <summary>The next frame of its session, as an honest peer would make it.</summary>
    public unsafe byte[] Frame(int payloadBytes)
    {
        _core.Begin(payloadBytes).Fill(0x42);
        _core.Commit(new FrameHeader { Type = MessageType.NodeReport }, default);
        byte* run = _core.Outbox.NextRun(FrameHeader.Bytes + payloadBytes, out int bytes, out _, out _);
        return new ReadOnlySpan<byte>(run, bytes).ToArray();
    }

    /// <summary>An acknowledgement of nothing.</summary>
    public unsafe byte[] EmptyAck()
    {
        byte[] ack = new byte[FrameHeader.Bytes];
        fixed (byte* bytes = ack) _core.WriteAck(bytes, default);
        return ack;
    }

    /// <summary>Posts messages, and waits for their completion.</summary>
    /// <param name="opcode">What.</param>
    /// <param name="messages">All of them, one behind the other, of one length.</param>
    /// <param name="count">How many.</param>
    /// <param name="address">For operations on memory: where.</param>
    /// <param name="key">For those: the key; with an immediate value: that.</param>
    /// <returns>How the first ended that failed, an ibv_wc_status; 0 if none did.</returns>
    public unsafe int Post(uint opcode, byte[] messages, uint count = 1, nint address = 0, uint key = 0)
    {
        Order order = new()
        {
            Opcode = opcode,
            Count = count,
            Bytes = (uint)messages.Length / count,
            Immediate = key,
            RemoteAddress = (ulong)address,
            RemoteKey = key,
        };
        int status;
        fixed (byte* bytes = messages) status = Post(_peer, &order, bytes);
        Assert.True(status >= 0, $"the operation could not be posted, or never completed: {Errno.Text(-status)}");
        return status;
    }

    public void Dispose()
    {
        Close(_peer);
        if (_handshake is { Fd: >= 0 }) _ = Libc.Close(_handshake.Fd);
        _core.Dispose();
        _pool.Dispose();
        _gate.Dispose();
    }

    [LibraryImport("hostile", EntryPoint = "hostile_connect")]
    private static unsafe partial int Connect(byte* source, byte* address, byte* proof, uint proofBytes, uint receives, out nint peer);

    [LibraryImport("hostile", EntryPoint = "hostile_establish")]
    private static partial int Establish(nint peer);

    [LibraryImport("hostile", EntryPoint = "hostile_post")]
    private static unsafe partial int Post(nint peer, Order* order, byte* messages);

    [LibraryImport("hostile", EntryPoint = "hostile_close")]
    private static partial void Close(nint peer);

    /// <summary><c>struct order</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Order
    {
        public uint Opcode;
        public uint Count;
        public uint Bytes;
        public uint Immediate;
        public ulong RemoteAddress;
        public uint RemoteKey;
        public uint Done;
    }
}
