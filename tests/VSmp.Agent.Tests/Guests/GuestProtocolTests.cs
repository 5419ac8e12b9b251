// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;
using VSmp.Agent.Guests;
using Xunit;

namespace VSmp.Agent.Tests.Guests;

/// <summary>The two sides of the guests' socket: native/guest/protocol.h, and Guests/GuestProtocol.cs.</summary>
public sealed partial class GuestProtocolTests
{
    private static string Header { get; } = File.ReadAllText(Path.Combine(Root(), "native", "guest", "protocol.h"));

    [Fact]
    public void Both_sides_number_the_requests_alike()
    {
        Dictionary<string, ushort> native = RequestPattern().Matches(Header)
            .ToDictionary(m => m.Groups[1].Value.Replace("_", "", StringComparison.Ordinal), m => ushort.Parse(m.Groups[2].Value, CultureInfo.InvariantCulture));
        Dictionary<string, ushort> managed = Enum.GetValues<GuestRequest>().Where(r => r != GuestRequest.Reply)
            .ToDictionary(r => r.ToString().ToUpperInvariant(), r => (ushort)r);
        Assert.Equal(managed.OrderBy(r => r.Value), native.OrderBy(r => r.Value));
    }

    [Fact]
    public void Both_sides_agree_on_version_and_sizes()
    {
        Assert.Contains($"VSMP_GUEST_MAGIC 0x{GuestMessage.MagicValue:x8}u", Header, StringComparison.Ordinal);
        Assert.Contains($"VSMP_GUEST_VERSION {GuestMessage.CurrentVersion}u", Header, StringComparison.Ordinal);
        Assert.Contains($"VSMP_GUEST_TEXT_MAX {GuestMessage.MaxTextBytes}u", Header, StringComparison.Ordinal);
        Assert.Contains($"VSMP_GUEST_DATA_MAX ({GuestMessage.MaxDataBytes >> 10}u << 10)", Header, StringComparison.Ordinal);
        Assert.Contains($"VSMP_GUEST_REPLY 0x{(ushort)GuestRequest.Reply:x}u", Header, StringComparison.Ordinal);
        Assert.Contains($"VSMP_GUEST_HAS_DEVICE 0x{GuestMessage.HasDevice:x}ull", Header, StringComparison.Ordinal);
        Assert.Contains($"sizeof(struct vsmp_guest_message) == {Unsafe.SizeOf<GuestMessage>()}", Header, StringComparison.Ordinal);
    }

    private static string Root()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "VSmp.sln"))) folder = folder.Parent;
        return folder?.FullName ?? throw new InvalidOperationException("the tests run outside of the repository");
    }

    [GeneratedRegex(@"^    VSMP_GUEST_([A-Z_]+) = (\d+),$", RegexOptions.Multiline)]
    private static partial Regex RequestPattern();
}
