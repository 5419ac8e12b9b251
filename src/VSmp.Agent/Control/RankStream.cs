// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Control;

/// <summary>What comes back, in pieces, from ranks on other hosts. The numbers go over the wire (JobOutput, beside those that tell a rank's end).</summary>
internal static class RankStream
{
    /// <summary>Standard output.</summary>
    public const int Output = 1;

    /// <summary>Standard error.</summary>
    public const int Error = 2;

    /// <summary>The figures of the node, as JSON (<see cref="RunStatistics"/>), before the end of its last rank.</summary>
    public const int Figures = 5;

    /// <summary>Whether a number names one of them.</summary>
    public static bool IsValid(uint stream) => stream is Output or Error or Figures;
}
