// SPDX-License-Identifier: Apache-2.0
using System.Security.Cryptography;
using System.Text.Json;

namespace VSmp.SystemTests;

/// <summary>
/// Agents that share nothing but a network: each in a network namespace and a mount namespace of its own, with its own /run and
/// its own tmpfs, as on two hosts.
/// </summary>
public sealed class NamespaceTests : IDisposable
{
    private readonly string _cluster = Cluster.NewName();
    private readonly string _scratch = Directory.CreateTempSubdirectory("vsmp-test-").FullName;
    private readonly string _secret;
    private readonly List<(string Name, Command Agent)> _hosts = [];

    public NamespaceTests()
    {
        _secret = Path.Combine(_scratch, "secret");
        File.WriteAllText(_secret, RandomNumberGenerator.GetHexString(64));
        File.SetUnixFileMode(_secret, UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    [Fact]
    public void Programs_run_on_agents_that_share_nothing_but_a_network()
    {
        StartHosts();
        string[][] programs = [
            [Paths.Program("heap-check"), "48"],
            [Paths.Program("fork-tree"), "48"],
            [Paths.Program("remap-check"), "48"],
            ["sh", "-c", $"{Paths.Program("threads-check")} 2 64 | cat"],
            ["memtester", "100M", "1"],
        ];
        for (int i = 0; i < programs.Length; i++)
        {
            string statisticsFile = Path.Combine(_scratch, $"{i}.json");
            In(i % 2, 240, [Paths.Vsmp, "run", "--local", "32M", "--stats", statisticsFile, "--", .. programs[i]]).Succeeded();
            Statistics statistics = new(statisticsFile);
            // Its memory is on the other host, and what it uses is here.
            Assert.True(statistics.PeakHomeBytes[i % 2 == 0 ? "beta" : "alpha"] > 0, $"{statistics}");
            Assert.InRange(statistics["peakLocalBytes"], 1, Cluster.MiB(32));
        }
        Wait.Until(() => AllocatedBytes(0) + AllocatedBytes(1) == 0, 10, () => "guests have ended, but their pages are there");

        StopHosts();
    }

    [Fact]
    public void Ranks_on_other_hosts_are_started_by_their_agents_with_the_callers_rights_and_no_more()
    {
        StartHosts("--group", "nogroup");
        string file = Path.Combine(_scratch, "job.json");
        Outcome hello = In(0, 60, [Paths.Vsmp, "spmd", "-n", "4", "--stats", file, "--", Paths.Program("spmd-hello"), "100"]).Succeeded();
        Assert.Equal(["rank 0 of", "rank 1 of", "rank 2 of", "rank 3 of"],
            hello.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line[..9]).Order());
        Dictionary<string, Statistics> nodes = Statistics.OfJob(file);
        Assert.Equal(["alpha", "beta"], nodes.Keys.Order());
        Assert.All(nodes.Values, node => Assert.True(node.Faults > 0 && node["pagesFetched"] > 0, $"{node}"));
        In(1, 60, [Paths.Vsmp, "spmd", "-n", "3", "--on", "alpha", "--", Paths.Program("spmd-hello"), "50"]).Succeeded(); // none here at all

        // Page faults can be timed, but not counted from here.
        Outcome faults = In(0, 60, [Path.Combine(Paths.Build, "vsmp-bench"), "fault", "--cluster", _cluster, "--pages", "20"]).Succeeded();
        Assert.Contains("agents on other hosts cannot be asked: beta", faults.Output, StringComparison.Ordinal);
        Assert.Contains("| I→S dirty at home ", faults.Output, StringComparison.Ordinal);

        // Both streams, exit codes and deaths come back.
        Outcome ended = In(0, 60, [Paths.Vsmp, "spmd", "-n", "2", "--", "sh", "-c", "echo out $VSMP_RANK; echo err $VSMP_RANK >&2; exit $((VSMP_RANK * 7))"]);
        Assert.True(ended.ExitCode == 7, $"{ended.ExitCode}\n{ended.Output}\n{ended.Error}");
        Assert.Contains("out 1", ended.Output, StringComparison.Ordinal);
        Assert.Contains("err 1", ended.Error, StringComparison.Ordinal);
        Assert.Contains("rank 1", ended.Error, StringComparison.Ordinal);
        Outcome killed = In(0, 60, [Paths.Vsmp, "spmd", "-n", "3", "--", Paths.Program("spmd-die"), "lock"]);
        Assert.True(killed.ExitCode == 128 + Native.SIGKILL, $"{killed.ExitCode}\n{killed.Output}\n{killed.Error}");
        Assert.Contains("EOWNERDEAD", killed.Output, StringComparison.Ordinal);
        In(0, 60, [Paths.Vsmp, "spmd", "-n", "1", "--on", "beta", "--", "/no/such/program"]).FailedWith(127, "no such program");

        // A lot of output, whole and in order.
        Outcome much = In(0, 60, ["sh", "-c", $"{Paths.Vsmp} spmd -n 1 --on beta -- seq 300000 | cksum; seq 300000 | cksum"]).Succeeded();
        string[] sums = much.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.True(sums.Length == 2 && sums[0] == sums[1], much.Output + much.Error);

        // A lot of input, too; and a rank that does not want it holds nobody up.
        Outcome fed = In(0, 60, ["sh", "-c", $"seq 300000 | {Paths.Vsmp} spmd -n 2 --on beta,alpha -- cat | cksum; seq 300000 | cksum"]).Succeeded();
        sums = fed.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.True(sums.Length == 2 && sums[0] == sums[1], fed.Output + fed.Error);
        In(0, 60, ["sh", "-c", $"yes | {Paths.Vsmp} spmd -n 2 --on beta,alpha -- sh -c 'exec <&-; sleep 1'"]).Succeeded();
        In(0, 60, ["sh", "-c", $"yes | {Paths.Vsmp} spmd -n 2 --on beta,alpha -- sleep 1"]).Succeeded();
        Assert.Equal("0\n", In(0, 60, ["sh", "-c", $"{Paths.Vsmp} spmd -n 1 --on beta -- wc -c < /dev/null"]).Succeeded().Output);

        // As the user who asks, with his group alone.
        Outcome user = In(0, 60, ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
            Paths.Vsmp, "spmd", "-n", "2", "--", "sh", "-c", "echo $(id -u) $(id -g) $(id -G) $(grep CapEff /proc/self/status)"]).Succeeded();
        string[] rights = user.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(2, rights.Length);
        Assert.All(rights, line => Assert.Equal("65534 65534 65534 CapEff: 0000000000000000", line));
        In(0, 60, ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", Paths.Vsmp, "spmd", "-n", "2", "--", Paths.Program("spmd-hello"), "20"])
            .Succeeded();

        // What is interrupted leaves nothing behind, here or there.
        using (Command held = StartIn(0, [Paths.Vsmp, "spmd", "-n", "4", "--", Paths.Program("spmd-hold"), "8"]))
        {
            held.WaitFor("ready");
            held.Signal(Native.SIGTERM);
            Assert.Equal(128 + Native.SIGTERM, held.WaitForEnd(30).ExitCode);
        }
        using (Command held = StartIn(0, [Paths.Vsmp, "spmd", "-n", "4", "--", Paths.Program("spmd-hold"), "8"]))
        {
            held.WaitFor("ready");
            held.Signal(Native.SIGKILL);
            _ = held.WaitForEnd(30);
        }
        Wait.Until(() => AllocatedBytes(0) + AllocatedBytes(1) == 0, 15, () => "jobs have ended, but their pages are there");
        Wait.Until(() => !Leftovers.Of(_cluster).Any(line => line.Contains("spmd-", StringComparison.Ordinal)), 15,
            () => string.Join('\n', Leftovers.Of(_cluster)));
        StopHosts();
    }

    [Fact]
    public void A_host_that_dies_ends_the_jobs_that_it_is_part_of_and_the_others_agent_goes_on()
    {
        StartHosts();
        using (Command job = StartIn(0, [Paths.Vsmp, "spmd", "-n", "2", "--local", "8M", "--", Paths.Program("spmd-hold"), "256"]))
        {
            job.WaitFor("ready");
            _hosts[1].Agent.Signal(Native.SIGKILL);
            Outcome ended = job.WaitForEnd(60);
            Assert.True(ended.ExitCode == 9, $"{ended.ExitCode}\n{ended.Error}");
            Assert.Contains("node beta is lost", ended.Error, StringComparison.Ordinal);
        }
        _hosts[1].Agent.Dispose();
        _hosts.RemoveAt(1);
        In(0, 60, [Paths.Vsmp, "spmd", "-n", "2", "--", Paths.Program("spmd-hello"), "100"]).Succeeded();
        Wait.Until(() => AllocatedBytes(0) == 0, 15, () => "guests have ended, but their pages are there");
        StopHosts();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var (_, agent) in _hosts) agent.Dispose();
        foreach (string suffix in new[] { "-a", "-b" })
        {
            if (File.Exists($"/run/netns/{_cluster}{suffix}")) Ip("netns", "delete", _cluster + suffix);
        }
        Directory.Delete(_scratch, recursive: true);
    }

    private void StartHosts(params string[] options)
    {
        Prerequisites.Check();
        string[] names = [$"{_cluster}-a", $"{_cluster}-b"];
        foreach (string name in names) Ip("netns", "add", name);
        Ip("link", "add", "v0", "netns", names[0], "type", "veth", "peer", "name", "v0", "netns", names[1]);
        for (int i = 0; i < names.Length; i++)
        {
            Ip("-n", names[i], "address", "add", $"10.77.0.{i + 1}/24", "dev", "v0");
            Ip("-n", names[i], "link", "set", "v0", "up");
            Ip("-n", names[i], "link", "set", "lo", "up");
        }

        StartAgent(names[0], "alpha", ["--listen", "10.77.0.1:7070", .. options]);
        Wait.Until(() => NodesUp(0) == 1, 30, () => "agent alpha: " + _hosts[0].Agent.Error);
        StartAgent(names[1], "beta", ["--listen", "10.77.0.2:7070", "--join", "10.77.0.1:7070", .. options]);
        Wait.Until(() => NodesUp(0) == 2 && NodesUp(1) == 2, 30, () => "agent beta: " + _hosts[1].Agent.Error);
        Assert.False(Directory.Exists($"/run/vsmp/{_cluster}"), "the agents have a /run of their own");
    }

    private void StopHosts()
    {
        foreach (var (name, agent) in Enumerable.Reverse(_hosts)) // without its founder a cluster ends
        {
            agent.Signal(Native.SIGTERM);
            Assert.True(agent.WaitForEnd(30).ExitCode is 0 or 128 + Native.SIGTERM, $"{name}: {agent.Error}");
        }
        Assert.Empty(Leftovers.Of(_cluster));
    }

    private Command StartIn(int host, string[] command) => new("nsenter",
        ["--target", $"{_hosts[host].Agent.ProcessId}", "--net", "--mount", "--", .. command],
        new Dictionary<string, string> { ["VSMP_CLUSTER"] = _cluster });

    private static void Ip(params string[] arguments) => Command.Run("ip", arguments).Succeeded();

    private void StartAgent(string host, string name, params string[] addresses)
    {
        // `ip netns exec` and `unshare` replace themselves by the next program: the agent is the process that we start.
        const string Script = "mount -t tmpfs -o mode=755 none /run && exec \"$@\"";
        _hosts.Add((name, new Command("ip", ["netns", "exec", host, "unshare", "--mount", "--propagation", "private",
            "sh", "-c", Script, "sh", Paths.Vsmp, "agent", "--name", name, "--memory", "256M", "--secret", _secret, .. addresses],
            new Dictionary<string, string> { ["VSMP_CLUSTER"] = _cluster })));
    }

    private Outcome In(int host, int seconds, string[] command) => Command.Run("nsenter",
        ["--target", $"{_hosts[host].Agent.ProcessId}", "--net", "--mount", "--", .. command],
        new Dictionary<string, string> { ["VSMP_CLUSTER"] = _cluster, ["MEMTESTER_TEST_MASK"] = "0x1" }, seconds);

    private int NodesUp(int host)
    {
        Assert.True(_hosts[host].Agent.IsRunning, "the agent ended: " + _hosts[host].Agent.Error);
        Outcome status = In(host, 30, [Paths.Vsmp, "status", "--json"]);
        if (status.ExitCode != 0) return 0;
        return JsonDocument.Parse(status.Output).RootElement.GetProperty("nodes").EnumerateArray()
            .Count(node => node.GetProperty("state").GetString() == "up");
    }

    private long AllocatedBytes(int host)
    {
        var (name, agent) = _hosts[host];
        DriveInfo frames = new($"/proc/{agent.ProcessId}/root/run/vsmp/{_cluster}/{name}/frames");
        return frames.TotalSize - frames.TotalFreeSpace;
    }
}
