// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>Checkpoints in the memory of a cluster's nodes, as a command sees them: through an agent of this host.</summary>
internal sealed class CheckpointMemory
{
    private readonly ControlClient _client;
    private readonly string[] _nodes;

    /// <summary>Looks which nodes there are.</summary>
    /// <param name="cluster">The cluster.</param>
    /// <exception cref="CommandException">There is no agent to be asked.</exception>
    public CheckpointMemory(string cluster)
    {
        _client = LocalAgents.ConnectToAny(LocalAgents.Running(cluster)); // until the command ends
        _nodes = [.. _client.GetStatus().Nodes.Where(node => node.State != "unreachable").Select(node => node.Name)];
    }

    /// <summary>The names of the checkpoints that there are.</summary>
    public IReadOnlyList<string> Names() => [.. _nodes.SelectMany(node => Encoding.ASCII.GetString(Ask(node, new FileRequest(FileOperation.Checkpoints, ""))).Split('\n', StringSplitOptions.RemoveEmptyEntries))
        .Distinct().Order(NaturalOrder.Instance)];

    /// <summary>One of them, whether or not it is there.</summary>
    /// <param name="root">Where those on disk are.</param>
    /// <param name="name">Its name.</param>
    public CheckpointFolder At(string root, string name)
    {
        NodeStorage[] nodes = [.. _nodes.Select(node => new NodeStorage(node, name, request =>
        {
            try { return Task.FromResult(Ask(node, request)); }
            catch (CommandException e) { return Task.FromException<byte[]>(new ControlException(e.Message, e.ExitCode)); }
        }))];
        return CheckpointFolder.InMemory(root, name, new RepairingStorage(new SpreadStorage(() => nodes)));
    }

    private byte[] Ask(string node, FileRequest request) => _client.AskNode(node, NodeQuestion.CheckpointFile, request.Write());
}
