// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;

namespace VSmp.Agent.Jobs;

/// <content>The leader's side of a job's regions: where their homes and mirrors are to be, and that all nodes make them, or none.</content>
internal sealed partial class JobServer
{
    /// <summary>How often homes are planned anew with what the nodes say to have free.</summary>
    private const int MaxRounds = 4;

    /// <inheritdoc/>
    public void MakeRegion(LedJob led, JobRegion region)
    {
        led.Making = new RegionMaking(region);
        Plan(led, led.Making);
    }

    /// <inheritdoc/>
    public void Lead(SharedRegion region) => recovery.Lead(region);

    /// <inheritdoc/>
    public void DropRegion(LedJob led, RegionId region)
    {
        recovery.Drop(region);
        foreach (NodeId node in led.Nodes) SendDetach(node, region);
    }

    /// <inheritdoc/>
    public NodeId Roomiest(IEnumerable<NodeId> nodes)
    {
        (NodeId Node, long Free)[] room = [.. nodes.Where(n => n == self || peers.Find(n) is { IsUp: true, IsDraining: false }).Select(n => (n, FreeExtentsOf(n))).Where(r => r.Item2 > 0)];
        return room.Length == 0 ? NodeId.None : room.MaxBy(r => r.Free).Node;
    }

    private static string Megabytes(long extents) => $"{extents * ExtentNumber.Bytes >> 20} MiB";

    private long FreeExtentsOf(NodeId node) => node == self ? capacity.FreeExtents : peers.Find(node)?.FreeExtents ?? 0;

    /// <summary>A peer has said how much room it has, or need not be waited for any more: regions that wait for that are planned.</summary>
    public void PlanWaiting()
    {
        foreach (LedJob led in _led.Values) PlanWaiting(led);
    }

    private void PlanWaiting(LedJob led)
    {
        if (led is { BrokenBecause: null, Making: { IsWaiting: true } making }) Plan(led, making);
    }

    private void Plan(LedJob led, RegionMaking making)
    {
        // A rank could not use a region that its node has not made.
        making.IsWaiting = led.Nodes.Any(node => peers.Find(node) is { IsReturning: true } or { IsUp: true, HasReported: false });
        if (making.IsWaiting) return;
        making.Rounds++;
        making.IsLoading = false;
        making.Refused.Clear();
        making.Made.Clear();
        JobRegion region = making.Region;
        NodeId[] nodes = [.. led.Nodes.Where(IsUp)];
        if (TryPlan(led, region, nodes) is not { } plan)
        {
            led.Making = null;
            string needs = led.IsMirrored ? ", with a second home for what is on nodes without ranks" : "";
            led.OnRegionRefused(region, Errno.ENOMEM, $"the pool is exhausted: region {region.Name} needs {Megabytes(region.ExtentCount)}{needs}, and the job's nodes have free: "
                + string.Join(", ", nodes.Select(n => $"{peers.NameOf(n)} {Megabytes(Math.Max(FreeExtentsOf(n), 0))}")));
            return;
        }
        making.Plan = plan;
        making.Nodes = nodes;
        byte[] payload = plan.Write();
        making.Awaited.UnionWith(nodes);
        foreach (NodeId node in nodes)
        {
            if (node == self)
            {
                string? refusal = Make(led.Job.Id, region.Id, region.ExtentCount, plan);
                OnMade(led, self, refusal);
            }
            else
            {
                peers.Take(node, (int)plan.CountOf(region.ExtentCount, node));
                Send(node, new FrameHeader { Type = MessageType.JobAttach, Region = region.Id, Argument0 = led.Job.Id.Value, Argument1 = (ulong)region.ExtentCount }, payload);
            }
        }
    }

    private RegionPlan? TryPlan(LedJob led, JobRegion region, NodeId[] nodes)
    {
        if (!led.IsMirrored)
        {
            NodeId[]? pattern = HomePattern.Make([.. nodes.Select(n => (n, FreeExtentsOf(n)))], region.ExtentCount);
            return pattern is null ? null : new RegionPlan(pattern, led.Job.Protocol, region.Name);
        }
        var places = HomePattern.MakeMirrored([.. nodes.Select(n => (n, FreeExtentsOf(n), led.IsBound(n), !led.HasRanks(n)))], region.ExtentCount);
        return places is not { } p ? null : new RegionPlan(p.Homes, led.Job.Protocol, region.Name, p.Mirrors);
    }

    private void OnMade(LedJob led, NodeId node, string? refusal)
    {
        if (led.Making is not { } making || !making.Awaited.Remove(node)) return;
        if (refusal is null) making.Made.Add(node);
        else making.Refused.Add($"{peers.NameOf(node)}: {refusal}");
        Proceed(led, making);
    }

    private void Proceed(LedJob led, RegionMaking making)
    {
        if (making.Awaited.Count > 0) return;
        JobRegion region = making.Region;
        if (making.Refused.Count == 0 && making.Lost is null)
        {
            if (region.RestoredFrom is { } index && !making.IsLoading)
            {
                Fill(led, making, index);
                return;
            }
            led.Making = null;
            led.OnRegionMade(region, making.Plan!, making.Nodes);
            return;
        }
        foreach (NodeId node in making.Made)
        {
            SendDetach(node, region.Id);
            peers.Take(node, -(int)making.Plan!.CountOf(region.ExtentCount, node));
        }
        if (making is { Lost: null, LoadError: null } && making.Rounds < MaxRounds)
        {
            Plan(led, making); // with what they say that they have
            return;
        }
        led.Making = null;
        if (making is { Lost: null, LoadError: { } why })
        {
            led.OnRegionRefused(region, Errno.EIO, $"region {region.Name} cannot be filled from generation {led.Job.Restored} of checkpoint {led.Header.Checkpoint!.Name}: {why}; "
                + $"vsmp checkpoint verify says which generations are sound, and --restart {led.Header.Checkpoint.Name}@N goes on from another");
            return;
        }
        led.OnRegionRefused(region, making.Lost is null ? Errno.ENOMEM : Errno.ECONNRESET, making.Lost
            ?? $"the pool is exhausted: region {region.Name} needs {Megabytes(region.ExtentCount)}; {string.Join("; ", making.Refused)}");
    }
}
