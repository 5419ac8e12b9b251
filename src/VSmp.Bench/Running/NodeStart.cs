// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Bench.Running;

/// <summary>Starts agents of a benchmark's cluster again, whose nodes were killed.</summary>
internal static class NodeStart
{
    /// <summary>Starts an agent of that name as vsmp up does; it joins some time later.</summary>
    /// <param name="cluster">The cluster; its first node, n0, is up.</param>
    /// <param name="node">The node.</param>
    /// <param name="checkpoints">The folder that checkpoints are in; null: that of vsmp up.</param>
    /// <exception cref="BenchException">It cannot be started.</exception>
    public static void Again(string cluster, string node, string? checkpoints = null)
    {
        RunDirectory directory = RunDirectory.OfCurrentUser(cluster);
        AgentFolder folder = directory.Agent(node);
        using ControlClient client = ControlClient.Connect(directory.Agent("n0"));
        NodeStatus leader = client.GetStatus().Nodes.First(n => n.Name == "n0");
        ulong contributed = leader.ContributedBytes / ExtentNumber.Bytes * ExtentNumber.Bytes;
        List<string> agent = [BenchCluster.FindProgram("vsmp"), "agent", "--cluster", cluster, "--name", node, "--listen", "127.0.0.1:0", "--secret", directory.SecretFile,
            "--memory", string.Create(CultureInfo.InvariantCulture, $"{contributed}"), "--development", "--join", leader.Address];
        if (checkpoints is not null) agent.AddRange(["--checkpoints", checkpoints]);
        string[] words = KeptAgents.CommandLine(BenchCluster.FindProgram(KeptAgents.KeeperName), [.. agent]);
        EnvironmentBlock environment = EnvironmentBlock.OfThisProcess().Without("VSMP_CLUSTER").Without("NOTIFY_SOCKET");
        int pid = ProcessSpawn.Daemon(ProcessSpawn.Bytes(words[0]), [.. words.Select(ProcessSpawn.Bytes)], environment.Entries, folder.LogFile);
        if (pid < 0) throw new BenchException($"agent {node} cannot be started again: {Errno.Text(-pid)}");
    }
}
