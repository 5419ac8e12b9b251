// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing.Files;

/// <summary>Where checkpoints are, for this node: in the folder of <c>--checkpoints</c>, or in the memory of nodes.</summary>
/// <param name="self">This node.</param>
/// <param name="root">The folder.</param>
/// <param name="reactor">Knows who is there.</param>
/// <param name="peers">The nodes.</param>
/// <param name="memory">What this node has.</param>
/// <param name="ask">Asks another node, by its name; on the reactor.</param>
internal sealed class CheckpointFiles(NodeId self, string root, Reactor reactor, Peers peers, MemoryFiles memory, Func<string, byte[], Task<byte[]>> ask)
{
    /// <summary>The folder of <c>--checkpoints</c>.</summary>
    public string Root => root;

    /// <summary>Does what a command, or another node, asks for; elsewhere, since files can be slow.</summary>
    public Task<byte[]> Answer(byte[] request)
    {
        FileRequest asked = FileRequest.Read(request);
        return asked.Operation == FileOperation.Protect ? Protecting(asked) : Task.Run(() =>
        {
            try { return memory.Do(asked); }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException) { throw new ControlException(e.Message, ExitCodes.Failed); }
        });
    }

    /// <summary>All of a checkpoint, wherever it is.</summary>
    /// <param name="tier">Where it is.</param>
    /// <param name="checkpoint">Its name.</param>
    public IStorage All(CheckpointTier tier, string checkpoint) => tier == CheckpointTier.Disk
        ? new DiskStorage(Path.Combine(root, checkpoint))
        : new RepairingStorage(Everywhere(checkpoint));

    private SpreadStorage Everywhere(string checkpoint) => new(Present(checkpoint));

    /// <summary>The nodes that there are, this one first.</summary>
    private Func<IReadOnlyList<NodeStorage>> Present(string checkpoint) =>
        () => Ask(() => peers.All.Where(peer => peer.Node == self || peer.IsUp).OrderBy(peer => peer.Node != self).Select(peer => At(peer.Node, checkpoint)).ToArray());

    /// <summary>Where this node's part of a generation is to be written.</summary>
    /// <param name="tier">Where the checkpoint is.</param>
    /// <param name="checkpoint">Its name.</param>
    /// <param name="nodes">The nodes that have a part of it, in order: the next one is a node's partner.</param>
    public IStorage Own(CheckpointTier tier, string checkpoint, IReadOnlyList<NodeId> nodes)
    {
        if (tier == CheckpointTier.Disk) return All(tier, checkpoint);
        NodeStorage[] copies = Ask(() => tier == CheckpointTier.Xor ? new[] { At(self, checkpoint) } : [At(self, checkpoint), At(PartnerOf(self, nodes), checkpoint)]);
        return new SpreadStorage(() => copies, copies);
    }

    /// <summary>All parts of a generation are complete: where it is in memory, what is to outlive any one node is written to the others. Not on the reactor.</summary>
    /// <param name="tier">Where the checkpoint is.</param>
    /// <param name="checkpoint">Its name.</param>
    /// <param name="folder">Of the generation.</param>
    /// <param name="nodes">The nodes that have parts, in order.</param>
    /// <returns>Where its manifest is to be written.</returns>
    /// <exception cref="IOException">One of the nodes cannot.</exception>
    public IStorage Protect(CheckpointTier tier, string checkpoint, string folder, IReadOnlyList<NodeId> nodes)
    {
        if (tier == CheckpointTier.Disk) return All(tier, checkpoint);
        NodeStorage[] ring = Ask(() => nodes.Select(node => At(node, checkpoint)).ToArray());
        if (tier == CheckpointTier.Xor) Sum(ring, folder);
        return new SpreadStorage(Present(checkpoint), ring);
    }

    /// <summary>Each node writes what it has beside its own part.</summary>
    private static void Sum(NodeStorage[] ring, string folder)
    {
        // Who has no part, and is there to keep a sum, has an empty one.
        foreach (NodeStorage node in ring)
        {
            IReadOnlyList<string> files = node.Files(folder);
            foreach (string name in new[] { PartWriter.PagesName(node.Node), PartWriter.IndexName(node.Node) }.Except(files))
            {
                using IStorageFile empty = node.Create(folder, name, 0);
                empty.Sync();
            }
        }
        (NodeStorage Node, Task<byte[]> Protecting)[] all = [.. ring.Select(node => (node, node.BeginProtect(folder, ring.Select(n => n.Node))))];
        foreach ((NodeStorage node, Task<byte[]> protecting) in all) node.EndProtect(protecting);
    }

    /// <summary>On a thread of its own, since it waits for others, which wait for this node's pool.</summary>
    private Task<byte[]> Protecting(FileRequest request) => Task.Factory.StartNew(() =>
    {
        try { return Protect(request); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { throw new ControlException(e.Message, ExitCodes.Failed); }
    }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private byte[] Protect(FileRequest request)
    {
        string[] ring = Encoding.ASCII.GetString(request.Data.Span).Split('\n');
        string own = Ask(() => peers.NameOf(self));
        int place = Array.IndexOf(ring, own);
        if (place < 0 || ring.Length < 2 || !Array.TrueForAll(ring, RunDirectory.IsValidName)) throw new IOException($"node {own} is not among those that have parts");
        Parity.Write(Everywhere(request.Checkpoint), Ask(() => At(self, request.Checkpoint)), request.Folder, ring, place);
        return [];
    }

    /// <summary>The node that has a copy of what a node writes.</summary>
    public static NodeId PartnerOf(NodeId node, IReadOnlyList<NodeId> nodes)
    {
        for (int i = 0; i < nodes.Count; i++)
        {
            if (nodes[i] == node) return nodes[(i + 1) % nodes.Count];
        }
        throw new ArgumentException($"{node} is none of them", nameof(nodes));
    }

    private NodeStorage At(NodeId node, string checkpoint)
    {
        string name = peers.NameOf(node);
        return new NodeStorage(name, checkpoint, node == self ? Here : request => reactor.Ask(() => peers.IsUp(node)
            ? ask(name, request.Write())
            : throw new ControlException("it is not there any more", ExitCodes.NoAgent)).Unwrap());
    }

    private Task<byte[]> Here(FileRequest request)
    {
        if (request.Operation == FileOperation.Protect) return Protecting(request);
        try { return Task.FromResult(memory.Do(request)); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return Task.FromException<byte[]>(e); }
    }

    private T Ask<T>(Func<T> function) => reactor.Ask(function).GetAwaiter().GetResult();
}
