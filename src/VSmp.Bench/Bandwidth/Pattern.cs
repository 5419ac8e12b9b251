// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Bandwidth;

/// <summary>A way of going through pages that another node has, all words of each.</summary>
/// <param name="Name">What, in words.</param>
/// <param name="Program">What <c>vsmp-bandwidth</c> calls it.</param>
/// <param name="Floor">The workload of <c>vsmp-floor</c> that does the same, or <see cref="Plain"/>.</param>
/// <param name="TargetRatio">What the ratio to the floor is to be, at most.</param>
/// <param name="TargetMegabytes">How much is to be moved in a second, at least; in units of 10^6 bytes.</param>
/// <param name="Peer">What ArgoDSM moves in a second, in the same units.</param>
internal sealed record Pattern(string Name, string Program, string Floor, double? TargetRatio = null, double? TargetMegabytes = null, string? Peer = null)
{
    /// <summary>The floor that <c>vsmp-bandwidth</c> measures itself, between its own passes.</summary>
    public const string Plain = "plain";

    // ArgoDSM's figures are of two of its ranks on a machine of this kind: 11 to 15 µs for a page read in order, 19 to 27 at random,
    // 144 to 207 ms for an exchange of 4096 pages, of which each rank writes one half and reads the other. The target is half of its best time.
    private const double ExchangeBytes = 4096 * 4096.0, PeerExchangeMicroseconds = 144_000;

    /// <summary>Whether both nodes read at the same time, and twice as many pages are moved.</summary>
    public bool IsBothWays => Floor == "exchange";

    /// <summary>
    /// All of them. What is overwritten has to be fetched first, since nobody can know that nothing of it will be kept: so writes have the floors
    /// of reads.
    /// </summary>
    public static IReadOnlyList<Pattern> All { get; } =
    [
        new("sequential read", "read", "stream", TargetRatio: 1 / 0.6, Peer: "275 – 375"),
        new("random read", "random-read", "fetch", Peer: "152 – 216"),
        new("sequential write", "write", "stream"),
        new("random write", "random-write", "fetch"),
        new("read of what is here", "hit", Plain, TargetRatio: 1.02),
        new("exchange", "exchange", "exchange", TargetMegabytes: 2 * ExchangeBytes / PeerExchangeMicroseconds, Peer: "81 – 117"),
        new("exchange, and writing before it", "write-exchange", "exchange", Peer: "81 – 117"),
    ];
}
