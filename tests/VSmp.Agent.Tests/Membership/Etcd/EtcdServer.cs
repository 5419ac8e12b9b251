// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using VSmp.Agent.Interop;
using VSmp.Agent.Membership.Etcd;
using Xunit;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>
/// A real etcd of one member on loopback, with its data in a folder of its own: it can be stopped, killed and started again on the same
/// ports. As a class fixture it is started before the first test; otherwise by <see cref="StartAsync"/>.
/// </summary>
public sealed class EtcdServer : IAsyncLifetime
{
    private const string Ready = "ready to serve client requests";

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-etcd-").FullName;
    private readonly string[] _arguments;
    private readonly HttpClient _http = new(new SocketsHttpHandler { UseProxy = false });
    private readonly StringBuilder _output = new();
    private Process? _process;

    public EtcdServer()
        : this([])
    {
    }

    /// <param name="arguments">More of etcd's options.</param>
    /// <param name="isTls">Whether clients come over TLS; the options then name certificate and key.</param>
    internal EtcdServer(string[] arguments, bool isTls = false)
    {
        _arguments = arguments;
        Scheme = isTls ? "https" : "http";
        ClientPort = FreePort();
        do PeerPort = FreePort();
        while (PeerPort == ClientPort);
    }

    public int ClientPort { get; }

    public int PeerPort { get; }

    /// <summary>What a user writes to reach it.</summary>
    public string Address => $"{(Scheme == "https" ? "etcds" : "etcd")}://127.0.0.1:{ClientPort}";

    /// <summary>All that it has printed.</summary>
    public string Output
    {
        get
        {
            lock (_output) return _output.ToString();
        }
    }

    /// <summary>The token of a user that the methods below act as, once authentication is on.</summary>
    public string? Token { get; set; }

    private string Scheme { get; }

    private string DataFolder => Path.Combine(_folder, "data");

    internal EtcdAddress Parsed => EtcdAddress.Parse(Address);

    public async ValueTask InitializeAsync() => await StartAsync();

    /// <summary>Starts it, and returns when it answers.</summary>
    public async Task StartAsync()
    {
        Assert.Null(_process);
        string client = $"{Scheme}://127.0.0.1:{ClientPort}", peer = $"http://127.0.0.1:{PeerPort}";
        ProcessStartInfo start = new("etcd",
        [
            "--name", "test", "--data-dir", DataFolder, "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", $"test={peer}",
            // So that it leads at once, and grants leases of one second.
            "--heartbeat-interval", "10", "--election-timeout", "100", .. _arguments,
        ])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (string variable in start.Environment.Keys.Where(k => k.StartsWith("ETCD_", StringComparison.Ordinal)).ToArray())
            _ = start.Environment.Remove(variable);
        TaskCompletionSource ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Process process = new() { StartInfo = start, EnableRaisingEvents = true };
        process.OutputDataReceived += (_, e) => OnLine(e.Data);
        process.ErrorDataReceived += (_, e) => OnLine(e.Data);
        process.Exited += (_, _) => ready.TrySetException(new InvalidOperationException($"etcd ended at once:\n{Output}"));
        try
        {
            _ = process.Start();
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            throw new InvalidOperationException("etcd cannot be started; Debian's package is etcd-server", e);
        }
        _process = process;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        await ready.Task.WaitAsync(Patience);

        void OnLine(string? line)
        {
            if (line is null) return;
            lock (_output) _ = _output.AppendLine(line);
            if (line.Contains(Ready, StringComparison.Ordinal)) _ = ready.TrySetResult();
        }
    }

    /// <summary>Ends it as an administrator does.</summary>
    public Task StopAsync() => EndAsync(Signals.SIGTERM);

    /// <summary>Ends it as a power failure does.</summary>
    public Task KillAsync() => EndAsync(Signals.SIGKILL);

    /// <summary>Kills it and starts it again.</summary>
    public async Task RestartAsync()
    {
        await KillAsync();
        await StartAsync();
    }

    /// <summary>Forgets everything; it must not be running.</summary>
    public void Empty() => Directory.Delete(DataFolder, recursive: true);

    public async ValueTask DisposeAsync()
    {
        if (_process is not null) await KillAsync();
        _http.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    // What an administrator does with etcdctl.

    public async Task<JsonNode> PostAsync(string path, object body)
    {
        using HttpRequestMessage request = new(HttpMethod.Post, $"{Scheme}://127.0.0.1:{ClientPort}/v3/{path}")
        {
            Content = new StringContent(JsonSerializer.Serialize(body), new MediaTypeHeaderValue("application/json")),
        };
        if (Token is not null) _ = request.Headers.TryAddWithoutValidation("Authorization", Token);
        using HttpResponseMessage response = await _http.SendAsync(request);
        string text = await response.Content.ReadAsStringAsync();
        return response.IsSuccessStatusCode ? JsonNode.Parse(text)! : throw new InvalidOperationException($"{path}: {text}");
    }

    public Task PutAsync(string key, string value) => PostAsync("kv/put", new { key = Base64(key), value = Base64(value) });

    public Task DeleteAsync(string key) => PostAsync("kv/deleterange", new { key = Base64(key) });

    public Task CompactAsync(long revision) => PostAsync("kv/compaction", new { revision = $"{revision}" });

    public async Task RevokeAllLeasesAsync()
    {
        JsonNode reply = await PostAsync("lease/leases", new { });
        foreach (JsonNode? lease in reply["leases"]?.AsArray() ?? [])
            _ = await PostAsync("lease/revoke", new { ID = (string)lease!["ID"]! });
    }

    /// <summary>Makes a user that may use one cluster's keys and no others, and switches authentication on; acts as root from then on.</summary>
    public async Task EnableAuthenticationAsync(string user, string password, string cluster)
    {
        _ = await PostAsync("auth/user/add", new { name = "root", password = "rootpw" });
        _ = await PostAsync("auth/role/add", new { name = "root" });
        _ = await PostAsync("auth/user/grant", new { user = "root", role = "root" });
        _ = await PostAsync("auth/role/add", new { name = "vsmp" });
        _ = await PostAsync("auth/role/grant", new
        {
            name = "vsmp",
            perm = new { permType = "READWRITE", key = Base64($"/vsmp/{cluster}/"), range_end = Base64($"/vsmp/{cluster}0") },
        });
        _ = await PostAsync("auth/user/add", new { name = user, password });
        _ = await PostAsync("auth/user/grant", new { user, role = "vsmp" });
        _ = await PostAsync("auth/enable", new { });
        Token = (string)(await PostAsync("auth/authenticate", new { name = "root", password = "rootpw" }))["token"]!;
    }

    private static string Base64(string text) => Convert.ToBase64String(Encoding.UTF8.GetBytes(text));

    private async Task EndAsync(int signal)
    {
        Process process = _process ?? throw new InvalidOperationException("etcd is not running");
        _process = null;
        _ = Libc.Kill(process.Id, signal);
        await process.WaitForExitAsync().WaitAsync(Patience);
        process.Dispose();
    }

    // Below the ports that the kernel gives to outgoing connections, so that none of those sits on it when etcd comes back.
    private static int FreePort()
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
