// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Control;
using VSmp.Coherence;

namespace VSmp.Agent.Tests.Checkpointing;

/// <summary>Nodes with a checkpoint in their memory, which may be lost; requests go from one to another as they do between agents, as bytes.</summary>
internal sealed class MemoryCluster : IDisposable
{
    public const string Name = "heat";

    private readonly string _root = Directory.CreateTempSubdirectory("vsmp-memory-").FullName;
    private readonly MemoryFiles[] _nodes;
    private readonly HashSet<int> _lost = [];

    public MemoryCluster(int nodes, ulong bytesEach = 1ul << 40)
    {
        Taken = new ulong[nodes];
        _nodes = [.. Enumerable.Range(0, nodes).Select(node => New(node, bytesEach, out _))];
    }

    public ulong[] Taken { get; }

    /// <summary>Requests that a node is lost after; negative: none is.</summary>
    public int LostAfter { get; set; } = -1;

    /// <summary>The node that is lost then.</summary>
    public int LostNext { get; set; }

    /// <summary>Requests that it is back after, with what it had; negative: it stays away.</summary>
    public int BackAfter { get; set; } = -1;

    public IEnumerable<string> Names => Enumerable.Range(0, _nodes.Length).Select(node => $"n{node}");

    public NodeStorage this[int node] => new($"n{node}", Name, request =>
    {
        try { return Task.FromResult(Do(node, request.Write())); }
        catch (ControlException e) { return Task.FromException<byte[]>(e); }
    });

    public IStorage All => new RepairingStorage(new SpreadStorage(Present));

    private NodeStorage[] Present() => [.. Enumerable.Range(0, _nodes.Length).Where(node => !_lost.Contains(node)).Select(node => this[node])];

    public void Lose(int node) => _lost.Add(node);

    /// <summary>All nodes are there, with what they had, and stay.</summary>
    public void ReturnAll()
    {
        _lost.Clear();
        BackAfter = LostAfter = -1;
    }

    public MemoryFiles New(int node, ulong bytes, out ulong left) => new(PathOf(node), wanted =>
    {
        lock (Taken)
        {
            if (Taken[node] + wanted > bytes) return false;
            Taken[node] += wanted;
            return true;
        }
    }, given =>
    {
        lock (Taken) Taken[node] = checked(Taken[node] - given);
    }, out left);

    public string PathOf(int node) => Path.Combine(_root, $"n{node}");

    public byte[] Do(int node, byte[] request)
    {
        if (LostAfter >= 0 && LostAfter-- == 0) Lose(LostNext);
        if (LostAfter < 0 && BackAfter >= 0 && BackAfter-- == 0) _lost.Remove(LostNext);
        if (_lost.Contains(node)) throw new ControlException("it is lost", ExitCodes.NoAgent);
        try { return _nodes[node].Do(FileRequest.Read(request)); }
        catch (IOException e) { throw new ControlException(e.Message, ExitCodes.Failed); }
    }

    /// <summary>Writes a generation, of so many random pages of each node.</summary>
    public Manifest Write(CheckpointTier tier, uint generation, int[] pages)
    {
        CheckpointStore store = new(All);
        string folder = store.Begin(generation);
        var parts = new List<SavedPart>();
        ulong at = 0;
        byte[] bytes = new byte[PageNumber.Bytes];
        for (int node = 0; node < _nodes.Length; node++)
        {
            NodeStorage[] to = tier == CheckpointTier.Xor ? [this[node]] : [this[node], this[(node + 1) % _nodes.Length]];
            using PartWriter writer = new(new SpreadStorage(() => to, to), folder, $"n{node}", (ulong)pages[node]);
            for (int i = 0; i < pages[node]; i++, at++)
            {
                new Random((int)at).NextBytes(bytes);
                writer.Add(0, new PageNumber(at), generation, at % 5 == 4 ? [] : bytes);
            }
            PartSummary part = writer.Finish();
            parts.Add(new SavedPart(generation, part.Node, part.Pages, part.StoredPages, part.IndexCrc));
        }
        if (tier == CheckpointTier.Xor)
        {
            for (int node = 0; node < _nodes.Length; node++) Parity.Write(All, this[node], folder, [.. Names], node);
        }
        Manifest manifest = new(Manifest.CurrentFormat, Name, generation, DateTimeOffset.UnixEpoch, "heat", 2, 1000, [new SavedRegion("grid", at * PageNumber.Bytes, 0x2000_0000_0000)], parts, [1]);
        new CheckpointStore(new SpreadStorage(Present, [.. Enumerable.Range(0, _nodes.Length).Select(node => this[node])])).Commit(manifest);
        return manifest;
    }

    /// <summary>Requires that all pages of a generation are as they were written.</summary>
    public void Require(Manifest manifest)
    {
        CheckpointStore store = new(All);
        store.Verify(store.Load(manifest.Generation));
        byte[] expected = new byte[PageNumber.Bytes];
        ulong pages = 0;
        store.ReadPages(manifest, _ => true, (record, bytes) =>
        {
            pages++;
            new Random((int)record.Page.Value).NextBytes(expected);
            if (record.Page.Value % 5 == 4 ? !bytes.IsEmpty : !bytes.SequenceEqual(expected)) throw new InvalidDataException($"page {record.Page.Value} is another");
        });
        if (pages != manifest.Parts.Aggregate(0ul, (sum, part) => sum + part.Pages)) throw new InvalidDataException($"{pages} pages");
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);
}
