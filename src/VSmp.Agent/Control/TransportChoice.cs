// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Fabric;

namespace VSmp.Agent.Control;

/// <summary>What <c>--transport</c> says: <c>tcp</c>, or <c>verbs[:DEVICE[:GID]]</c>.</summary>
/// <param name="Kind">TCP or RDMA.</param>
/// <param name="Device">RDMA: the device that must be used; null for whichever has the address.</param>
/// <param name="Gid">RDMA: the index, in the device's table, of the GID whose address must be used; null for any.</param>
internal sealed record TransportChoice(TransportKind Kind, string? Device, int? Gid)
{
    /// <summary>The default.</summary>
    public static TransportChoice Tcp { get; } = new(TransportKind.Tcp, null, null);

    /// <summary>Reads it.</summary>
    /// <returns>Null if it is none.</returns>
    public static TransportChoice? Parse(string text)
    {
        string[] parts = text.Split(':');
        if (text == "tcp") return Tcp;
        if (parts[0] != "verbs" || parts.Length > 3 || parts.Skip(1).Any(p => p.Length == 0)) return null;
        if (parts.Length > 1 && !RunDirectory.IsValidName(parts[1])) return null; // it becomes part of paths
        if (parts.Length < 3) return new TransportChoice(TransportKind.Verbs, parts.ElementAtOrDefault(1), null);
        return int.TryParse(parts[2], NumberStyles.None, CultureInfo.InvariantCulture, out int gid)
            ? new TransportChoice(TransportKind.Verbs, parts[1], gid)
            : null;
    }

    /// <inheritdoc/>
    public override string ToString() => Kind == TransportKind.Tcp ? "tcp"
        : string.Join(':', new[] { "verbs", Device, Gid?.ToString(CultureInfo.InvariantCulture) }.OfType<string>());
}
