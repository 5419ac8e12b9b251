// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;

namespace VSmp.SystemTests;

/// <summary>
/// A cluster of this test alone, made by <c>vsmp up</c>, taken down by <c>vsmp down</c>. At the end nothing of it may be left: no
/// process, no mount, no folder; and before that, no page of a guest that has ended.
/// </summary>
internal sealed class Cluster
{
    private const long Megabyte = 1 << 20;
    private static int _made;
    private readonly string _scratch = Directory.CreateTempSubdirectory("vsmp-test-").FullName;
    private int _statistics;

    private Cluster(int agents, string memory)
    {
        Name = NewName();
        Agents = [.. Enumerable.Range(0, agents).Select(i => $"n{i}")];
        Memory = memory;
    }

    /// <summary>Its name, which is unique.</summary>
    public string Name { get; }

    /// <summary>Its agents' names.</summary>
    public IReadOnlyList<string> Agents { get; }

    /// <summary>What each contributes.</summary>
    public string Memory { get; }

    /// <summary>Where its agents keep their files.</summary>
    public string RunDirectory => $"/run/vsmp/{Name}";

    /// <summary>What makes a command mean this cluster.</summary>
    public Dictionary<string, string> Environment => new() { ["VSMP_CLUSTER"] = Name };

    /// <summary>A name that no other cluster of this host has.</summary>
    public static string NewName() => $"test-{System.Environment.ProcessId}-{Interlocked.Increment(ref _made)}";

    /// <summary>Runs a test on a new cluster, then checks that nothing is left of it.</summary>
    /// <param name="agents">How many agents.</param>
    /// <param name="memory">What each contributes.</param>
    /// <param name="test">The test.</param>
    /// <param name="leavesAgents">The agents that the test leaves alive; all, if null.</param>
    /// <param name="membership">Where the membership's record is; null: at the first agent.</param>
    /// <param name="checkpoints">Where checkpoints are; null: where they are usually.</param>
    public static void Run(int agents, string memory, Action<Cluster> test, IReadOnlyList<string>? leavesAgents = null, string? membership = null, string? checkpoints = null)
    {
        Prerequisites.Check();
        Cluster cluster = new(agents, memory);
        bool passed = false;
        try
        {
            cluster.Vsmp(["up", "--agents", $"{agents}", "--memory", memory, .. membership is null ? Array.Empty<string>() : ["--membership", membership],
                .. checkpoints is null ? Array.Empty<string>() : ["--checkpoints", checkpoints]]).Succeeded();
            test(cluster);
            cluster.AllPagesAreGivenBack(leavesAgents);
            passed = true;
        }
        finally
        {
            Outcome down = cluster.Vsmp("down");
            Directory.Delete(cluster._scratch, recursive: true);
            if (passed) down.Succeeded();
            IReadOnlyList<string> left = Leftovers.Of(cluster.Name);
            if (!passed) Leftovers.Remove(cluster.Name);
            else Assert.True(left.Count == 0, $"left behind by cluster {cluster.Name}:\n{string.Join('\n', left)}");
        }
    }

    /// <summary>Runs a command of vsmp on this cluster.</summary>
    public Outcome Vsmp(params string[] arguments) => Command.Run(Paths.Vsmp, arguments, Environment);

    /// <summary>Runs a program on pooled memory, to its end.</summary>
    public (Outcome Outcome, Statistics Statistics) Guest(string[] program, string? local = null, string? node = null,
        int seconds = 120, Dictionary<string, string>? environment = null)
    {
        using GuestCommand guest = Start(program, local, node, environment);
        guest.Command.EndInput();
        Outcome outcome = guest.Command.WaitForEnd(seconds);
        Assert.True(File.Exists(guest.StatisticsFile), $"no statistics from {outcome.Command}\n{outcome.Error}");
        return (outcome, guest.Statistics);
    }

    /// <summary>Starts a program on pooled memory.</summary>
    public GuestCommand Start(string[] program, string? local = null, string? node = null,
        Dictionary<string, string>? environment = null, string? redundancy = null)
    {
        string statistics = Scratch($"stats-{Interlocked.Increment(ref _statistics)}.json");
        List<string> arguments = ["run", "--stats", statistics];
        if (local is not null) arguments.AddRange(["--local", local]);
        if (node is not null) arguments.AddRange(["--node", node]);
        if (redundancy is not null) arguments.AddRange(["--redundancy", redundancy]);
        arguments.Add("--");
        arguments.AddRange(program);
        Dictionary<string, string> all = Environment;
        foreach (var (name, value) in environment ?? []) all[name] = value;
        return new GuestCommand(new Command(Paths.Vsmp, arguments, all, _scratch), statistics);
    }

    /// <summary>A file of this test.</summary>
    public string Scratch(string name) => Path.Combine(_scratch, name);

    /// <summary>The process of an agent.</summary>
    public int ProcessId(string agent) => ReadProcess(agent, "agent.pid");

    /// <summary>The process of an agent's keeper, which lives as long as the node does.</summary>
    public int KeeperId(string agent) => ReadProcess(agent, "keeper.pid");

    /// <summary>Kills a node as the end of its host would: nobody there gets to say anything. Its guests end with it.</summary>
    public void KillNode(string agent)
    {
        int process = ProcessId(agent);
        Assert.Equal(0, Native.Kill(process, Native.SIGSTOP)); // it would bid the others farewell when its keeper goes
        if (File.Exists($"{RunDirectory}/{agent}/keeper.pid")) Assert.Equal(0, Native.Kill(KeeperId(agent), Native.SIGKILL)); // none has one that a test started
        Assert.Equal(0, Native.Kill(process, Native.SIGKILL));
    }

    /// <summary>What an agent has logged.</summary>
    public string Log(string agent) => File.ReadAllText($"{RunDirectory}/{agent}/agent.log");

    /// <summary>What the files of an agent's tmpfs hold, as the kernel counts it.</summary>
    public long AllocatedBytes(string agent)
    {
        // Through the agent's own root, which may be another mount namespace than ours.
        DriveInfo frames = new($"/proc/{ProcessId(agent)}/root{RunDirectory}/{agent}/frames");
        Assert.Equal("tmpfs", frames.DriveFormat);
        return frames.TotalSize - frames.TotalFreeSpace;
    }

    /// <summary>Fails the test unless every frame of every agent is given back, soon.</summary>
    public void AllPagesAreGivenBack(IReadOnlyList<string>? agents = null)
    {
        agents ??= Agents;
        Wait.Until(() => agents.All(agent => AllocatedBytes(agent) == 0), seconds: 10, () => "all guests have ended, but there are "
            + string.Join(", ", agents.Select(agent => $"{AllocatedBytes(agent)} bytes on {agent}")));
    }

    /// <summary><c>vsmp status --json</c>, by node.</summary>
    public Dictionary<string, JsonElement> Status()
    {
        JsonElement root = JsonDocument.Parse(Vsmp("status", "--json").Succeeded().Output).RootElement;
        return root.GetProperty("nodes").EnumerateArray().ToDictionary(node => node.GetProperty("name").GetString()!);
    }

    /// <summary>Watches an agent's allocation while something runs; gives the most that was seen.</summary>
    public long PeakAllocatedBytes(string agent, Action during)
    {
        long peak = 0;
        using ManualResetEventSlim ended = new();
        Thread sampler = new(() =>
        {
            while (!ended.Wait(5)) peak = Math.Max(peak, AllocatedBytes(agent));
        });
        sampler.Start();
        try { during(); }
        finally
        {
            ended.Set();
            sampler.Join();
        }
        return peak;
    }

    private int ReadProcess(string agent, string file) => int.Parse(File.ReadAllText($"{RunDirectory}/{agent}/{file}").Split(' ', '\n')[0]);

    /// <summary>Mebibytes in bytes.</summary>
    public static long MiB(long count) => count * Megabyte;
}

/// <summary>A program on pooled memory.</summary>
internal sealed record GuestCommand(Command Command, string StatisticsFile) : IDisposable
{
    /// <summary>Its statistics, once it has ended.</summary>
    public Statistics Statistics => new(StatisticsFile);

    /// <inheritdoc/>
    public void Dispose() => Command.Dispose();
}

/// <summary>What these tests cannot do without.</summary>
internal static class Prerequisites
{
    /// <summary>Skips the test where it cannot run.</summary>
    public static void Check()
    {
        Assert.SkipUnless(System.Environment.IsPrivilegedProcess, "needs root: agents mount a tmpfs each");
        Assert.True(File.Exists(Paths.Vsmp), $"{Paths.Vsmp} is not there: run `make build`");
    }
}

/// <summary>What is left of a cluster in this host's processes, mounts and files.</summary>
internal static class Leftovers
{
    /// <summary>Everything whose command line, environment or path names the cluster.</summary>
    public static IReadOnlyList<string> Of(string cluster)
    {
        List<string> found = [];
        foreach (var (processId, text) in Processes(cluster)) found.Add($"process {processId}: {text}");
        found.AddRange(File.ReadLines("/proc/self/mountinfo").Where(line => line.Contains(cluster + "/", StringComparison.Ordinal))
            .Select(line => "mount " + line.Split(' ')[4]));
        string folder = $"/run/vsmp/{cluster}";
        if (Directory.Exists(folder))
        {
            found.AddRange(Directory.EnumerateFileSystemEntries(folder, "*", SearchOption.AllDirectories).Prepend(folder)
                .Select(path => "file " + path));
        }
        return found;
    }

    /// <summary>Clears up behind a test that failed, so that the next ones have the machine for themselves.</summary>
    public static void Remove(string cluster)
    {
        foreach (var (processId, _) in Processes(cluster)) _ = Native.Kill(processId, Native.SIGKILL);
        foreach (string line in File.ReadAllLines("/proc/self/mountinfo"))
        {
            string path = line.Split(' ')[4];
            if (path.Contains(cluster + "/", StringComparison.Ordinal)) Command.Run("umount", ["-l", path]);
        }
        string folder = $"/run/vsmp/{cluster}";
        if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
    }

    private static List<(int ProcessId, string Text)> Processes(string cluster)
    {
        List<(int, string)> found = [];
        foreach (string folder in Directory.EnumerateDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(folder), out int processId) || processId == System.Environment.ProcessId) continue;
            try
            {
                string line = File.ReadAllText(Path.Combine(folder, "cmdline")).Replace('\0', ' ');
                string environment = File.ReadAllText(Path.Combine(folder, "environ"));
                if (Names(line, cluster) || Names(environment, cluster)) found.Add((processId, line));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // It ended while we looked.
            }
        }
        return found;
    }

    // test-7-1 is not to be found in test-7-12.
    private static bool Names(string text, string cluster)
    {
        for (int at = text.IndexOf(cluster, StringComparison.Ordinal); at >= 0; at = text.IndexOf(cluster, at + 1, StringComparison.Ordinal))
        {
            int end = at + cluster.Length;
            if (end == text.Length || !char.IsAsciiDigit(text[end])) return true;
        }
        return false;
    }
}
