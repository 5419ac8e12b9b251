// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;

namespace VSmp.SystemTests;

/// <summary>What a guest did since it was asked before.</summary>
/// <param name="Longest">The longest time that one of its threads waited.</param>
/// <param name="Steps">What its threads did.</param>
/// <param name="Children">Its children that came and went.</param>
/// <param name="Waiting">How long the one has waited by now that waits longest.</param>
internal readonly record struct Stretch(TimeSpan Longest, long Steps, long Children, TimeSpan Waiting);

/// <summary>The guest that works in all ways at once and verifies whatever it reads: <c>native/tests/restless.c</c>.</summary>
internal sealed class RestlessGuest(GuestCommand guest) : IDisposable
{
    private const int ChildPatienceSeconds = 60; // a child takes a moment, and as long again as its agent is away

    private readonly Stopwatch _sinceChild = Stopwatch.StartNew();
    private int _lines = 1; // "ready"

    /// <summary>Starts one, and waits until it has written all its memory once.</summary>
    public static RestlessGuest Start(Cluster cluster, int mebibytes, string local, string node, string redundancy)
    {
        GuestCommand guest = cluster.Start([Paths.Program("restless"), $"{mebibytes}"], local, node, redundancy: redundancy);
        try { guest.Command.WaitFor("ready"); }
        catch
        {
            guest.Dispose();
            throw;
        }
        return new RestlessGuest(guest);
    }

    /// <summary>What it did since it was asked before; fails the test if it does not answer, or what it read was wrong.</summary>
    public Stretch Ask()
    {
        Command command = guest.Command;
        Assert.True(command.IsRunning, $"the guest has ended\n{command.Output}\n{command.Error}");
        command.Type("\n");
        string[] lines = [];
        bool HasAnswered() => (lines = command.Output.Split('\n')).Length > _lines + 1;
        Wait.Until(() => HasAnswered() || !command.IsRunning, 60, () => $"an answer of the guest\n{command.Error}");
        Assert.True(HasAnswered(), $"the guest has ended\n{command.Output}\n{command.Error}");
        string answer = lines[_lines++];
        Assert.False(answer.StartsWith("FAILED", StringComparison.Ordinal), answer);
        long[] numbers = [.. answer.Split(' ').Select(long.Parse)];
        if (numbers[2] > 0) _sinceChild.Restart();
        Assert.True(_sinceChild.Elapsed.TotalSeconds < ChildPatienceSeconds, $"no child has ended for {ChildPatienceSeconds} s\n{Processes()}");
        return new Stretch(TimeSpan.FromMicroseconds(numbers[0] / 1000), numbers[1], numbers[2], TimeSpan.FromMicroseconds(numbers[3] / 1000));
    }

    /// <summary>Has it verify everything once more, and end.</summary>
    public void End()
    {
        guest.Command.EndInput();
        Assert.Contains("verified", guest.Command.WaitForEnd(120).Succeeded().Output, StringComparison.Ordinal);
    }

    /// <summary>What the processes of the guest do, for a test that fails: T is stopped, S asleep, D in the kernel.</summary>
    private static string Processes()
    {
        using Command ps = new("ps", ["-C", "restless", "-L", "-o", "pid,ppid,tid,stat,wchan:32"]);
        return ps.WaitForEnd(10).Output;
    }

    /// <inheritdoc/>
    public void Dispose() => guest.Dispose();
}
