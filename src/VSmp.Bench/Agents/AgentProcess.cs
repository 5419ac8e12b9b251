// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Bench.Running;

namespace VSmp.Bench.Agents;

/// <summary>An agent on this host, seen from outside, and asked what it counts.</summary>
internal sealed class AgentProcess : IDisposable
{
    private readonly int _processId;
    private readonly ControlClient _client;

    private AgentProcess(int processId, ControlClient client) => (_processId, _client) = (processId, client);

    /// <summary>The agents of a cluster's nodes.</summary>
    /// <exception cref="BenchException">One does not run here.</exception>
    public static AgentProcess[] Of(BenchCluster cluster)
    {
        Dictionary<string, AgentFolder> folders = LocalAgents.Running(cluster.Name).ToDictionary(agent => agent.Name);
        return [.. cluster.Nodes.Select(node => folders.TryGetValue(node, out AgentFolder? folder) && folder.Running() is { } process
            ? new AgentProcess(process.ProcessId, ControlClient.Connect(folder))
            : throw new BenchException($"agent {node} does not run"))];
    }

    /// <summary>The processor time that it has taken so far, in microseconds.</summary>
    public long ProcessorMicroseconds => ProcessControl.ProcessorMicroseconds(_processId) is >= 0 and var time
        ? time
        : throw new BenchException("an agent has ended");

    /// <summary>Its resident memory, in KiB. An agent never maps its frames, so they are not in it.</summary>
    public long ResidentKibibytes => ParseResident(File.ReadLines($"/proc/{_processId}/status"));

    /// <summary>What it counts. Its reactor allocates the answer.</summary>
    public AgentStatistics Statistics => _client.GetStatus().Agent;

    /// <summary>The resident memory that the lines of <c>/proc/PID/status</c> tell, in KiB.</summary>
    /// <exception cref="BenchException">They tell none: the process has ended.</exception>
    internal static long ParseResident(IEnumerable<string> lines)
    {
        const string Field = "VmRSS:";
        string line = lines.FirstOrDefault(line => line.StartsWith(Field, StringComparison.Ordinal))
            ?? throw new BenchException("an agent has ended: it has no memory any more");
        return long.Parse(line[Field.Length..].Trim().Split(' ')[0], CultureInfo.InvariantCulture);
    }

    /// <inheritdoc/>
    public void Dispose() => _client.Dispose();
}
