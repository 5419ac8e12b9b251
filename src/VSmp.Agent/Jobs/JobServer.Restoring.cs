// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <content>Jobs that an agent of this node led which was killed: they are as that has recorded them, and go on when the other nodes are back.</content>
internal sealed partial class JobServer
{
    /// <summary>Whether jobs are recorded: a keeper starts another agent if this one is killed.</summary>
    public bool IsRecording { get; init; }

    /// <summary>How long a job waits for its <c>vsmp spmd</c> after the agent was started again.</summary>
    public long SupervisorPatienceMicroseconds { get; init; } = AwaitedSupervisor.PatienceMicroseconds;

    /// <summary>Takes over the jobs that were left. Before what this node has of their regions is.</summary>
    public void Restore()
    {
        foreach (string path in Journals())
        {
            try { Restore(path); }
            catch (Exception e) when (e is InvalidDataException or IOException or UnauthorizedAccessException)
            {
                Log.Error($"a job cannot go on: {e.Message}");
                JobJournal.Delete(path);
            }
        }
    }

    /// <summary>Nothing of those jobs is left: they are not taken over.</summary>
    public void DiscardLeft()
    {
        foreach (string path in Journals()) JobJournal.Delete(path);
    }

    /// <summary>Whether a region that ranks share was made here for a job that is over, or was yet to be made by all nodes: what there is of it is of no use.</summary>
    public bool IsForgotten(RegionId region) => region.Creator == self && !_led.Values.Any(led => led.Regions.ContainsKey(region));

    /// <summary>The other members are known, and will say what they have: jobs of which a node was lost meanwhile end, the others go on.</summary>
    public void ContinueRestored()
    {
        foreach (LedJob led in _led.Values.ToArray()) // nobody could begin another yet
        {
            foreach (NodeId node in led.Nodes.Where(node => node != self && peers.Find(node) is null).ToArray())
                OnNodeLost(led, node, $"node {peers.NameOf(node)} was lost while the agent that leads the job was started again");
            // Who was to end its ranks here was the agent before this one.
            if (led.BrokenBecause is { } text && led.HasRanks(self)) SendAbort(self, led.Job.Id, text);
            RestoreCheckpoints(led);
            PlanWaiting(led);
            AwaitSupervisor(led);
        }
    }

    /// <summary>Goes on with a job that was begun at an agent of this node which was killed.</summary>
    /// <param name="token">The job's token.</param>
    /// <param name="userId">Who asks: who has begun it, or root.</param>
    /// <param name="observer">Hears of it, and of what there was to tell meanwhile.</param>
    /// <returns>Null: there is no such job.</returns>
    /// <exception cref="ControlException">It belongs to another user, or has its <c>vsmp spmd</c>.</exception>
    public JobTicket? Resume(string token, uint userId, IRunObserver observer)
    {
        if (_led.Values.FirstOrDefault(led => led.Token == token) is not { } led) return null;
        if (userId != led.Header.UserId && userId != 0) throw new ControlException("the job belongs to another user", ExitCodes.Refused);
        if (!led.IsAwaitingSupervisor) throw new ControlException("the job has its vsmp spmd", ExitCodes.Taken);
        led.Resume(observer);
        return TicketOf(led);
    }

    private IReadOnlyList<string> Journals()
    {
        try { return WholeFile.In(folder.JobsFolder); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Log.Error($"no job can go on: {e.Message}");
            return [];
        }
    }

    private JobTicket TicketOf(LedJob led) => new(led.Job.Id.Value, led.Token, led.Job.Protocol, [.. led.Placement.Select(peers.NameOf)], led.Job.Restored);

    private void Restore(string path)
    {
        (JobHeader header, List<JournalRecord> records) = JobJournal.Read(path);
        bool isOne = new JobId(header.Job).Leader == self && RunRecord.IsToken(header.Token) && header.Placement.Length is > 0 and <= JobLimits.MaxRanks
            && header.Placement.All(header.Nodes.Contains) && !_led.ContainsKey(new JobId(header.Job));
        if (!isOne) throw new InvalidDataException($"{path} is no journal of a job of this node");
        LedJob led = new(this, header, new AwaitedSupervisor());
        led.TellAgain(records);
        _led.Add(led.Job.Id, led);
        foreach (SharedRegion region in led.Regions.Values) Lead(region);
        Record(led, led.Save());
        Log.Info($"took over {led.Job.Id} of {led.Program}: {led.Job.RanksLeft} ranks, {led.Regions.Count} regions");
    }

    private void Record(LedJob led, LedState? state)
    {
        if (!IsRecording) return;
        led.RecordIn(JobJournal.Begin(folder.JobsFolder, led.Header, () => reactor.Post(led.Compact), why =>
        {
            string text = $"the job cannot be recorded any more, and will end if its agent does: {why}";
            Log.Warn($"{led.Job.Id} of {led.Program}: {text}");
            led.Tell(text);
        }, state));
    }

    private void AwaitSupervisor(LedJob led) => AwaitedSupervisor.Await(reactor, SupervisorPatienceMicroseconds, led.Header.ProcessId,
        () => led.IsAwaitingSupervisor && _led.GetValueOrDefault(led.Job.Id) == led, () =>
        {
            Log.Warn($"{led.Job.Id} of {led.Program} is ended: its vsmp spmd (process {led.Header.ProcessId}) is gone");
            End(led.Job.Id);
        });
}
