// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Jobs;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing;

/// <summary>
/// Checkpoints that somebody asks for (<c>vsmp checkpoint create</c>), at the node that made the region: of a job, when it next calls for one; of any other guest's memory at once, to
/// be looked at, since nothing can go on from memory without registers. Owned by the reactor.
/// </summary>
internal sealed class CheckpointRequests(Reactor reactor, Pager pager, RecoveryServer recovery, JobServer jobs, CheckpointServer checkpoints)
{
    /// <summary>Requests that are remembered, so that whoever asked can be told.</summary>
    private const int MostRequests = 256;

    private readonly Dictionary<ulong, CheckpointProgress> _requests = [];
    private ulong _last;

    /// <summary>Takes a request, or says how far it is.</summary>
    /// <exception cref="ControlException">It is refused.</exception>
    public CheckpointProgress Answer(CheckpointRequest request)
    {
        if (request.Number != 0) return _requests.GetValueOrDefault(request.Number) ?? throw new ControlException("the agent knows nothing of the request any more: it was started again");
        if (!RunDirectory.IsValidName(request.Name)) throw new ControlException($"'{request.Name}' is no name for a checkpoint", ExitCodes.Usage);
        ulong number = ++_last;
        void OnEnded(uint generation, string? why) => _requests[number] = new CheckpointProgress(number, IsWaiting: false, generation, why);
        RegionId id = new(request.Region);
        _requests[number] = new CheckpointProgress(number, IsWaiting: true, 0, null);
        try
        {
            if (!jobs.TryRequest(id, request.Name, request.UserId, OnEnded)) TakeOfGuest(id, request, OnEnded);
        }
        catch (ControlException)
        {
            _requests.Remove(number);
            throw;
        }
        _requests.Remove(number - MostRequests);
        return _requests[number];
    }

    private void TakeOfGuest(RegionId id, CheckpointRequest request, Action<uint, string?> onEnded)
    {
        if (recovery.FindLed(id) is not { } led || pager.Find(id) is not { Run: { } run } region) throw new ControlException("the region is gone, or was not made by this node", ExitCodes.Failed);
        if (request.UserId != run.Request.UserId && request.UserId != 0) throw new ControlException("the run belongs to another user", ExitCodes.Refused);
        CheckpointWish wish = new(request.Name, CheckpointSeries.OnDemand, null, Keep: 2, CheckpointStart.Continue);
        _ = Task.Run(() =>
        {
            try
            {
                CheckpointSeries series = CheckpointSeries.Open(checkpoints.Files, wish, run.Request.UserId);
                reactor.Post(() => checkpoints.Take(series, new GuestCheckpoint(pager.Self, led, region, (generation, why) =>
                {
                    series.Dispose();
                    onEnded(generation, why);
                })));
            }
            catch (ControlException e) { reactor.Post(() => onEnded(0, e.Message)); }
        });
    }

    /// <summary>A checkpoint of a guest's memory.</summary>
    private sealed class GuestCheckpoint(NodeId self, LedRegion led, PagedRegion region, Action<uint, string?> onEnded) : CheckpointWork
    {
        public override string Program => led.Guest.Program;

        public override int Ranks => 0;

        public override IReadOnlyList<(RegionId Id, SavedRegion Region)> Regions { get; } =
            [(led.Id, new SavedRegion(led.Name, (ulong)led.Places().Select(place => place.First.Value + place.Count).Append(1u).Max() * ExtentNumber.Bytes, region.Mappings.Select(m => m.Address).FirstOrDefault()))];

        public override IReadOnlyList<NodeId> Nodes { get; } = NodesOf(self, led);

        public override bool TrySave(out Func<byte[]> state, out string? whyNot)
        {
            state = () => [];
            // What was reserved meanwhile may have its home on a node that has not cut.
            whyNot = NodesOf(self, led).Except(Nodes).Any() ? "it was given memory of another node meanwhile: ask again" : null;
            return whyNot is null;
        }

        public override void OnTaken(uint generation) { }

        public override void OnStored(uint generation) => onEnded(generation, null);

        public override void OnGivenUp(uint generation, bool wasTaken, string why) => onEnded(0, why);

        private static NodeId[] NodesOf(NodeId self, LedRegion led) => [.. led.Places().Select(place => place.Home).Append(self).Distinct()];
    }
}
