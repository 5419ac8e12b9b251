// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text.Json;
using VSmp.Coherence;
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Checkpointing;

/// <content>The leader's side.</content>
internal sealed partial class CheckpointServer
{
    private readonly Dictionary<ulong, Led> _led = [];
    private ulong _lastNumber;

    /// <summary>How often this node's agent has been started again: numbers that those before have given are not given again.</summary>
    public uint Incarnation
    {
        init => _lastNumber = (ulong)value << 32;
    }

    /// <summary>Takes a checkpoint.</summary>
    /// <param name="series">The generations that it is to be the next of.</param>
    /// <param name="order">Of what.</param>
    public void Take(CheckpointSeries series, CheckpointWork order)
    {
        ulong number = ((ulong)_self.Value << 48) | ++_lastNumber;
        ulong[] regions = [.. order.Regions.Select(r => r.Id.Value)];
        // Who is alone has its copies at another that takes no part.
        ushort[] ring = [.. order.Nodes.Select(node => node.Value).Order()];
        if (ring.Length == 1) ring = [.. ring, .. _peers.All.Where(peer => peer.IsUp && peer.Node.Value != ring[0]).Select(peer => peer.Node.Value).Take(1)];
        CheckpointPlan plan = new(series.Name, series.TakeNumber(), regions, series.MustBeFull(regions), series.Wish.Tier, ring);
        Led led = new(number, series, plan, order, new CheckpointLeader(order.Nodes));
        _led.Add(number, led);
        if (plan.Tier != CheckpointTier.Disk && ring.Length < 2)
        {
            _reactor.Post(() => GiveUp(led, "there is no second node whose memory could have a copy"));
            return;
        }
        series.Begin(plan.Generation, error => _reactor.Post(() =>
        {
            if (led.Machine.IsOver) return; // given up meanwhile
            NodeId[] missing = [.. order.Nodes.Where(node => node != _self && !_peers.IsUp(node))];
            if (error is not null) GiveUp(led, error);
            else if (missing.Length > 0) GiveUp(led, $"node {_peers.NameOf(missing[0])} is not there");
            else Order(led);
        }));
    }

    /// <summary>Whoever wanted a checkpoint does not want it any more.</summary>
    public void GiveUp(CheckpointWork order, string why)
    {
        foreach (Led led in _led.Values.Where(l => l.Work == order).ToArray()) GiveUp(led, why);
    }

    private void OnDone(NodeId node, ulong number, CheckpointStep step, CheckpointAnswer? answer)
    {
        if (!_led.TryGetValue(number, out Led? led)) return; // given up
        if (answer?.Error is { } error)
        {
            GiveUp(led, $"node {_peers.NameOf(node)}: {error}");
            return;
        }
        if (answer?.Part is { } part) led.Parts.Add(part);
        if (!led.Machine.OnDone(node, step)) return;
        if (step == CheckpointStep.Copy)
        {
            Commit(led);
            return;
        }
        // What cannot be saved stops nobody; and what is done for the first time takes longer, which is not to be while everybody waits.
        if (step == CheckpointStep.Prepare && !led.Work.TrySave(out _, out string? cannot))
        {
            GiveUp(led, cannot!);
            return;
        }
        CheckpointStep next = led.Machine.Advance();
        if (next == CheckpointStep.Hold) led.HeldAt = Stopwatch.GetTimestamp();
        if (next == CheckpointStep.Cut) led.CutAt = Stopwatch.GetTimestamp();
        if (next == CheckpointStep.Copy)
        {
            // All is as it will be restored; who asks what that is must do so before anybody goes on.
            if (led.Work.TrySave(out Func<byte[]> state, out string? why)) led.State = state;
            else
            {
                GiveUp(led, why!);
                return;
            }
        }
        Order(led);
        if (next != CheckpointStep.Copy) return;
        led.Pause = Stopwatch.GetElapsedTime(led.HeldAt);
        led.IsTaken = true;
        led.Series.OnTaken(Reactor.Clock());
        led.Work.OnTaken(led.Plan.Generation);
    }

    private void Order(Led led)
    {
        byte[] payload = led.Machine.Step == CheckpointStep.Prepare ? JsonSerializer.SerializeToUtf8Bytes(led.Plan, CheckpointJson.Default.CheckpointPlan) : [];
        foreach (NodeId node in led.Machine.Nodes) Order(node, led, led.Machine.Step, payload);
    }

    private void Order(NodeId node, Led led, CheckpointStep step, byte[] payload)
    {
        // Not at once at this node: what it does may end the checkpoint.
        if (node == _self) _reactor.Post(() => OnOrder(_self, led.Number, step, payload));
        else if (_peers.IsUp(node)) Send(node, MessageType.CheckpointOrder, led.Number, step, payload);
    }

    /// <summary>All parts are safe.</summary>
    private void Commit(Led led)
    {
        Manifest manifest = led.Series.NewManifest(led.Work, led.Plan, led.Parts, led.State());
        led.IsCommitting = true; // all is there: whatever happens from now on makes no difference
        led.Series.Commit(manifest, () => _files.Protect(led.Plan.Tier, led.Plan.Name, CheckpointStore.FolderOf(led.Plan.Generation), [.. led.Plan.Ring.Select(node => new NodeId(node))]), error => _reactor.Post(() => OnCommitted(led, manifest, error)));
    }

    private void OnCommitted(Led led, Manifest manifest, string? error)
    {
        led.IsCommitting = false;
        if (error is not null)
        {
            GiveUp(led, error);
            return;
        }
        led.Machine.Advance();
        _led.Remove(led.Number);
        foreach (NodeId node in led.Machine.Nodes) Order(node, led, CheckpointStep.End, []);
        TimeSpan took = Stopwatch.GetElapsedTime(led.HeldAt);
        led.Series.OnStored(manifest, led.Plan.Regions, took);
        Log.Info(string.Create(System.Globalization.CultureInfo.InvariantCulture,
            $"checkpoint {manifest.Name}: generation {manifest.Generation}{(led.Plan.IsFull ? " (full)" : "")} of {led.Parts.Sum(p => (long)p.Pages)} pages, pause {led.Pause.TotalMilliseconds:0.0} ms (of it {Stopwatch.GetElapsedTime(led.HeldAt, led.CutAt).TotalMilliseconds:0.0} until nothing was under way), safe after {took.TotalMilliseconds:0} ms"));
        led.Work.OnStored(manifest.Generation);
    }

    private void GiveUp(Led led, string why)
    {
        bool wasTaken = led.IsTaken;
        if (led.IsCommitting || !led.Machine.GiveUp()) return;
        _led.Remove(led.Number);
        led.Series.OnGivenUp(led.Plan.Generation);
        foreach (NodeId node in led.Machine.Nodes) Order(node, led, CheckpointStep.End, GivenUp);
        Log.Warn($"checkpoint {led.Plan.Name}: generation {led.Plan.Generation} is given up: {why}");
        led.Work.OnGivenUp(led.Plan.Generation, wasTaken, why);
    }

    private static readonly byte[] GivenUp = [1];

    /// <summary>A checkpoint that this node leads.</summary>
    private sealed class Led(ulong number, CheckpointSeries series, CheckpointPlan plan, CheckpointWork work, CheckpointLeader machine)
    {
        public ulong Number => number;
        public CheckpointSeries Series => series;
        public CheckpointPlan Plan => plan;
        public CheckpointWork Work => work;
        public CheckpointLeader Machine => machine;
        public List<PartSummary> Parts { get; } = [];
        public Func<byte[]> State { get; set; } = () => [];
        public long HeldAt { get; set; }
        public long CutAt { get; set; }
        public TimeSpan Pause { get; set; }
        public bool IsTaken { get; set; }

        /// <summary>Whether all parts are safe, and the manifest is being written.</summary>
        public bool IsCommitting { get; set; }
    }
}
