// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent;
using VSmp.Bench.Running;

namespace VSmp.Bench.Fault;

/// <summary>A part of a fault that another node answers, from the touch until the program runs on.</summary>
/// <param name="Name">What goes on.</param>
/// <param name="Node">Whose time it is.</param>
internal sealed record Phase(string Name, string Node)
{
    /// <summary>All, in the order in which they happen.</summary>
    public static IReadOnlyList<Phase> All { get; } =
    [
        new("fault, wake-up of the agent", "requestor"),
        new("reading the fault", "requestor"),
        new("protocol", "requestor"),
        new("sending, wake-up of the peer, receiving", "both"),
        new("protocol, reading the page, checksums", "peer"),
        new("sending, wake-up of the agent, receiving", "both"),
        new("checksums, protocol, page into its frame", "requestor"),
        new("mapping", "requestor"),
        new("wake-up of the program", "requestor"),
    ];
}

/// <summary>
/// Where the time of a fault goes that one other node answers: what two agents noted of what they did, put between the times that the program
/// took. All clocks are one, so all nodes must be on this host.
/// </summary>
internal sealed class Breakdown
{
    private readonly Mark[] _requestor, _peer;

    /// <summary>Of what two agents noted (<see cref="StageTrace"/>).</summary>
    /// <param name="requestor">The requestor's marks, in order.</param>
    /// <param name="peer">The peer's marks, in order.</param>
    public Breakdown(Mark[] requestor, Mark[] peer)
    {
        _requestor = requestor;
        _peer = peer;
    }

    /// <summary>Reads the files that agents leave when they end.</summary>
    /// <exception cref="BenchException">They left none.</exception>
    public static Breakdown Read(string folder, string requestor, string peer) => new(ReadMarks(Path.Combine(folder, requestor)), ReadMarks(Path.Combine(folder, peer)));

    /// <summary>Divides faults into phases.</summary>
    /// <param name="touched">When the program touched each page.</param>
    /// <param name="took">How long each took it.</param>
    /// <returns>For each phase, microseconds of each fault that went by the book; others (a page that came along with another) count nowhere.</returns>
    public IReadOnlyList<Sample> Divide(long[] touched, long[] took)
    {
        ArgumentNullException.ThrowIfNull(touched);
        ArgumentNullException.ThrowIfNull(took);
        Sample[] phases = [.. Phase.All.Select(_ => new Sample())];
        Span<long> times = stackalloc long[Phase.All.Count + 1];
        for (int i = 0; i < touched.Length; i++)
        {
            if (!TryFollow(touched[i], touched[i] + took[i], times)) continue;
            for (int p = 0; p < phases.Length; p++) phases[p].Add((times[p + 1] - times[p]) / 1000.0);
        }
        return phases;
    }

    /// <summary>Follows one fault through both agents.</summary>
    private bool TryFollow(long begin, long end, Span<long> times)
    {
        long read = First(_requestor, Stage.FaultRead, begin);
        long woken = Last(_requestor, Stage.Woken, read);
        long asked = First(_requestor, Stage.Stepped, read);
        long received = First(_peer, Stage.Received, asked);
        long answered = First(_peer, Stage.Stepped, received);
        long came = First(_requestor, Stage.Received, answered);
        long mapped = First(_requestor, Stage.Mapped, came);
        long written = First(_requestor, Stage.Written, came);
        if (written > mapped) written = mapped; // a grant without data
        // The program may run before the agent has noted that it may.
        if (mapped > end && mapped != long.MaxValue) mapped = end;
        ReadOnlySpan<long> found = [begin, woken, read, asked, received, answered, came, Math.Min(written, mapped), mapped, end];
        found.CopyTo(times);
        for (int i = 1; i < found.Length; i++)
        {
            if (found[i] < found[i - 1] || found[i] > end) return false;
        }
        return true;
    }

    private static long First(Mark[] marks, Stage stage, long from)
    {
        if (from == long.MaxValue) return from;
        for (int i = Position(marks, from); i < marks.Length; i++)
        {
            if (marks[i].Stage == stage) return marks[i].Nanoseconds;
        }
        return long.MaxValue;
    }

    private static long Last(Mark[] marks, Stage stage, long upTo)
    {
        for (int i = Position(marks, upTo) - 1; i >= 0; i--)
        {
            if (marks[i].Stage == stage) return marks[i].Nanoseconds;
        }
        return long.MaxValue;
    }

    // Of the first mark that is not before a time.
    private static int Position(Mark[] marks, long nanoseconds)
    {
        int low = 0, high = marks.Length;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (marks[middle].Nanoseconds < nanoseconds) low = middle + 1;
            else high = middle;
        }
        return low;
    }

    private static Mark[] ReadMarks(string file)
    {
        if (!File.Exists(file)) throw new BenchException($"the agent has left no trace of its stages in {file}");
        return MemoryMarshal.Cast<byte, Mark>(File.ReadAllBytes(file)).ToArray();
    }

    /// <summary>A mark as it stands in the file.</summary>
    /// <param name="Nanoseconds">When, on CLOCK_MONOTONIC.</param>
    /// <param name="Stage">What was done.</param>
    internal readonly record struct Mark(long Nanoseconds, Stage Stage);
}
