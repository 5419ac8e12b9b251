// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Running;

/// <summary>Exit codes of workloads.</summary>
public static class ExitCode
{
    /// <summary>Everything was right.</summary>
    public const int Ok = 0;

    /// <summary>Something was wrong: that is a bug.</summary>
    public const int Wrong = 1;

    /// <summary>It could not be run.</summary>
    public const int Unable = 3;
}

/// <summary>What workloads have in common.</summary>
public static class Workload
{
    /// <summary>Runs a workload; says in one line why it could not be run.</summary>
    /// <returns>The exit code.</returns>
    public static int Guard(Func<int> workload)
    {
        ArgumentNullException.ThrowIfNull(workload);
        try
        {
            return workload();
        }
        catch (BenchException e)
        {
            Console.Error.WriteLine($"vsmp-bench: {e.Message}");
            return ExitCode.Unable;
        }
    }
}
