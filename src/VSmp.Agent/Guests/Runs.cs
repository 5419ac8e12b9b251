// SPDX-License-Identifier: Apache-2.0
using System.Security.Cryptography;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;

namespace VSmp.Agent.Guests;

/// <summary>The runs of this node. Owned by the reactor.</summary>
/// <param name="capacity">Where their budgets are taken from.</param>
/// <param name="pager">Evicts within them.</param>
/// <param name="reactor">The reactor.</param>
/// <param name="folder">Where runs are recorded for the agent that is started after this one; null: none will be.</param>
internal sealed class Runs(Capacity capacity, Pager pager, Reactor reactor, string? folder = null)
{
    /// <summary>
    /// A budget below this would have no room for the pages that one instruction of each of some dozens of threads can touch, and for what is
    /// read ahead.
    /// </summary>
    internal const ulong LeastLocalBytes = 2 * (ulong)ExtentNumber.Bytes;

    private readonly Dictionary<string, Run> _runs = [];
    private Action<Run>? _onAbandoned;

    /// <summary>How long a run waits for its <c>vsmp run</c> after the agent was started again.</summary>
    public long SupervisorPatienceMicroseconds { get; init; } = AwaitedSupervisor.PatienceMicroseconds;

    /// <summary>All of them.</summary>
    public IReadOnlyCollection<Run> All => _runs.Values;

    /// <summary>All attached processes.</summary>
    public IEnumerable<Guest> Guests => _runs.Values.SelectMany(r => r.Guests);

    /// <summary>The run of that token, or null.</summary>
    public Run? Find(string token) => _runs.GetValueOrDefault(token);

    /// <summary>The guest of that process, or null.</summary>
    public Guest? FindGuest(int processId) => Guests.FirstOrDefault(g => g.ProcessId == processId);

    /// <summary>Opens a run and sets its budget aside.</summary>
    /// <exception cref="ControlException">There is not that much left, or the name is taken.</exception>
    public Run Begin(RunRequest request, IRunObserver observer, Func<string> holders)
    {
        if (request.Name is not null && _runs.Values.Any(r => r.Request.Name == request.Name))
        {
            throw new ControlException($"the name {request.Name} is taken by another run on this node", ExitCodes.Taken);
        }
        if (request.Job is { } job)
        {
            if (!RunRecord.IsToken(job.Token)) throw new ControlException("the job's token is none"); // whoever asks says it, and it names a file
            if (_runs.ContainsKey(job.Token)) throw new ControlException("the job has a run at this node already");
        }
        ulong wanted = request.LocalBytes ?? Math.Min(capacity.ContributedBytes / 2, Math.Max(capacity.FreeBytes / 2, LeastLocalBytes));
        ulong local = wanted / ExtentNumber.Bytes * ExtentNumber.Bytes;
        if (local < LeastLocalBytes)
        {
            throw new ControlException($"a budget of {wanted} bytes of local memory is too small: at least {LeastLocalBytes >> 20} MiB are needed", ExitCodes.NoMemory);
        }
        if (!capacity.TryAddCache(local))
        {
            throw new ControlException($"{local >> 20} MiB of local memory are not free on this node ({holders()}); use --local with less, or another --node", ExitCodes.NoMemory);
        }
        string token = request.Job?.Token ?? Convert.ToHexString(RandomNumberGenerator.GetBytes(16));
        var run = new Run(token, request, local, observer, reactor.NowMicroseconds);
        try { Record(run); }
        catch (IOException e)
        {
            capacity.RemoveCache(local);
            throw new ControlException($"the run cannot be recorded: {e.Message}");
        }
        Add(run);
        return run;
    }

    /// <summary>
    /// Makes a run again that was begun at an agent which was killed: under its token, with its budget, for regions and guests that are still there. Before
    /// commands can connect.
    /// </summary>
    /// <returns>The run; null, and an error in the log: its budget is not free, so nothing of it can be adopted.</returns>
    public Run? Restore(RunRecord record)
    {
        if (_runs.ContainsKey(record.Token)) throw new InvalidOperationException("the run is there already");
        if (!capacity.TryAddCache(record.LocalBytes))
        {
            Log.Error($"the run of {record.Request.Program} cannot go on: {record.LocalBytes >> 20} MiB of local memory are not free");
            Forget(record.Token);
            return null;
        }
        Run run = new(record.Token, record.Request, record.LocalBytes, new AwaitedSupervisor(), reactor.NowMicroseconds) { AgentRestarts = record.AgentRestarts + 1 };
        run.Restore(record);
        RecordAgain(run);
        Add(run);
        if (_onAbandoned is not null) AwaitSupervisor(run);
        return run;
    }

    /// <summary>From now on, runs whose <c>vsmp run</c> does not come back to them in time are given up.</summary>
    /// <param name="onAbandoned">Ends such a run.</param>
    public void AwaitSupervisors(Action<Run> onAbandoned)
    {
        _onAbandoned = onAbandoned;
        foreach (Run run in _runs.Values.Where(r => r.IsAwaitingSupervisor)) AwaitSupervisor(run);
    }

    /// <summary>Closes a run whose guests are gone, and gives its budget back.</summary>
    public void End(Run run)
    {
        if (!_runs.Remove(run.Token)) return;
        pager.RemoveRun(run);
        capacity.RemoveCache(run.CacheBytes);
        run.Changed -= RecordAgain;
        Forget(run.Token);
    }

    private void Add(Run run)
    {
        _runs.Add(run.Token, run);
        pager.AddRun(run);
        run.Changed += RecordAgain;
    }

    private void Record(Run run)
    {
        if (folder is not null) RunRecord.Of(run).Write(folder);
    }

    private void RecordAgain(Run run)
    {
        try { Record(run); }
        catch (IOException e) { Log.Warn($"the run of {run.Request.Program} is recorded as it was: {e.Message}"); }
    }

    private void Forget(string token)
    {
        if (folder is not null) RunRecord.Delete(folder, token);
    }

    private void AwaitSupervisor(Run run) => AwaitedSupervisor.Await(reactor, SupervisorPatienceMicroseconds, run.Request.ProcessId,
        () => run.IsAwaitingSupervisor && Find(run.Token) == run, () => _onAbandoned!(run));
}
