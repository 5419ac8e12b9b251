// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text.RegularExpressions;
using Xunit;

// What the kernel has of a device's resources is counted: by one test at a time.
[assembly: CollectionBehavior(DisableTestParallelization = true)]

namespace VSmp.Rdma.Tests;

/// <summary>The device that the tests run on: a real one, or soft-RoCE, whose address is in VSMP_RDMA_ADDRESS.</summary>
internal static class Device
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    public static IPAddress Address => IPAddress.Parse(Environment.GetEnvironmentVariable("VSMP_RDMA_ADDRESS")
        ?? throw new InvalidOperationException("VSMP_RDMA_ADDRESS names no address of an RDMA device"));

    /// <summary>How many protection domains, queues, memory regions and ids the kernel has, of each device, in `rdma`'s words.</summary>
    public static string Resources()
    {
        using Process tool = Process.Start(new ProcessStartInfo("rdma", ["resource", "show"]) { RedirectStandardOutput = true })!;
        using StreamReader output = tool.StandardOutput;
        string counts = output.ReadToEnd();
        tool.WaitForExit();
        Assert.Equal(0, tool.ExitCode);
        Assert.Contains("qp", counts, StringComparison.Ordinal);
        return Regex.Replace(counts, @"\bctx \d+", ""); // librdmacm opens a device once, for good
    }

    /// <summary>One of them: pd, cq, qp, mr, cm_id; over all devices.</summary>
    public static int Count(string resources, string what) =>
        Regex.Matches(resources, $@"\b{what} (\d+)").Sum(m => int.Parse(m.Groups[1].ValueSpan, CultureInfo.InvariantCulture));

    /// <summary>Fails unless the kernel has soon, since it takes connections down in its own time, what it had.</summary>
    public static async Task HasAgainAsync(string resources)
    {
        await UntilAsync(() => Resources() == resources);
        Assert.Equal(resources, Resources());
    }

    /// <summary>Fails unless there are soon that many of one kind.</summary>
    public static async Task HasAgainAsync(string what, int count)
    {
        await UntilAsync(() => Count(Resources(), what) == count);
        Assert.Equal(count, Count(Resources(), what));
    }

    /// <summary>The kernel has nothing that could be awaited.</summary>
    private static async Task UntilAsync(Func<bool> condition)
    {
        long start = Stopwatch.GetTimestamp();
        while (!condition() && Stopwatch.GetElapsedTime(start) < Patience) await Task.Delay(50, TestContext.Current.CancellationToken);
    }
}
