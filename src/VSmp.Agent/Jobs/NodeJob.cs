// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <summary>A job at a node that has ranks of it: their connections, and the regions that they share. Owned by the reactor.</summary>
/// <param name="id">Its number.</param>
/// <param name="run">The budget of its ranks here.</param>
/// <param name="pager">Steps the protocol of its regions.</param>
/// <param name="sendToLeader">Takes a rank's call to the leader.</param>
/// <param name="sendWrites">Tells the leader which pages of a region were written and released here.</param>
internal sealed class NodeJob(JobId id, Run run, Pager pager, Action<int, GuestMessage, byte[]> sendToLeader, Action<RegionId, List<PageNumber>> sendWrites)
{
    private readonly Dictionary<int, RankSession> _ranks = [];
    private readonly List<PagedRegion> _regions = [];
    private readonly Dictionary<int, string> _gone = []; // ranks that are no more, and how they ended
    private ReleaseQueue? _releases;
    private string? _lost;

    /// <summary>Its number.</summary>
    public JobId Id { get; } = id;

    /// <summary>The budget of its ranks here.</summary>
    public Run Run { get; } = run;

    /// <summary>Its regions at this node.</summary>
    public List<PagedRegion> Regions => _regions;

    /// <summary>Calls that wait for what was written to get home.</summary>
    public ReleaseQueue Releases => _releases ??= new ReleaseQueue(pager, _regions, sendWrites, sendToLeader);

    /// <summary>The rank's connection, or null.</summary>
    public RankSession? Find(int rank) => _ranks.GetValueOrDefault(rank);

    /// <summary>The number of the rank that a process is, or null.</summary>
    public int? FindRank(Guest guest)
    {
        foreach (RankSession session in _ranks.Values)
        {
            if (session.Guest == guest) return session.Rank;
        }
        return null;
    }

    /// <summary>A rank that wants to join.</summary>
    public void Add(RankSession session) => _ranks.Add(session.Rank, session);

    /// <summary>A rank is gone, which the leader has to hear of.</summary>
    public void OnGone(int rank, string how) => _ = _gone.TryAdd(rank, how);

    /// <summary>Ranks that are no more, and how they ended.</summary>
    public IReadOnlyDictionary<int, string> Gone => _gone;

    /// <summary>The leader may have missed something, or answers of it were lost: ranks send again what they have out.</summary>
    public void AskToRepeat()
    {
        foreach (RankSession session in _ranks.Values) session.AskToRepeat();
    }

    /// <summary>The region of that number, if the job has it here.</summary>
    public PagedRegion? FindRegion(RegionId region) => Regions.Find(r => r.Id == region);

    /// <summary>A rank calls.</summary>
    public void OnCall(RankSession session, in GuestMessage call, ReadOnlySpan<byte> data)
    {
        if (_lost is not null)
        {
            session.Answer(in call, Errno.ECONNRESET, _lost);
            return;
        }
        bool isLazy = _regions.Exists(r => r.Protocol is LazyProtocol);
        if (call.Type is GuestRequest.Acquire or GuestRequest.ReleaseRegion && !isLazy)
        {
            // Under protocols that keep single writers there is nothing to see later, and nothing to let others see.
            bool isKnown = FindRegion(new RegionId(call.A)) is not null;
            session.Answer(in call, isKnown ? 0 : Errno.EINVAL, isKnown ? "" : "there is no such region in this job");
            return;
        }
        session.Begin(in call);
        if (isLazy && Synchronization.Releases(call.Type)) Releases.Release(session.Rank, in call, data.ToArray());
        else sendToLeader(session.Rank, call, data.ToArray());
    }

    /// <summary>The leader's answer to a rank's call.</summary>
    public void OnReply(int rank, in GuestMessage reply, ReadOnlySpan<byte> data)
    {
        if (Find(rank) is not { } session || !session.End(in reply)) return;
        session.Send(reply, data.ToArray());
        if (reply.Type == (GuestRequest.Barrier | GuestRequest.Reply) && reply.Status == 0) pager.OnBarrier(session.Guest);
    }

    /// <summary>The job is broken: every call fails from now on.</summary>
    public void OnLost(string text)
    {
        if (_lost is not null) return;
        _lost = text;
        Releases.Drop();
        foreach (RankSession session in _ranks.Values) session.FailAll(Errno.ECONNRESET, text);
    }
}

/// <summary>A rank at its node: which calls it has out. Owned by the reactor.</summary>
/// <param name="rank">Its number.</param>
/// <param name="guest">Its process.</param>
/// <param name="send">Sends it a message.</param>
internal sealed class RankSession(int rank, Guest guest, Action<GuestMessage, byte[]> send)
{
    private readonly Dictionary<uint, GuestRequest> _out = [];

    /// <summary>Its number.</summary>
    public int Rank { get; } = rank;

    /// <summary>Its process.</summary>
    public Guest Guest { get; } = guest;

    /// <summary>Sends it a message; does nothing while it has no connection.</summary>
    public Action<GuestMessage, byte[]> Send { get; private set; } = send;

    /// <summary>It has another connection: what it has out it sends again.</summary>
    public void Resume(Action<GuestMessage, byte[]> send) => Send = send;

    /// <summary>Asks it to send again what it has out: the leader may not have it, or the answer may have been lost.</summary>
    public void AskToRepeat() => Send(new GuestMessage { Magic = GuestMessage.MagicValue, Version = GuestMessage.CurrentVersion, Type = GuestRequest.Repeat }, []);

    /// <summary>A call goes to the leader; perhaps again, which that one knows.</summary>
    public void Begin(in GuestMessage call) => _out[call.Serial] = call.Type;

    /// <summary>The leader has answered; false if it was not asked.</summary>
    public bool End(in GuestMessage reply) => _out.Remove(reply.Serial, out GuestRequest type) && (type | GuestRequest.Reply) == reply.Type;

    /// <summary>Answers a call here.</summary>
    public void Answer(in GuestMessage call, int errno, string text)
    {
        GuestMessage reply = new()
        {
            Magic = GuestMessage.MagicValue,
            Version = GuestMessage.CurrentVersion,
            Type = call.Type | GuestRequest.Reply,
            Serial = call.Serial,
            Status = errno,
        };
        Send(reply, Encoding.UTF8.GetBytes(text));
    }

    /// <summary>Answers every call that is out.</summary>
    public void FailAll(int errno, string text)
    {
        (uint Serial, GuestRequest Type)[] calls = [.. _out.Select(c => (c.Key, c.Value))];
        _out.Clear();
        foreach ((uint serial, GuestRequest type) in calls) Answer(new GuestMessage { Serial = serial, Type = type }, errno, text);
    }
}
