// SPDX-License-Identifier: Apache-2.0
using System.Runtime.Versioning;

[assembly: SupportedOSPlatform("linux")]
[assembly: CollectionBehavior(DisableTestParallelization = true)] // two cores, and every test measures a whole cluster

namespace VSmp.SystemTests;

/// <summary>Where things are, and how long they may take.</summary>
internal static class Paths
{
    /// <summary>The clone that these tests are of.</summary>
    public static string Repository { get; } = FindRepository();

    /// <summary>What <c>make build</c> leaves.</summary>
    public static string Build { get; } = Environment.GetEnvironmentVariable("BUILD") is { Length: > 0 } named ? named : Path.Combine(Repository, "build");

    /// <summary>The command under test.</summary>
    public static string Vsmp { get; } = Path.Combine(Build, "vsmp");

    /// <summary>Whether nothing is to be shortened (<c>make test-long</c>).</summary>
    public static bool IsLong { get; } = Environment.GetEnvironmentVariable("VSMP_TEST_LONG") is { Length: > 0 };

    /// <summary>A program of native/tests.</summary>
    public static string Program(string name) => Path.Combine(Build, "tests", name);

    private static string FindRepository()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "VSmp.sln"))) return folder.FullName;
        }
        throw new InvalidOperationException("these tests are run from a clone of the repository");
    }
}
