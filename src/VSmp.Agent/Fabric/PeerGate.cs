// SPDX-License-Identifier: Apache-2.0
using System.Net;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Fabric;

/// <summary>
/// Where connections between agents begin: listens, connects, and authenticates, on a small reactor thread of its own, so that
/// strangers never take time from the thread that serves faults. What has passed is handed on; nothing else gets further.
/// </summary>
internal sealed class PeerGate : IDisposable
{
    /// <summary>Time for a handshake, from the connection to the last byte.</summary>
    public const long HandshakeDeadlineMicroseconds = 2_000_000;

    /// <summary>Time for a node that has authenticated itself to be made a member.</summary>
    public const long JoinDeadlineMicroseconds = 20_000_000;

    /// <summary>Half-open incoming connections; one more ends the oldest, which is the least likely to be honest.</summary>
    public const int MaxHalfOpen = 128;

    /// <summary>Time for an address to be tried (<see cref="Probe"/>).</summary>
    public const long ProbeDeadlineMicroseconds = 200_000;

    private const int Backlog = 128;
    private const int PortsTried = 32;
    private const int AcceptsPerTurn = 16;

    private readonly Reactor _reactor = new();
    private readonly RateLimitedLog _log;
    private readonly List<HandshakeConnection> _connections = []; // oldest first; the gate's thread only
    private readonly HashSet<int> _watched = [];
    private readonly Acceptor _acceptor;
    private Thread? _thread;
    private int _listener = -1;
    private int _datagrams = -1;
    private bool _listenerPaused;

    public PeerGate(string clusterName, ClusterSecret secret, Action<string> log)
    {
        ClusterName = Handshake.CheckClusterName(clusterName);
        Secret = secret;
        _log = new RateLimitedLog(log);
        _acceptor = new Acceptor(this);
    }

    public string ClusterName { get; }

    public ClusterSecret Secret { get; }

    /// <summary>What carries sessions; peers must use the same. Before <see cref="Start"/>.</summary>
    public TransportKind Transport { get; set; }

    /// <summary>What is injected into handshakes between members; null: nothing may be. Before <see cref="Start"/>.</summary>
    public FaultPlan? Faults { get; set; }

    /// <summary>Gets members that want (to resume) a session. Called on the gate's thread.</summary>
    public Action<IncomingPeer>? SessionArrived { get; set; }

    /// <summary>Gets nodes that want to become members. Called on the gate's thread.</summary>
    public Action<IncomingJoin>? JoinArrived { get; set; }

    /// <summary>Whether the thread has been started.</summary>
    public bool IsRunning => _thread is not null;

    /// <summary>Time on the gate's thread.</summary>
    public long Now => _reactor.NowMicroseconds;

    /// <summary>Binds exactly this address, for connections and for datagrams; port 0 takes any. Before <see cref="Start"/>.</summary>
    /// <returns>The address that was bound, with the real port.</returns>
    /// <exception cref="IOException">It cannot be had; the message says why.</exception>
    public IPEndPoint Listen(IPEndPoint address)
    {
        if (_listener >= 0) throw new InvalidOperationException("the gate listens already");
        for (int i = 1; ; i++)
        {
            int listener = Sockets.Listen(address, Backlog);
            IPEndPoint bound = Sockets.LocalAddress(listener);
            try
            {
                _datagrams = Sockets.BindDatagrams(bound);
                _listener = listener;
                return bound;
            }
            catch (IOException) when (address.Port == 0 && i < PortsTried)
            {
                _ = Libc.Close(listener); // a port that another program has for datagrams
            }
            catch
            {
                _ = Libc.Close(listener);
                throw;
            }
        }
    }

    /// <summary>Listens with sockets that another agent of this node had, where that one did. Before <see cref="Start"/>.</summary>
    /// <param name="listener">For connections; the gate's from now on.</param>
    /// <param name="datagrams">For datagrams; likewise.</param>
    /// <returns>The address.</returns>
    public IPEndPoint Listen(SafeFileHandle listener, SafeFileHandle datagrams)
    {
        if (_listener >= 0) throw new InvalidOperationException("the gate listens already");
        _listener = Take(listener);
        _datagrams = Take(datagrams);
        return Sockets.LocalAddress(_listener);
    }

    /// <summary>The sockets for connections and for datagrams, which stay the gate's: before <see cref="TakeDatagrams"/>.</summary>
    public (int Listener, int Datagrams) Descriptors => (_listener, _datagrams);

    private static int Take(SafeFileHandle handle)
    {
        int fd = (int)handle.DangerousGetHandle();
        handle.SetHandleAsInvalid(); // so that nobody else closes it
        return fd;
    }

    /// <summary>Gives the datagram socket on the address that the gate listens on to the caller, who closes it; −1 if there is none.</summary>
    public int TakeDatagrams()
    {
        int fd = _datagrams;
        _datagrams = -1;
        return fd;
    }

    /// <summary>
    /// Finds out whether anybody listens at an address; <paramref name="done"/> is called on the gate's thread, with 0, ETIMEDOUT if there was no answer in
    /// time, or another errno value. From any thread.
    /// </summary>
    public void Probe(IPEndPoint address, Action<int> done) => _reactor.Post(() =>
    {
        int fd = Sockets.BeginConnect(address);
        if (fd < 0) done(-fd);
        else new AddressProbe(_reactor, fd, done).Begin(ProbeDeadlineMicroseconds);
    });

    /// <summary>Starts the thread.</summary>
    public void Start()
    {
        if (_listener >= 0) _reactor.Watch(_listener, EpollEvents.Readable, _acceptor);
        _reactor.Every(100_000, Tick, () => _listenerPaused || _connections.Count > 0);
        _thread = new Thread(_reactor.Run) { Name = "vsmp-gate", IsBackground = true };
        _thread.Start();
    }

    /// <summary>
    /// Makes a connection and the handshake; <paramref name="done"/> is called on the gate's thread. From any thread.
    /// </summary>
    public void Connect(OutgoingRequest request, Action<HandshakeResult> done) => _reactor.Post(() =>
    {
        int fd = Sockets.BeginConnect(request.Address);
        if (fd < 0)
        {
            done(new HandshakeResult(HandshakeStatus.Unreachable, Explain(-fd), -1, []));
            return;
        }
        Sockets.SetUpConnection(fd);
        var connection = new OutgoingHandshake(this, fd, Now + HandshakeDeadlineMicroseconds, request, done);
        _connections.Add(connection);
        connection.Begin();
    });

    /// <summary>Runs an action on the gate's thread. From any thread.</summary>
    public void Post(Action action) => _reactor.Post(action);

    /// <summary>Stops the thread and closes what is open.</summary>
    public void Dispose()
    {
        _reactor.Stop();
        _thread?.Join();
        foreach (HandshakeConnection connection in _connections.ToArray()) connection.Abandon();
        if (_listener >= 0) _ = Libc.Close(_listener);
        _listener = -1;
        if (TakeDatagrams() is >= 0 and var datagrams) _ = Libc.Close(datagrams);
        _reactor.Dispose();
    }

    /// <summary>Why a connection could not be made.</summary>
    internal static string Explain(int errno) =>
        errno == Errno.ECONNREFUSED ? $"{Errno.Text(errno)}: no agent listens there" : Errno.Text(errno);

    internal void Watch(HandshakeConnection connection, EpollEvents events)
    {
        if (_watched.Add(connection.Fd)) _reactor.Watch(connection.Fd, events, connection);
        else _reactor.Change(connection.Fd, events);
    }

    internal void Forget(HandshakeConnection connection)
    {
        if (_watched.Remove(connection.Fd)) _reactor.Unwatch(connection.Fd);
        _connections.Remove(connection);
    }

    /// <summary>Runs once, on the gate's thread, when that much time has gone by. On the gate's thread.</summary>
    internal void After(long microseconds, Action action) => _reactor.After(microseconds, action);

    internal void Complain(IPEndPoint remote, string what) =>
        _log.Write($"fabric: refused a connection from {remote}: it {what}");

    private void AcceptSome()
    {
        for (int i = 0; i < AcceptsPerTurn; i++)
        {
            int fd = Sockets.Accept(_listener, out IPEndPoint? remote);
            if (fd < 0)
            {
                if (Errno.Last is Errno.EAGAIN or Errno.EINTR or Errno.ECONNRESET or 103 or Errno.EPROTO) return;
                // Out of descriptors or memory: look again at the next tick, rather than spin.
                _log.Write($"fabric: cannot accept a connection: {Errno.Text(Errno.Last)}");
                _reactor.Unwatch(_listener);
                _listenerPaused = true;
                return;
            }
            Sockets.SetUpConnection(fd);
            if (CountHalfOpen(out IncomingHandshake? oldest) >= MaxHalfOpen) oldest!.Abandon();
            var connection = new IncomingHandshake(this, fd, remote!, Now + HandshakeDeadlineMicroseconds);
            _connections.Add(connection);
            connection.Begin();
        }
    }

    private int CountHalfOpen(out IncomingHandshake? oldest)
    {
        oldest = null;
        int count = 0;
        foreach (HandshakeConnection connection in _connections)
        {
            if (connection is not IncomingHandshake { IsAuthenticated: false } incoming) continue;
            oldest ??= incoming;
            count++;
        }
        return count;
    }

    private void Tick()
    {
        if (_listenerPaused)
        {
            _listenerPaused = false;
            _reactor.Watch(_listener, EpollEvents.Readable, _acceptor);
        }
        for (int i = _connections.Count - 1; i >= 0; i--)
        {
            if (i < _connections.Count && _connections[i].Deadline <= Now) _connections[i].OnDeadline();
        }
    }

    private sealed class Acceptor(PeerGate gate) : IReactorHandler
    {
        public void OnReady(EpollEvents events) => gate.AcceptSome();
    }
}
