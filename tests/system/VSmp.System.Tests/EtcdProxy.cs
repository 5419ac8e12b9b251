// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Net.Sockets;

namespace VSmp.SystemTests;

/// <summary>The way of one agent to etcd, which can be cut, or swallow whatever comes; nobody else's way goes through it.</summary>
internal sealed class EtcdProxy : IDisposable
{
    private readonly Lock _gate = new();
    private readonly IPEndPoint _etcd;
    private readonly IPEndPoint _here;
    private readonly List<Socket> _sockets = []; // of connections that stand; under _gate, as is all that follows
    private Socket? _listener;
    private bool _swallows;

    /// <summary>A way to etcd that is open.</summary>
    /// <param name="etcd">etcd's address, <c>etcd://127.0.0.1:PORT</c>.</param>
    public EtcdProxy(string etcd)
    {
        _etcd = IPEndPoint.Parse(etcd["etcd://".Length..]);
        _here = new IPEndPoint(IPAddress.Loopback, EtcdServer.FreePort());
        Open();
    }

    /// <summary>What the agent is given as etcd's address.</summary>
    public string Address => $"etcd://{_here}";

    /// <summary>Cuts what stands, and refuses new connections; or takes them, and what comes by any, and says nothing.</summary>
    public void Cut(bool swallows)
    {
        lock (_gate)
        {
            _swallows = swallows;
            if (swallows) return;
            CloseAll();
        }
    }

    /// <summary>Lets through what comes from now on. Connections from which something was swallowed are cut: nothing is to come late.</summary>
    public void Heal()
    {
        lock (_gate) CloseAll();
        Open();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate) CloseAll();
    }

    private void Open()
    {
        Socket listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
        listener.Bind(_here);
        listener.Listen(64);
        lock (_gate)
        {
            _swallows = false;
            _listener = listener;
        }
        _ = AcceptAsync(listener);
    }

    private void CloseAll()
    {
        _listener?.Dispose();
        _listener = null;
        foreach (Socket socket in _sockets) socket.Dispose();
        _sockets.Clear();
    }

    private async Task AcceptAsync(Socket listener)
    {
        try
        {
            while (true) _ = ServeAsync(await listener.AcceptAsync(), listener);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // Closed.
        }
    }

    private async Task ServeAsync(Socket agent, Socket listener)
    {
        using Socket etcd = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        using (agent)
        {
            lock (_gate)
            {
                if (_listener != listener) return; // cut meanwhile
                _sockets.AddRange([agent, etcd]);
            }
            try
            {
                await etcd.ConnectAsync(_etcd);
                await Task.WhenAny(PassAsync(agent, etcd), PassAsync(etcd, agent)); // HTTP needs both ways
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // Cut, or one of the two has gone: so does the other.
            }
            lock (_gate) _sockets.RemoveAll(socket => socket == agent || socket == etcd);
        }
    }

    private async Task PassAsync(Socket from, Socket to)
    {
        byte[] buffer = new byte[64 << 10];
        while (await from.ReceiveAsync(buffer) is var count and > 0)
        {
            lock (_gate)
            {
                if (_swallows) continue;
            }
            for (int sent = 0; sent < count;) sent += await to.SendAsync(buffer.AsMemory(sent, count - sent));
        }
    }
}
