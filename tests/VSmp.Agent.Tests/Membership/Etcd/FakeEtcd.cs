// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>
/// What may stand where etcd should be: a server that takes HTTP requests and does with them what the test says, such as passing them on
/// to a real etcd and losing the answer.
/// </summary>
internal sealed class FakeEtcd : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _ending = new();
    private readonly HttpClient _upstream = new(new SocketsHttpHandler { UseProxy = false }) { Timeout = Timeout.InfiniteTimeSpan };
    private readonly List<Task> _connections = [];
    private readonly Task _accepting;

    /// <param name="answer">Answers a request on its connection, which is then closed.</param>
    public FakeEtcd(Func<Request, Task> answer)
    {
        _listener.Start();
        Port = ((IPEndPoint)_listener.LocalEndpoint).Port;
        _accepting = AcceptAsync(answer);
    }

    public int Port { get; }

    public string Address => $"etcd://127.0.0.1:{Port}";

    public static byte[] Ok(string body) => Reply("200 OK", body);

    public static byte[] Reply(string status, string body) => Encoding.UTF8.GetBytes(
        $"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {Encoding.UTF8.GetByteCount(body)}\r\n"
        + $"Connection: close\r\n\r\n{body}");

    public async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync();
        await _accepting;
        _listener.Stop();
        await Task.WhenAll(_connections);
        _upstream.Dispose();
        _ending.Dispose();
    }

    private async Task AcceptAsync(Func<Request, Task> answer)
    {
        try
        {
            while (true)
            {
                TcpClient client = await _listener.AcceptTcpClientAsync(_ending.Token);
                _connections.Add(Task.Run(() => ServeAsync(client, answer)));
            }
        }
        catch (OperationCanceledException)
        {
            // The test is over.
        }
    }

    private async Task ServeAsync(TcpClient client, Func<Request, Task> answer)
    {
        using (client)
        {
            try
            {
                await using NetworkStream stream = client.GetStream();
                (string path, byte[] body) = await ReadAsync(stream);
                await answer(new Request(path, body, stream, _upstream, _ending.Token));
            }
            catch (Exception e) when (e is IOException or OperationCanceledException or HttpRequestException or EndOfStreamException)
            {
                // The client, etcd or the test went away.
            }
        }
    }

    private async Task<(string Path, byte[] Body)> ReadAsync(NetworkStream stream)
    {
        List<byte> head = [];
        byte[] one = new byte[1];
        while (head.Count < 4 || !(head[^1] == '\n' && head[^3] == '\n'))
        {
            await stream.ReadExactlyAsync(one, _ending.Token);
            head.Add(one[0]);
        }
        string[] lines = Encoding.ASCII.GetString([.. head]).Split("\r\n");
        string length = lines.FirstOrDefault(l => l.StartsWith("Content-Length:", StringComparison.OrdinalIgnoreCase)) ?? "Content-Length: 0";
        byte[] body = new byte[int.Parse(length["Content-Length:".Length..], CultureInfo.InvariantCulture)];
        await stream.ReadExactlyAsync(body, _ending.Token);
        return (lines[0].Split(' ')[1], body);
    }

    /// <summary>A request, and what can be done with it.</summary>
    internal sealed record Request(string Path, byte[] Body, NetworkStream Stream, HttpClient Upstream, CancellationToken Ending)
    {
        /// <summary>Sends raw bytes.</summary>
        public Task SendAsync(byte[] bytes) => Stream.WriteAsync(bytes, Ending).AsTask();

        /// <summary>Has a real etcd answer, and gives the answer.</summary>
        public async Task<byte[]> AskAsync(EtcdServer etcd)
        {
            using HttpResponseMessage response = await Upstream.PostAsync(
                new Uri($"http://127.0.0.1:{etcd.ClientPort}{Path}"), new ByteArrayContent(Body), Ending);
            string body = await response.Content.ReadAsStringAsync(Ending);
            return Reply($"{(int)response.StatusCode} {response.StatusCode}", body);
        }

        /// <summary>Has a real etcd answer, and passes that on.</summary>
        public async Task PassOnAsync(EtcdServer etcd) => await SendAsync(await AskAsync(etcd));

        /// <summary>Says nothing more, but does not hang up, until the test is over.</summary>
        public Task KeepSilentAsync() => Task.Delay(Timeout.Infinite, Ending);
    }
}
