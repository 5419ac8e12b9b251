// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Cli;

/// <summary>What ranks find in their environment.</summary>
internal static class RankEnvironment
{
    /// <summary>Lets programs that were not linked with a path to it find the libvsmp that belongs to this command.</summary>
    public static void AddLibrary(EnvironmentBlock environment)
    {
        if (RunCommand.LibraryFolder() is { } folder) environment.WithPrefix("LD_LIBRARY_PATH", folder, ':');
    }

    /// <summary>What all ranks of a job have.</summary>
    public static void AddJob(EnvironmentBlock environment, string token, int size) =>
        _ = environment.Without("VSMP_RUN").With("VSMP_JOB", token).With("VSMP_SIZE", $"{size}");

    /// <summary>What one rank has.</summary>
    public static byte[][] OfRank(EnvironmentBlock environment, int rank, string guestSocket) =>
        environment.With("VSMP_GUEST_SOCKET", guestSocket).With("VSMP_RANK", $"{rank}").Entries;
}
