// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Control;

/// <summary>The order in which people count nodes: n2 before n10.</summary>
internal sealed class NaturalOrder : IComparer<string>
{
    private static readonly char[] Digits = [.. "0123456789"];

    private NaturalOrder()
    {
    }

    /// <summary>The only one.</summary>
    public static NaturalOrder Instance { get; } = new();

    /// <inheritdoc/>
    public int Compare(string? x, string? y)
    {
        if (x is null || y is null) return (x is null ? 0 : 1) - (y is null ? 0 : 1);
        int byName = string.CompareOrdinal(x.TrimEnd(Digits), y.TrimEnd(Digits));
        if (byName != 0) return byName;
        return x.Length != y.Length ? x.Length - y.Length : string.CompareOrdinal(x, y);
    }
}
