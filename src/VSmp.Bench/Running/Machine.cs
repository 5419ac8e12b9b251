// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;

namespace VSmp.Bench.Running;

/// <summary>What a measurement was made on; goes with its figures.</summary>
/// <param name="Processor">The processor's name for itself.</param>
/// <param name="Processors">How many may be used.</param>
/// <param name="Kernel">The kernel's release.</param>
/// <param name="Commit">The commit that the program was built from, as git names it; "unknown" where there is no git.</param>
/// <param name="Date">The day, UTC.</param>
public sealed record Machine(string Processor, int Processors, string Kernel, string Commit, string Date)
{
    /// <summary>This one, now.</summary>
    public static Machine Here()
    {
        string processor = File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal))?
            .Split(':', 2)[1].Trim() ?? "unknown processor";
        return new Machine(processor, Environment.ProcessorCount, File.ReadAllText("/proc/sys/kernel/osrelease").Trim(), DescribeCommit(),
            DateTime.UtcNow.ToString("yyyy-MM-dd", System.Globalization.CultureInfo.InvariantCulture));
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Processor}, {Processors} processors, Linux {Kernel}; commit {Commit}, {Date}";

    // As `git describe --dirty` would name it, but that reports in docs/benchmarks, which a run of all commands writes one after the other, do not count.
    private static string DescribeCommit() =>
        Git("describe", "--always") is not { Length: > 0 } commit ? "unknown"
        : Git("status", "--porcelain", "--untracked-files=no", "--", ":(top,exclude)docs/benchmarks") is { Length: > 0 } ? $"{commit}-dirty"
        : commit;

    // Null: there is no git, or it failed.
    private static string? Git(params string[] arguments)
    {
        try
        {
            ProcessStartInfo start = new("git", ["-C", AppContext.BaseDirectory, .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true };
            using Process git = Process.Start(start)!;
            string output = git.StandardOutput.ReadToEnd().Trim();
            git.WaitForExit();
            return git.ExitCode == 0 ? output : null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }
}
