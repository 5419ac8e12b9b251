// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>Runs <c>vsmp-bench</c>, which makes a cluster of its own.</summary>
internal static class Bench
{
    /// <summary>Runs it to its end, and checks that its cluster is gone then.</summary>
    /// <param name="seconds">How long it may take.</param>
    /// <param name="arguments">Its arguments.</param>
    public static Outcome Run(int seconds, params string[] arguments)
    {
        Prerequisites.Check();
        using Command command = new(Path.Combine(Paths.Build, "vsmp-bench"), arguments);
        command.EndInput();
        string cluster = $"bench-{command.ProcessId}";
        Outcome outcome = command.WaitForEnd(seconds);
        Assert.Empty(Leftovers.Of(cluster));
        return outcome;
    }
}
