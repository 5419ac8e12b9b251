// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <summary>
/// A job at its leader: who has joined, which collective call is under way, who holds which lock. Deterministic: it is told what
/// happens and says what is to be done; it has no clock, no thread and no socket.
/// </summary>
/// <remarks>
/// This file: ranks and collective calls. Job.Calls.cs: what a rank asks for alone. Job.Checkpoints.cs: checkpoints, and going on from one.
/// <code>
///   rank:   absent ──JOIN──► joined ──FINISH (all)──► finished
///              └──────────ended──────┴─► gone: locks pass on (EOWNERDEAD), collective calls fail (EPIPE)
/// </code>
/// A collective call is compared when all ranks are in one: only then is it certain who disagrees with whom.
/// </remarks>
internal sealed partial class Job
{
    private readonly IJobActions _actions;
    private readonly RankState[] _ranks;
    private readonly AnswerBook[] _answers; // of each rank
    private readonly Pending?[] _pending; // the collective call that each rank is in
    private readonly Dictionary<RegionId, JobRegion> _regions = [];
    private int _pendingCount;
    private JobRegion? _making;
    private ulong _nextAddress = JobLimits.FirstAddress;
    private string? _goneText; // which rank ended first, and how

    /// <summary>Makes a job whose ranks have yet to join.</summary>
    public Job(JobId id, int size, string defaultRegion, string protocol, IJobActions actions)
    {
        Id = id;
        Size = size;
        DefaultRegion = defaultRegion;
        Protocol = protocol;
        _actions = actions;
        _ranks = new RankState[size];
        _pending = new Pending?[size];
        _answers = [.. Enumerable.Range(0, size).Select(_ => new AnswerBook())];
    }

    private enum RankState : byte { Absent, Joined, Finished, Gone }

    /// <summary>Its number.</summary>
    public JobId Id { get; }

    /// <summary>How many ranks it has.</summary>
    public int Size { get; }

    /// <summary>The name of a region that is attached without one.</summary>
    public string DefaultRegion { get; }

    /// <summary>The name of what keeps its regions coherent.</summary>
    public string Protocol { get; }

    /// <summary>Its regions.</summary>
    public IReadOnlyCollection<JobRegion> Regions => _regions.Values;

    /// <summary>Which node was lost, so that nothing of it can go on; null: none.</summary>
    public string? LostText { get; private set; }

    /// <summary>Whether a rank has ended.</summary>
    public bool IsGone(int rank) => _ranks[rank] == RankState.Gone;

    /// <summary>A rank's request. One that comes again is done once, and answered again.</summary>
    public void OnCall(int rank, in GuestMessage call, ReadOnlySpan<byte> data)
    {
        switch (_answers[rank].OnCall(in call, out GuestMessage answered, out byte[] with))
        {
            case AnswerBook.Verdict.AnswerAgain:
                _actions.Reply(rank, in answered, with);
                return;
            case AnswerBook.Verdict.Ignore:
                return;
            case AnswerBook.Verdict.Refuse:
                Fail(rank, in call, Errno.EPROTO, $"a rank has {AnswerBook.Slots} calls out, and no more");
                return;
        }
        if (LostText is not null)
        {
            Fail(rank, in call, Errno.ECONNRESET, LostText);
            return;
        }
        bool mayCall = _ranks[rank] == (call.Type == GuestRequest.Join ? RankState.Absent : RankState.Joined);
        if (!mayCall)
        {
            Fail(rank, in call, Errno.EINVAL, $"rank {rank} {Describe(_ranks[rank])}");
            return;
        }
        if (IsCollective(call.Type)) OnCollective(rank, in call, data);
        else OnSingle(rank, in call);
    }

    /// <summary>A rank has ended, or its connection has: what it held is released, and the others are told.</summary>
    /// <param name="rank">Which.</param>
    /// <param name="how">In words: <c>rank 2 (process 71 on n1) was killed by signal 9</c>.</param>
    public void OnRankGone(int rank, string how)
    {
        if (_ranks[rank] is RankState.Gone) return;
        bool isExpected = _ranks[rank] is RankState.Finished;
        _ranks[rank] = RankState.Gone;
        _answers[rank].Clear();
        if (!isExpected)
        {
            _goneText ??= how;
            if (_pending[rank] is not null)
            {
                _pending[rank] = null;
                _pendingCount--;
            }
            ReleaseLocksOf(rank);
            FailCollective(Errno.EPIPE, GoneText());
        }
        foreach (JobRegion region in _regions.Values.OrderBy(r => r.Id.Value).ToArray()) LeaveRegion(region, rank);
    }

    /// <summary>A node that the job needs is lost: nothing of it can go on.</summary>
    public void OnAgentLost(string text)
    {
        if (LostText is not null) return;
        LostText = text;
        FailCollective(Errno.ECONNRESET, text);
        FailWaiters(Errno.ECONNRESET, text);
    }

    /// <summary>Every node has made the region, or one could not.</summary>
    /// <param name="region">Which.</param>
    /// <param name="errno">0, or why not.</param>
    /// <param name="text">The same in words.</param>
    public void OnRegionMade(JobRegion region, int errno, string text)
    {
        _making = null;
        if (errno != 0)
        {
            _regions.Remove(region.Id);
            PutBack(region);
            FailCollective(errno, text);
            return;
        }
        region.IsReady = true;
        if (!region.HasIt.Contains(true) || _pendingCount < Size)
        {
            // A rank ended meanwhile, or an agent was lost; the ranks have been told.
            _regions.Remove(region.Id);
            _actions.DropRegion(region);
            return;
        }
        byte[] protocol = Encoding.UTF8.GetBytes(Protocol);
        CompleteCollective((_, reply) => reply with
        {
            A = region.Id.Value,
            B = region.Bytes,
            C = region.Address,
            D = (ulong)region.ExtentCount * ExtentNumber.Bytes,
        }, _ => protocol);
    }

    private static bool IsCollective(GuestRequest type) => type is GuestRequest.Join or GuestRequest.Attach or GuestRequest.Mapped
        or GuestRequest.Detach or GuestRequest.AllocAll or GuestRequest.Barrier or GuestRequest.Broadcast or GuestRequest.Checkpoint or GuestRequest.Finish;

    private static string Describe(RankState state) => state switch
    {
        RankState.Absent => "has not joined: vsmp_start comes first",
        RankState.Joined => "has joined already",
        RankState.Finished => "has left the job by vsmp_finish",
        _ => "counts as ended",
    };

    private string GoneText() => _goneText!;

    private void OnCollective(int rank, in GuestMessage call, ReadOnlySpan<byte> data)
    {
        if (call.Type == GuestRequest.Join) _ranks[rank] = RankState.Joined;
        if (_goneText is not null)
        {
            Fail(rank, in call, Errno.EPIPE, GoneText());
            // A rank that leaves a broken job leaves it all the same.
            if (call.Type == GuestRequest.Finish) Leave(rank);
            else if (call.Type == GuestRequest.Detach && _regions.TryGetValue(new RegionId(call.A), out JobRegion? region)) LeaveRegion(region, rank);
            return;
        }
        if (_pending[rank] is not null)
        {
            Fail(rank, in call, Errno.EALREADY, $"another thread of rank {rank} is in a collective call");
            return;
        }
        _pending[rank] = new Pending(call, data.ToArray());
        if (++_pendingCount == Size) Perform();
    }

    /// <summary>All ranks are in a collective call.</summary>
    private void Perform()
    {
        Pending first = _pending[0]!;
        for (int rank = 1; rank < Size; rank++)
        {
            Pending other = _pending[rank]!;
            if (Agree(first, other)) continue;
            FailCollective(Errno.EPROTO, $"the ranks disagree: rank 0 called {Text(first)}, rank {rank} {Text(other)}");
            return;
        }
        switch (first.Call.Type)
        {
            case GuestRequest.Detach or GuestRequest.Finish when _isStoring:
                break; // what is being copied must stay until it is
            case GuestRequest.Join:
                byte[] name = Encoding.UTF8.GetBytes(DefaultRegion);
                CompleteCollective((_, reply) => reply with { A = (ulong)Size, B = Restored }, _ => name);
                break;
            case GuestRequest.Attach:
                Attach(first);
                break;
            case GuestRequest.Mapped:
                FinishAttach(first);
                break;
            case GuestRequest.Detach:
                Detach(first);
                break;
            case GuestRequest.AllocAll:
                AllocateForAll(first);
                break;
            case GuestRequest.Barrier:
                CompleteCollective((_, reply) => reply);
                break;
            case GuestRequest.Broadcast:
                Broadcast(first);
                break;
            case GuestRequest.Checkpoint:
                Checkpoint();
                break;
            case GuestRequest.Finish:
                CompleteCollective((_, reply) => reply);
                for (int rank = 0; rank < Size; rank++) Leave(rank);
                break;
        }
    }

    private static bool Agree(Pending a, Pending b)
    {
        if (a.Call.Type != b.Call.Type) return false;
        return a.Call.Type switch
        {
            GuestRequest.Attach => a.Call.A == b.Call.A && a.Data.AsSpan().SequenceEqual(b.Data),
            GuestRequest.Mapped or GuestRequest.Detach => a.Call.A == b.Call.A,
            GuestRequest.AllocAll => (a.Call.A, a.Call.B, a.Call.C) == (b.Call.A, b.Call.B, b.Call.C),
            GuestRequest.Broadcast => (a.Call.A, a.Call.B) == (b.Call.A, b.Call.B),
            _ => true,
        };
    }

    private string Text(Pending p)
    {
        GuestMessage c = p.Call;
        return c.Type switch
        {
            GuestRequest.Join => "vsmp_start()",
            GuestRequest.Attach => $"vsmp_attach(\"{NameOf(p)}\", {c.A} bytes)",
            GuestRequest.Mapped => "vsmp_attach",
            GuestRequest.Detach => $"vsmp_detach({RegionText(c.A)})",
            GuestRequest.AllocAll => $"vsmp_alloc_all({RegionText(c.A)}, {c.B} bytes, alignment {c.C})",
            GuestRequest.Barrier => "vsmp_barrier()",
            GuestRequest.Checkpoint => "vsmp_checkpoint()",
            GuestRequest.Broadcast => $"vsmp_broadcast({c.B} bytes, root {c.A})",
            _ => "vsmp_finish()",
        };
    }

    private string RegionText(ulong id) => _regions.TryGetValue(new RegionId(id), out JobRegion? region) ? $"\"{region.Name}\"" : "no region";

    private string NameOf(Pending p) => p.Data.Length == 0 ? DefaultRegion : Encoding.UTF8.GetString(p.Data);

    private void Attach(Pending first)
    {
        string name = NameOf(first);
        ulong bytes = first.Call.A;
        if (!Control.RunDirectory.IsValidName(name))
        {
            FailCollective(Errno.EINVAL, $"'{name}' is no name for a region: letters, digits, '.', '_' and '-', {JobLimits.MaxNameBytes} at most");
            return;
        }
        if (_regions.Values.Any(r => r.Name == name))
        {
            FailCollective(Errno.EBUSY, $"region {name} is attached already: vsmp_detach it first");
            return;
        }
        if (_toRestore.Remove(name, out RestorableRegion? saved))
        {
            AttachRestored(saved, bytes);
            return;
        }
        ulong room = JobLimits.LastAddress - _nextAddress;
        if (bytes == 0 || bytes > room - (2 * (ulong)ExtentNumber.Bytes) || _regions.Count >= JobLimits.MaxRegions)
        {
            FailCollective(bytes == 0 ? Errno.EINVAL : Errno.ENOMEM, bytes == 0
                ? $"region {name} would be empty"
                : $"region {name} of {bytes} bytes does not fit into the address space of the job's regions, or the job has {JobLimits.MaxRegions} already");
            return;
        }
        var region = new JobRegion(_actions.NewRegionId(), name, bytes, _nextAddress, Size);
        // What runs beyond a region's end finds nothing mapped.
        _nextAddress += (ulong)(region.ExtentCount + 1) * ExtentNumber.Bytes;
        Make(region);
    }

    private void Make(JobRegion region)
    {
        _regions.Add(region.Id, region);
        _making = region;
        _actions.MakeRegion(region);
    }

    private void FinishAttach(Pending first)
    {
        for (int rank = 0; rank < Size; rank++)
        {
            Pending p = _pending[rank]!;
            if (p.Call.B == 0) continue;
            if (_regions.Remove(new RegionId(first.Call.A), out JobRegion? region))
            {
                PutBack(region);
                _actions.DropRegion(region);
            }
            int errno = p.Call.B is > 0 and < 4096 ? (int)p.Call.B : Errno.EPROTO;
            FailCollective(errno, $"rank {rank} cannot map the region: {Encoding.UTF8.GetString(p.Data)}");
            return;
        }
        CompleteCollective((_, reply) => reply);
    }

    private void Detach(Pending first)
    {
        if (!_regions.TryGetValue(new RegionId(first.Call.A), out JobRegion? region))
        {
            FailCollective(Errno.EINVAL, "there is no such region in this job");
            return;
        }
        CompleteCollective((_, reply) => reply);
        for (int rank = 0; rank < Size; rank++) LeaveRegion(region, rank);
    }

    private void AllocateForAll(Pending first)
    {
        GuestMessage call = first.Call;
        int errno = TryAllocate(in call, out GuestMessage result, out string text);
        if (errno != 0) FailCollective(errno, text);
        else CompleteCollective((_, reply) => reply with { A = result.A, B = result.B });
    }

    private void Broadcast(Pending first)
    {
        ulong root = first.Call.A;
        if (root >= (ulong)Size || (ulong)_pending[root]!.Data.Length != first.Call.B)
        {
            FailCollective(Errno.EINVAL, root >= (ulong)Size ? $"there is no rank {root} to broadcast: the job has {Size}" : "the root's data are not as long as it says");
            return;
        }
        byte[] data = _pending[root]!.Data;
        CompleteCollective((_, reply) => reply, rank => rank == (int)root ? [] : data);
    }

    /// <summary>A rank leaves the job in good order.</summary>
    private void Leave(int rank)
    {
        _ranks[rank] = RankState.Finished;
        ReleaseLocksOf(rank);
        foreach (JobRegion region in _regions.Values.OrderBy(r => r.Id.Value).ToArray()) LeaveRegion(region, rank);
    }

    private void LeaveRegion(JobRegion region, int rank)
    {
        region.HasIt[rank] = false;
        // One that is still being made is looked at when it is.
        if (region == _making || region.HasIt.Contains(true) || !_regions.Remove(region.Id)) return;
        _actions.DropRegion(region);
    }

    private void CompleteCollective(Func<int, GuestMessage, GuestMessage> fields, Func<int, byte[]>? data = null)
    {
        Pending?[] calls = TakePending();
        for (int rank = 0; rank < Size; rank++)
        {
            if (calls[rank] is not { } p) continue;
            GuestMessage reply = fields(rank, ReplyTo(p.Call, 0));
            Answer(rank, in reply, data?.Invoke(rank) ?? []);
        }
    }

    private void FailCollective(int errno, string text)
    {
        Pending?[] calls = TakePending();
        for (int rank = 0; rank < Size; rank++)
        {
            if (calls[rank] is { } p) Fail(rank, p.Call, errno, text);
        }
    }

    /// <summary>Before anybody is answered: an answer may lead to the next call.</summary>
    private Pending?[] TakePending()
    {
        Pending?[] calls = [.. _pending];
        Array.Clear(_pending);
        _pendingCount = 0;
        return calls;
    }

    private void Fail(int rank, in GuestMessage call, int errno, string text)
    {
        GuestMessage reply = ReplyTo(call, errno);
        Answer(rank, in reply, Encoding.UTF8.GetBytes(text));
    }

    private void Answer(int rank, in GuestMessage reply, byte[] data)
    {
        _answers[rank].OnReply(in reply, data);
        _actions.Reply(rank, in reply, data);
    }

    private static GuestMessage ReplyTo(GuestMessage call, int errno) => new()
    {
        Magic = GuestMessage.MagicValue,
        Version = GuestMessage.CurrentVersion,
        Type = call.Type | GuestRequest.Reply,
        Serial = call.Serial,
        Slot = call.Slot,
        Status = errno,
    };

    /// <summary>A collective call that a rank is in.</summary>
    private sealed record Pending(GuestMessage Call, byte[] Data);
}
