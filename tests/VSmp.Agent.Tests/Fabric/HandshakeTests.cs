// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Net.Sockets;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>Who gets in, who does not, and what each is told.</summary>
public sealed class HandshakeTests
{
    private static readonly Epoch Epoch5 = new(5);

    [Fact]
    public async Task Agents_with_different_secrets_both_learn_of_it()
    {
        await using var node = StartNode();
        using var other = new PeerGate("test", ClusterSecret.FromBytes(Enumerable.Repeat((byte)9, 32).ToArray()), _ => { });
        HandshakeResult result = await ConnectAsync(other, node.Address);
        Assert.Equal(HandshakeStatus.WrongSecret, result.Status);
        Assert.Contains("secret", result.Text, StringComparison.Ordinal);
        Assert.Contains(node.Log, line => line.Contains("does not know the cluster secret", StringComparison.Ordinal));
    }

    [Fact]
    public async Task An_agent_of_another_cluster_is_told_so()
    {
        await using var node = StartNode();
        using var other = new PeerGate("elsewhere", FabricNode.Secret, _ => { });
        HandshakeResult result = await ConnectAsync(other, node.Address);
        Assert.Equal(HandshakeStatus.OtherCluster, result.Status);
        Assert.Contains("'elsewhere'", result.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_agent_of_another_epoch_a_stranger_and_an_agent_in_another_session_are_told_apart()
    {
        await using var node = StartNode();
        using var other = new PeerGate("test", FabricNode.Secret, _ => { });
        Assert.Equal(HandshakeStatus.OtherEpoch, (await ConnectAsync(other, node.Address, epoch: new Epoch(6))).Status);
        Assert.Equal(HandshakeStatus.NotAMember, (await ConnectAsync(other, node.Address, self: 7)).Status);
        Assert.Equal(HandshakeStatus.NotAMember, (await ConnectAsync(other, node.Address, peer: 3)).Status);

        HandshakeResult first = await ConnectAsync(other, node.Address, sessionId: 77);
        Assert.Equal(HandshakeStatus.Ok, first.Status);
        _ = VSmp.Agent.Interop.Libc.Close(first.Fd);
        Assert.Equal(HandshakeStatus.OtherSession, (await ConnectAsync(other, node.Address, sessionId: 78)).Status);
        Assert.Equal(HandshakeStatus.OtherSession, (await ConnectAsync(other, node.Address, sessionId: 77, lastTaken: 1)).Status);
    }

    [Fact]
    public async Task A_node_that_is_in_no_cluster_says_that_it_is_not_ready()
    {
        await using var node = new FabricNode();
        node.Start();
        using var other = new PeerGate("test", FabricNode.Secret, _ => { });
        Assert.Equal(HandshakeStatus.NotReady, (await ConnectAsync(other, node.Address)).Status);
    }

    [Fact]
    public async Task A_peer_of_another_wire_version_is_named_on_both_sides()
    {
        await using var node = StartNode();
        using Socket socket = await OpenAsync(node.Address);
        byte[] hello = new byte[200]; // another version's hello may have any length
        Handshake.WritePrefix(hello, (byte)HandshakePurpose.Session, version: 42);
        await socket.SendAsync(hello, TestContext.Current.CancellationToken);
        byte[] answer = await ReadAllAsync(socket);
        Assert.Equal(Handshake.PrefixBytes, answer.Length);
        Assert.Equal((FrameHeader.CurrentVersion, (byte)HandshakeStatus.OtherVersion), (Handshake.VersionOf(answer), answer[6]));
        Assert.Contains(node.Log, line => line.Contains("wire version 42", StringComparison.Ordinal));

        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var other = new PeerGate("test", FabricNode.Secret, _ => { });
        Task<HandshakeResult> connecting = ConnectAsync(other, (IPEndPoint)listener.LocalEndpoint);
        using Socket accepted = await listener.AcceptSocketAsync(TestContext.Current.CancellationToken);
        await accepted.SendAsync(hello.AsMemory(0, 8), TestContext.Current.CancellationToken);
        HandshakeResult result = await connecting;
        Assert.Equal(HandshakeStatus.OtherVersion, result.Status);
        Assert.Contains("42", result.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_peer_with_another_transport_is_refused_and_told_so_by_name()
    {
        await using var node = StartNode();
        using var other = new PeerGate("test", FabricNode.Secret, _ => { }) { Transport = TransportKind.Verbs };
        HandshakeResult result = await ConnectAsync(other, node.Address);
        Assert.Equal(HandshakeStatus.OtherTransport, result.Status);
        Assert.Contains("--transport verbs", result.Text, StringComparison.Ordinal);
        Assert.Contains(node.Log, line => line.Contains("--transport", StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_is_not_an_agent_is_recognised_from_both_sides()
    {
        await using var node = StartNode();
        using Socket socket = await OpenAsync(node.Address);
        await socket.SendAsync("GET / HTTP/1.1\r\n\r\n"u8.ToArray(), TestContext.Current.CancellationToken);
        Assert.Empty(await ReadAllAsync(socket));
        Assert.Contains(node.Log, line => line.Contains("does not speak", StringComparison.Ordinal));

        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var other = new PeerGate("test", FabricNode.Secret, _ => { });
        Task<HandshakeResult> connecting = ConnectAsync(other, (IPEndPoint)listener.LocalEndpoint);
        using Socket accepted = await listener.AcceptSocketAsync(TestContext.Current.CancellationToken);
        await accepted.SendAsync("SSH-2.0-OpenSSH_9.2\r\n"u8.ToArray(), TestContext.Current.CancellationToken);
        Assert.Equal(HandshakeStatus.NotVSmp, (await connecting).Status);
    }

    [Fact]
    public async Task Nobody_listening_and_nobody_answering_are_told_apart()
    {
        using var other = new PeerGate("test", FabricNode.Secret, _ => { });
        int port;
        using (var listener = new TcpListener(IPAddress.Loopback, 0))
        {
            listener.Start();
            port = ((IPEndPoint)listener.LocalEndpoint).Port;
        }
        HandshakeResult refused = await ConnectAsync(other, new IPEndPoint(IPAddress.Loopback, port));
        Assert.Equal(HandshakeStatus.Unreachable, refused.Status);
        Assert.Contains("refused", refused.Text, StringComparison.OrdinalIgnoreCase);

        using var silent = new TcpListener(IPAddress.Loopback, 0);
        silent.Start();
        Assert.Equal(HandshakeStatus.TimedOut, (await ConnectAsync(other, (IPEndPoint)silent.LocalEndpoint)).Status);
    }

    [Fact]
    public async Task A_proof_that_was_heard_on_another_connection_is_worth_nothing()
    {
        await using var node = StartNode();
        byte[] hello = new byte[Handshake.HelloBytes];
        Handshake.WriteHello(hello, HandshakePurpose.Session, TransportKind.Tcp, Epoch5, new NodeId(1), new NodeId(0), "test");
        byte[] body = new byte[Handshake.SessionBodyBytes];
        Handshake.WriteSessionBody(body, 77, 0);

        using Socket first = await OpenAsync(node.Address);
        await first.SendAsync(hello, TestContext.Current.CancellationToken);
        byte[] proof = MakeProof(hello, await ReadExactlyAsync(first, Handshake.ChallengeBytes), body);
        await first.SendAsync(proof, TestContext.Current.CancellationToken);
        Assert.Equal((byte)HandshakeStatus.Ok, (await ReadExactlyAsync(first, Handshake.AnswerBytes))[0]);

        using Socket second = await OpenAsync(node.Address);
        await second.SendAsync(hello, TestContext.Current.CancellationToken);
        await ReadExactlyAsync(second, Handshake.ChallengeBytes);
        await second.SendAsync(proof, TestContext.Current.CancellationToken);
        Assert.Equal((byte)HandshakeStatus.WrongSecret, (await ReadExactlyAsync(second, Handshake.AnswerBytes))[0]);
    }

    [Fact]
    public async Task Connections_that_say_nothing_are_bounded_and_do_not_keep_an_honest_peer_out()
    {
        await using var node = StartNode();
        var silent = new List<Socket>();
        try
        {
            for (int i = 0; i < PeerGate.MaxHalfOpen + 50; i++) silent.Add(await OpenAsync(node.Address));
            using var other = new PeerGate("test", FabricNode.Secret, _ => { });
            Assert.Equal(HandshakeStatus.Ok, (await ConnectAsync(other, node.Address)).Status);
            // The oldest made room for the newest; the others go when their time is up.
            foreach (Socket socket in silent) Assert.Empty(await ReadAllAsync(socket));
        }
        finally
        {
            silent.ForEach(socket => socket.Dispose());
        }
    }

    [Fact]
    public void A_port_that_is_taken_is_named_with_advice()
    {
        using var one = new PeerGate("test", FabricNode.Secret, _ => { });
        using var other = new PeerGate("test", FabricNode.Secret, _ => { });
        IPEndPoint address = one.Listen(new IPEndPoint(IPAddress.Loopback, 0));
        IOException error = Assert.Throws<IOException>(() => other.Listen(address));
        Assert.Contains($"{address}", error.Message, StringComparison.Ordinal);
        Assert.Contains("choose another port", error.Message, StringComparison.Ordinal);
    }

    internal static byte[] MakeProof(byte[] hello, byte[] challenge, byte[] body)
    {
        byte[] proof = new byte[Handshake.ProofBytes + body.Length];
        Handshake.WriteBodyHeader(proof, HandshakeStatus.Ok, body.Length);
        body.CopyTo(proof, Handshake.ProofBytes);
        Handshake.ComputeMac(FabricNode.Secret, byServer: false, hello, challenge, proof, body, proof.AsSpan(8, Handshake.MacBytes));
        return proof;
    }

    /// <summary>Node 0, which expects node 1 to connect.</summary>
    private static FabricNode StartNode()
    {
        var node = new FabricNode();
        node.Fabric.SetIdentity(new NodeId(0), Epoch5);
        node.Fabric.Add(new NodeId(1), new IPEndPoint(IPAddress.Loopback, 1));
        node.Start();
        return node;
    }

    private static async Task<HandshakeResult> ConnectAsync(PeerGate gate, IPEndPoint address, Epoch? epoch = null,
        ushort self = 1, ushort peer = 0, ulong sessionId = 1, ulong lastTaken = 0)
    {
        if (!gate.IsRunning) gate.Start();
        byte[] body = new byte[Handshake.SessionBodyBytes];
        Handshake.WriteSessionBody(body, sessionId, lastTaken);
        var done = new TaskCompletionSource<HandshakeResult>(TaskCreationOptions.RunContinuationsAsynchronously);
        var request = new OutgoingRequest(address, HandshakePurpose.Session, epoch ?? Epoch5, new NodeId(self), new NodeId(peer),
            body);
        gate.Connect(request, done.SetResult);
        return await done.Task.WaitAsync(TimeSpan.FromSeconds(30));
    }

    private static async Task<Socket> OpenAsync(IPEndPoint address)
    {
        var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        await socket.ConnectAsync(address, TestContext.Current.CancellationToken);
        return socket;
    }

    private static async Task<byte[]> ReadExactlyAsync(Socket socket, int bytes)
    {
        byte[] buffer = new byte[bytes];
        for (int have = 0; have < bytes;)
        {
            int got = await socket.ReceiveAsync(buffer.AsMemory(have), TestContext.Current.CancellationToken);
            Assert.NotEqual(0, got);
            have += got;
        }
        return buffer;
    }

    /// <summary>All that comes until the peer closes, orderly or not.</summary>
    private static async Task<byte[]> ReadAllAsync(Socket socket)
    {
        var all = new List<byte>();
        byte[] buffer = new byte[1024];
        try
        {
            int got;
            while ((got = await socket.ReceiveAsync(buffer, TestContext.Current.CancellationToken)) > 0)
                all.AddRange(buffer[..got]);
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
        }
        return [.. all];
    }
}
