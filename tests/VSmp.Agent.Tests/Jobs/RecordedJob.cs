// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Guests;
using VSmp.Agent.Jobs;
using VSmp.Coherence;
using VSmp.Coherence.Protocols;
using Xunit;

namespace VSmp.Agent.Tests.Jobs;

/// <summary>A job whose ranks, nodes and agents are lists: what it answers and wants is written down.</summary>
internal sealed class RecordedJob : IJobActions
{
    private readonly List<(int Rank, GuestMessage Message, byte[] Data)> _replies = [];
    private ulong _lastRegion;
    private uint _serial;

    /// <summary>Makes a job, with all ranks joined.</summary>
    public RecordedJob(int size, bool joined = true)
    {
        Job = new Job(JobId.Create(new NodeId(0), 1), size, "default", Msi.Protocol.Name, this);
        if (!joined) return;
        for (int rank = 0; rank < size; rank++) Call(rank, GuestRequest.Join);
        for (int rank = 0; rank < size; rank++) Assert.Equal(0, Answer(rank).Errno);
    }

    public Job Job { get; }

    /// <summary>Regions that the nodes were told to make, and have not yet.</summary>
    public List<JobRegion> Making { get; } = [];

    public List<JobRegion> Dropped { get; } = [];

    public void Reply(int rank, in GuestMessage reply, ReadOnlySpan<byte> data) => _replies.Add((rank, reply, data.ToArray()));

    public RegionId NewRegionId() => RegionId.Create(new NodeId(0), ++_lastRegion);

    public void MakeRegion(JobRegion region) => Making.Add(region);

    public void DropRegion(JobRegion region) => Dropped.Add(region);

    /// <summary>Checkpoints that were asked for.</summary>
    public int Checkpoints { get; private set; }

    public void TakeCheckpoint() => Checkpoints++;

    public void Call(int rank, GuestRequest type, ulong a = 0, ulong b = 0, ulong c = 0, string text = "") =>
        Job.OnCall(rank, new GuestMessage { Type = type, Serial = ++_serial, Slot = _serial % AnswerBook.Slots, A = a, B = b, C = c }, Encoding.UTF8.GetBytes(text));

    /// <summary>All ranks call the same.</summary>
    public void CallAll(GuestRequest type, ulong a = 0, ulong b = 0, ulong c = 0, string text = "")
    {
        for (int rank = 0; rank < Job.Size; rank++) Call(rank, type, a, b, c, text);
    }

    /// <summary>The one answer that a rank has got and that was not looked at yet.</summary>
    public (int Errno, GuestMessage Message, string Text) Answer(int rank)
    {
        int at = _replies.FindIndex(r => r.Rank == rank);
        Assert.True(at >= 0, $"rank {rank} has no answer");
        var (_, message, data) = _replies[at];
        _replies.RemoveAt(at);
        return (message.Status, message, Encoding.UTF8.GetString(data));
    }

    public bool IsAnswered(int rank) => _replies.Exists(r => r.Rank == rank);

    /// <summary>Every rank got this, and nothing else.</summary>
    public string AllGot(int errno)
    {
        string text = "";
        for (int rank = 0; rank < Job.Size; rank++)
        {
            var answer = Answer(rank);
            Assert.Equal(errno, answer.Errno);
            text = answer.Text;
        }
        Assert.Empty(_replies);
        return text;
    }

    /// <summary>As above, of the ranks from one on.</summary>
    public void AllGotRest(int from)
    {
        for (int rank = from; rank < Job.Size; rank++) Assert.Equal(0, Answer(rank).Errno);
    }

    /// <summary>A region that all ranks have.</summary>
    public (RegionId Id, ulong Address) Attach(string name, ulong bytes)
    {
        CallAll(GuestRequest.Attach, bytes, text: name);
        JobRegion region = Assert.Single(Making);
        Making.Clear();
        Job.OnRegionMade(region, 0, "");
        AllGot(0);
        CallAll(GuestRequest.Mapped, region.Id.Value);
        AllGot(0);
        return (region.Id, region.Address);
    }
}
