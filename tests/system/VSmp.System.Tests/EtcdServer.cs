// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Net.Sockets;

namespace VSmp.SystemTests;

/// <summary>A real etcd of one member on loopback, of this test alone, that can be killed and started again.</summary>
internal sealed class EtcdServer : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-etcd-").FullName;
    private readonly int _port = FreePort(), _peerPort = FreePort();
    private Command? _process;

    /// <summary>What a user writes to reach it.</summary>
    public string Address => $"etcd://127.0.0.1:{_port}";

    /// <summary>Starts it, with what it knew when it ended; returns when it serves.</summary>
    public void Start()
    {
        string client = $"http://127.0.0.1:{_port}", peer = $"http://127.0.0.1:{_peerPort}";
        _process = new Command("etcd",
        [
            "--name", "only", "--data-dir", Path.Combine(_folder, "data"), "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", $"only={peer}",
        ]);
        Command process = _process;
        Wait.Until(() => process.Error.Contains("ready to serve client requests", StringComparison.Ordinal) || !process.IsRunning, 60, () => process.Error,
            then: () => Assert.True(process.IsRunning, process.Error));
    }

    /// <summary>Ends it as a power failure does.</summary>
    public void Kill()
    {
        _process!.Dispose();
        _process = null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _process?.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    /// <summary>A port of loopback that nobody listens at.</summary>
    /// <remarks>Below the ports that the kernel gives to outgoing connections, so that none of those sits on it when somebody listens there again.</remarks>
    internal static int FreePort()
    {
        while (true)
        {
            int port = Random.Shared.Next(20_000, 32_000);
            using Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            try
            {
                socket.Bind(new IPEndPoint(IPAddress.Loopback, port));
                return port;
            }
            catch (SocketException)
            {
                // Taken.
            }
        }
    }
}
