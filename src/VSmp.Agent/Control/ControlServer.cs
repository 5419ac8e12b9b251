// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;

namespace VSmp.Agent.Control;

/// <summary>
/// The agent's control socket: newline-delimited JSON over a Unix stream, for the owner of the agent, root, and members of the
/// group that the administrator named. It has a thread of its own; what it asks of the agent goes through
/// <see cref="IAgentControl"/>.
/// </summary>
internal sealed class ControlServer : IDisposable, IReactorHandler
{
    private const int MaxConnections = 64;

    private readonly Reactor _reactor = new();
    private readonly Thread _thread;
    private readonly UnixSocket _listener;
    private readonly HashSet<ControlConnection> _connections = []; // the control thread's
    private readonly IAgentControl _agent;
    private readonly uint? _groupId;
    private readonly uint _ownerId = Libc.GetEffectiveUserId();

    /// <summary>Listens at the agent's control socket and serves from now on.</summary>
    public ControlServer(AgentFolder folder, uint? groupId, IAgentControl agent)
    {
        _agent = agent;
        _groupId = groupId;
        _listener = UnixSocket.Listen(folder.ControlSocket, UnixSocketType.Stream, groupId);
        _reactor.Watch(_listener.Descriptor, EpollEvents.Readable, this);
        _thread = new Thread(_reactor.Run) { Name = "control", IsBackground = true };
        _thread.Start();
    }

    /// <summary>Connections that are open now. Only the control thread changes it; a reader may see it a moment late.</summary>
    public int ConnectionCount => _connections.Count;

    /// <summary>Closes the socket and every connection. Open runs are not ended: the agent that stops ends its guests
    /// itself.</summary>
    public void Dispose()
    {
        _reactor.Post(() =>
        {
            foreach (ControlConnection connection in _connections.ToArray()) connection.Close(endRun: false);
            _reactor.Unwatch(_listener.Descriptor);
        });
        _reactor.Stop();
        _thread.Join();
        _listener.Dispose();
        // The reactor's own descriptors stay: an answer still under way may yet post to it.
    }

    /// <summary>Someone connects.</summary>
    void IReactorHandler.OnReady(EpollEvents events)
    {
        while (_listener.Accept() is { } socket)
        {
            try { Admit(socket); }
            catch (IOException e)
            {
                Log.Warn($"a connection to the control socket was dropped: {e.Message}");
                socket.Dispose();
            }
        }
    }

    private void Admit(UnixSocket socket)
    {
        PeerCredentials peer = socket.Peer;
        bool isAdministrator = peer.UserId == 0 || peer.UserId == _ownerId;
        if (!isAdministrator && !(_groupId is uint group && socket.PeerIsInGroup(group)))
        {
            Log.Warn($"user {peer.UserId} (process {peer.ProcessId}) was refused at the control socket");
            Refuse(socket, ExitCodes.Refused,
                "you may not use this agent: it serves its owner, root, and the group it was started with");
            return;
        }
        if (_connections.Count >= MaxConnections)
        {
            Refuse(socket, ExitCodes.Failed,
                $"the agent has {MaxConnections} control connections open already: end some vsmp commands");
            return;
        }
        ControlConnection connection = new(
            _reactor, socket, peer, isAdministrator, _agent, closed => _connections.Remove(closed));
        _connections.Add(connection);
        connection.Start();
    }

    private static void Refuse(UnixSocket socket, int exitCode, string error)
    {
        // Fits into the empty buffer of a new socket; a peer that is gone already does not need it.
        _ = socket.Send(ControlConnection.Encode(new ControlReply { Id = 0, Error = error, ExitCode = exitCode }), -1,
            wait: false);
        socket.Dispose();
    }
}
