// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text.RegularExpressions;
using VSmp.Agent.Keeping;
using Xunit;

namespace VSmp.Agent.Tests.Keeping;

/// <summary>The two sides of the keeper's socket: native/keeper/protocol.h, and Keeping/KeeperProtocol.cs.</summary>
public sealed partial class KeeperProtocolTests
{
    private static string Header { get; } = File.ReadAllText(Path.Combine(KeeperPrograms.Root, "native", "keeper", "protocol.h"));

    [Fact]
    public void Both_sides_number_requests_and_notices_alike()
    {
        Dictionary<string, ushort> managed = Enum.GetValues<KeeperRequest>().Where(r => r != KeeperRequest.Reply)
            .ToDictionary(r => r.ToString().ToUpperInvariant(), r => (ushort)r);
        Assert.Equal(managed.OrderBy(r => r.Value), Values("vsmp_keeper_type", "VSMP_KEEPER_").OrderBy(r => r.Value));
    }

    [Fact]
    public void Both_sides_number_kinds_alike()
    {
        Dictionary<string, ushort> managed = Enum.GetValues<HoldKind>().ToDictionary(k => k.ToString().ToUpperInvariant(), k => (ushort)k);
        Assert.Equal(managed.OrderBy(k => k.Value), Values("vsmp_keeper_kind", "VSMP_KEEPER_KIND_").OrderBy(k => k.Value));
    }

    [Fact]
    public void Both_sides_agree_on_version_sizes_and_flags()
    {
        string[] expected =
        [
            $"VSMP_KEEPER_MAGIC 0x{KeeperMessage.MagicValue:x8}u",
            $"VSMP_KEEPER_VERSION {KeeperMessage.CurrentVersion}u",
            $"VSMP_KEEPER_DATA_MAX {KeeperMessage.MaxDataBytes}u",
            $"VSMP_KEEPER_FDS_MAX {KeeperMessage.MaxDescriptors}u",
            $"VSMP_KEEPER_HOLDS_MAX {KeeperMessage.MaxHolds}u",
            $"VSMP_KEEPER_REPLY 0x{(ushort)KeeperRequest.Reply:x}u",
            $"VSMP_KEEPER_RELEASE 0x{KeeperMessage.Release:x}u",
            $"VSMP_KEEPER_END 0x{KeeperMessage.End:x}u",
            $"VSMP_KEEPER_IS_GONE 0x{KeeperMessage.IsGone:x}u",
            $"VSMP_KEEPER_IS_STOPPING 0x{KeeperStateRecord.IsStopping:x}u",
            $"VSMP_KEEPER_IS_FENCED 0x{KeeperStateRecord.IsFenced:x}u",
            $"VSMP_KEEPER_IS_REALTIME 0x{KeeperStateRecord.IsRealtime:x}u",
            $"VSMP_KEEPER_IS_LOCKED 0x{KeeperStateRecord.IsLocked:x}u",
            $"sizeof(struct vsmp_keeper_message) == {Unsafe.SizeOf<KeeperMessage>()}",
            $"sizeof(struct vsmp_keeper_state) == {Unsafe.SizeOf<KeeperStateRecord>()}",
        ];
        foreach (string text in expected) Assert.Contains(text, Header, StringComparison.Ordinal);
    }

    [Fact]
    public void Both_sides_lay_the_fields_out_alike()
    {
        Assert.Equal(Offsets(typeof(KeeperMessage)), NativeOffsets("vsmp_keeper_message"));
        Assert.Equal(Offsets(typeof(KeeperStateRecord)), NativeOffsets("vsmp_keeper_state"));
    }

    private static List<int> Offsets(Type type) =>
        [.. type.GetFields().Where(f => !f.IsStatic).Select(f => f.GetCustomAttributes(typeof(FieldOffsetAttribute), inherit: false)
            .Cast<FieldOffsetAttribute>().Single().Value).Order()];

    /// <summary>Where the fields of a C struct without padding begin.</summary>
    private static List<int> NativeOffsets(string name)
    {
        List<int> offsets = [];
        int at = 0;
        foreach (Match declaration in FieldPattern().Matches(Block($"struct {name} {{")))
        {
            int bytes = int.Parse(declaration.Groups[1].Value, CultureInfo.InvariantCulture) / 8;
            foreach (string _ in declaration.Groups[2].Value.Split(','))
            {
                Assert.Equal(0, at % bytes);
                offsets.Add(at);
                at += bytes;
            }
        }
        return offsets;
    }

    private static Dictionary<string, ushort> Values(string name, string prefix) => ValuePattern().Matches(Block($"enum {name} {{"))
        .ToDictionary(m => m.Groups[1].Value[prefix.Length..], m => ushort.Parse(m.Groups[2].Value, CultureInfo.InvariantCulture));

    private static string Block(string start)
    {
        int from = Header.IndexOf(start, StringComparison.Ordinal);
        Assert.True(from >= 0, start);
        return Header[from..Header.IndexOf("\n};", from, StringComparison.Ordinal)];
    }

    [GeneratedRegex(@"^    (VSMP_KEEPER_[A-Z_]+) = (\d+),", RegexOptions.Multiline)]
    private static partial Regex ValuePattern();

    [GeneratedRegex(@"^    u?int(\d+)_t ([a-z_, ]+);", RegexOptions.Multiline)]
    private static partial Regex FieldPattern();
}
