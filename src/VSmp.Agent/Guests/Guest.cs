// SPDX-License-Identifier: Apache-2.0
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;

namespace VSmp.Agent.Guests;

/// <summary>
/// An attached process: its memory, its mappings, its reservation. A program has a region of its own; ranks of a job share regions.
/// Owned by the reactor.
/// </summary>
/// <param name="processId">The process.</param>
/// <param name="run">Whose budget it uses.</param>
/// <param name="region">A program's region; null for a rank.</param>
/// <param name="process">The process's pidfd; the guest's from now on.</param>
/// <param name="nowMicroseconds">The time.</param>
internal sealed class Guest(int processId, Run run, PagedRegion? region, SafeFileHandle process, long nowMicroseconds) : IDisposable
{
    private readonly ThreadClocks _clocks = new(processId);
    private PageReturns? _returns;

    /// <summary>The process.</summary>
    public int ProcessId { get; } = processId;

    /// <summary>The process, by start time too: for whoever cleans up behind a dead agent.</summary>
    public ProcessIdentity? Identity { get; } = ProcessIdentity.Of(processId);

    /// <summary>Whose budget it uses.</summary>
    public Run Run { get; } = run;

    /// <summary>A program's memory.</summary>
    public PagedRegion Region => region ?? throw new InvalidOperationException("a rank has no region of its own");

    /// <summary>Whether it is a rank of a job.</summary>
    public bool IsRank => region is null;

    /// <summary>All regions that it has.</summary>
    public IEnumerable<PagedRegion> Regions => region is null ? Mappings.Select(m => m.Region) : [region];

    /// <summary>Its pidfd: readable when it has died.</summary>
    public SafeFileHandle Process { get; } = process;

    /// <summary>When it attached.</summary>
    public long AttachedMicroseconds { get; } = nowMicroseconds;

    /// <summary>Its mappings.</summary>
    public List<Mapping> Mappings { get; } = [];

    /// <summary>Whether it was taken over from an agent that was killed, and has not connected with this one yet.</summary>
    public bool IsAwaited { get; set; }

    /// <summary>Faults so far.</summary>
    public ulong Faults { get; set; }

    /// <summary>Extents reserved.</summary>
    public uint ReservedExtents { get; set; }

    /// <summary>Memory outside the pool, when it was last looked at.</summary>
    public ulong PrivateBytes { get; set; }

    /// <summary>How often its threads came back for pages that they had been given.</summary>
    public PageReturns Returns => _returns ??= new PageReturns(_clocks.Look);

    /// <summary>Whether it has been told that memory of it was lost.</summary>
    public bool WasToldOfLoss { get; set; }

    /// <summary>Why it was ended by us, if it was.</summary>
    public string? EndedBecause { get; private set; }

    /// <summary>Bytes of the pool reserved for it.</summary>
    public ulong PoolBytes => (IsRank ? (ulong)Mappings.Sum(m => m.Region.Layout.ExtentCount) : ReservedExtents) * (ulong)ExtentNumber.Bytes;

    /// <summary>Closes what it had open of the process.</summary>
    public void Dispose()
    {
        _clocks.Dispose();
        Process.Dispose();
    }

    /// <summary>A line for its user and for the log.</summary>
    public void Tell(string text)
    {
        Log.Warn(text);
        Run.Observer.OnMessage(text);
    }

    /// <summary>Ends it: better no answer than a wrong one. Its pidfd reports the death as any other.</summary>
    public void Kill(string why)
    {
        if (EndedBecause is not null) return;
        EndedBecause = why;
        string text = $"process {ProcessId} ({Run.Request.Program}) was ended: {why}";
        Log.Error(text);
        Run.Observer.OnMessage(text);
        _ = ProcessControl.Signal(Process, Signals.SIGKILL);
    }
}
