// SPDX-License-Identifier: Apache-2.0
using System.Security.Cryptography;
using VSmp.Agent.Control;
using VSmp.Agent.Paging;
using VSmp.Coherence;

namespace VSmp.Agent.Guests;

/// <summary>The runs of this node. Owned by the reactor.</summary>
internal sealed class Runs(Capacity capacity, Pager pager, Reactor reactor)
{
    /// <summary>
    /// A budget below this would have no room for the pages that one instruction of each of some dozens of threads can touch, and for what is
    /// read ahead.
    /// </summary>
    private const ulong LeastLocalBytes = 2 * (ulong)ExtentNumber.Bytes;

    private readonly Dictionary<string, Run> _runs = [];

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
        if (request.Job is { } job && _runs.ContainsKey(job.Token)) throw new ControlException("the job has a run at this node already");
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
        _runs.Add(token, run);
        pager.AddRun(run);
        return run;
    }

    /// <summary>Closes a run whose guests are gone, and gives its budget back.</summary>
    public void End(Run run)
    {
        if (!_runs.Remove(run.Token)) return;
        pager.RemoveRun(run);
        capacity.RemoveCache(run.CacheBytes);
    }
}
