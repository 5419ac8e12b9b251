// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Fabric;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Checkpointing;

/// <content>
/// Filling regions that were just made, and that nobody uses yet, with what a generation has: each home, and each mirror, reads what it needs of the files into its frames.
/// </content>
internal sealed partial class CheckpointServer
{
    private const int PagesPerWrite = 64;

    private readonly Dictionary<ulong, (HashSet<NodeId> Awaited, Action<NodeId, string?> OnLoaded)> _loads = []; // that this node has asked for

    /// <summary>Has nodes fill their part of a region.</summary>
    /// <param name="nodes">The nodes; they have made it.</param>
    /// <param name="plan">With what.</param>
    /// <param name="onLoaded">Hears of each node: null, or why it could not.</param>
    public void Load(IReadOnlyList<NodeId> nodes, LoadPlan plan, Action<NodeId, string?> onLoaded)
    {
        ulong number = ((ulong)_self.Value << 48) | ++_lastNumber;
        _loads.Add(number, ([.. nodes], onLoaded));
        byte[] payload = JsonSerializer.SerializeToUtf8Bytes(plan, CheckpointJson.Default.LoadPlan);
        foreach (NodeId node in nodes)
        {
            if (node == _self) OnLoad(_self, number, plan);
            else if (_peers.IsUp(node)) Send(node, MessageType.CheckpointLoad, number, default, payload);
        }
    }

    private void OnLoaded(NodeId node, ulong number, string? error)
    {
        if (!_loads.TryGetValue(number, out var load) || !load.Awaited.Remove(node)) return;
        if (load.Awaited.Count == 0) _loads.Remove(number);
        load.OnLoaded(node, error);
    }

    private void OnLoad(NodeId leader, ulong number, LoadPlan plan)
    {
        if (_pager.Find(new RegionId(plan.Region)) is not { Protocol: DirectoryProtocol } region || !Control.RunDirectory.IsValidName(plan.Name))
        {
            Tell(leader, number, "it lacks the region");
            return;
        }
        bool[] wanted = new bool[region.Layout.ExtentCount];
        for (uint e = 0; e < wanted.Length; e++)
        {
            ExtentNumber extent = new(e);
            wanted[e] = region.Layout.IsHome(extent) || region.Mirrored!.Contains(extent);
        }
        // A descriptor of its own: the region may be dropped meanwhile, and another of its number be in its place.
        SafeFileHandle frames;
        try { frames = File.OpenHandle(region.Frames.Path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Tell(leader, number, e.Message);
            return;
        }
        _ = Task.Factory.StartNew(() => // it may wait for other nodes
        {
            var loaded = new List<PageNumber>();
            string? error = null;
            try { Fill(_files.All(plan.Tier, plan.Name), plan, frames, wanted, loaded); }
#pragma warning disable CA1031 // whatever it was, whoever waits is told
            catch (Exception e) { error = e.Message; }
#pragma warning restore CA1031
            frames.Dispose();
            _reactor.Post(() =>
            {
                // The region may be gone, and another one of a later attempt in its place.
                if (error is null && _pager.Find(region.Id) != region) error = "the region is gone";
                if (error is null) _pager.OnLoaded(region, CollectionsMarshal.AsSpan(loaded));
                Tell(leader, number, error);
            });
        }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
    }

    private void Tell(NodeId leader, ulong number, string? error)
    {
        if (leader == _self) _reactor.Post(() => OnLoaded(_self, number, error));
        else if (_peers.IsUp(leader)) Send(leader, MessageType.CheckpointLoaded, number, default, error is null ? [] : Encoding.UTF8.GetBytes(error));
    }

    private static void Fill(IStorage storage, LoadPlan plan, SafeFileHandle frames, bool[] wanted, List<PageNumber> loaded)
    {
        CheckpointStore store = new(storage);
        Manifest manifest = store.Load(plan.Generation);
        if (plan.Index >= manifest.Regions.Count || manifest.Regions[plan.Index].PageCount > (ulong)wanted.Length * ExtentNumber.Pages)
            throw new CheckpointException($"generation {plan.Generation} has no region {plan.Index} of that length");
        // Neighbours are written together.
        byte[] buffer = new byte[PagesPerWrite * PageNumber.Bytes];
        PageNumber first = default;
        int count = 0;
        store.ReadPages(manifest, record => record.Region == plan.Index && wanted[record.Page.Extent.Value], (record, bytes) =>
        {
            if (bytes.IsEmpty) return; // zeros, as it is
            if (count == PagesPerWrite || record.Page != first.Plus((uint)count)) Flush();
            if (count == 0) first = record.Page;
            bytes.CopyTo(buffer.AsSpan(count++ * PageNumber.Bytes));
            loaded.Add(record.Page);
        });
        Flush();

        void Flush()
        {
            if (count > 0) RandomAccess.Write(frames, buffer.AsSpan(0, count * PageNumber.Bytes), (long)first.Offset);
            count = 0;
        }
    }
}
