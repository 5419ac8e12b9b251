// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Agent.Fabric;
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing;

/// <summary>
/// What a generation of a checkpoint is made of: the file <c>manifest</c> of its folder, JSON for whoever wants to read it, and a last line with the checksum of all before.
/// It is written last: a generation without one is none.
/// </summary>
/// <param name="Format">Of all files of the generation: <see cref="CurrentFormat"/>.</param>
/// <param name="Name">Of the checkpoint.</param>
/// <param name="Generation">Its number: 1, 2, …</param>
/// <param name="TakenAt">When.</param>
/// <param name="Program">What ran.</param>
/// <param name="Ranks">How many ranks of it.</param>
/// <param name="UserId">Whose it is.</param>
/// <param name="Regions">The regions.</param>
/// <param name="Parts">Where their pages are, latest first: of a page that several have, the first counts. Pages that none has are zero.</param>
/// <param name="State">What else the program goes on with, as its leader has it; empty if there is nothing.</param>
/// <param name="Run">How it was run, to be run like that again; null: nobody knows.</param>
internal sealed record Manifest(int Format, string Name, uint Generation, DateTimeOffset TakenAt, string Program, int Ranks, uint UserId, IReadOnlyList<SavedRegion> Regions,
    IReadOnlyList<SavedPart> Parts, byte[] State, SavedRun? Run = null)
{
    /// <summary>The format that this build reads and writes.</summary>
    public const int CurrentFormat = 1;

    /// <summary>Its file.</summary>
    public const string FileName = "manifest";

    private const string SealWord = "crc32c ";
    private const int SealBytes = 7 + 8 + 1; // with the digits, and a newline
    private const int MaxBytes = 256 << 20;
    private const ulong MaxRegionBytes = 1ul << 47; // of an address space
    private const ulong MaxPartPages = (ulong)long.MaxValue / PageNumber.Bytes; // of a file

    /// <summary>As bytes.</summary>
    public byte[] Write()
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(this, ManifestJson.Default.Manifest);
        byte[] bytes = new byte[json.Length + 1 + SealBytes];
        json.CopyTo(bytes, 0);
        bytes[json.Length] = (byte)'\n';
        uint crc = Crc32C.Compute(bytes.AsSpan(0, json.Length + 1));
        Encoding.ASCII.GetBytes($"{SealWord}{crc:x8}\n", bytes.AsSpan(json.Length + 1));
        return bytes;
    }

    /// <summary>From bytes.</summary>
    /// <exception cref="CheckpointException">They are none, are damaged, or of a newer format.</exception>
    public static Manifest Read(ReadOnlySpan<byte> bytes, string where)
    {
        if (bytes.Length <= SealBytes) throw new CheckpointException($"{where} is no manifest of a checkpoint: it has {bytes.Length} bytes");
        ReadOnlySpan<byte> sealedBytes = bytes[..^SealBytes];
        string seal = string.Create(CultureInfo.InvariantCulture, $"{SealWord}{Crc32C.Compute(sealedBytes):x8}\n");
        if (!bytes[^SealBytes..].SequenceEqual(Encoding.ASCII.GetBytes(seal))) throw new CheckpointException($"{where} is damaged, or no manifest: its checksum is not {seal.TrimEnd()}");
        try
        {
            // Before all else: a newer format may have other fields.
            int format = JsonSerializer.Deserialize(sealedBytes, ManifestJson.Default.ManifestFormat)?.Format ?? 0;
            if (format != CurrentFormat) throw new CheckpointException($"{where} has format {format}, and this vsmp reads format {CurrentFormat}{(format > CurrentFormat ? ": use a newer one" : "")}");
            Manifest manifest = JsonSerializer.Deserialize(sealedBytes, ManifestJson.Default.Manifest)!;
            return manifest.WhatIsWrong() is { } wrong ? throw new CheckpointException($"{where} makes no sense: {wrong}") : manifest;
        }
        catch (JsonException e) { throw new CheckpointException($"{where} makes no sense: {e.Message}", e); }
    }

    /// <summary>Reads a generation's.</summary>
    /// <exception cref="CheckpointException">It is damaged, or of a newer format.</exception>
    /// <exception cref="IOException">It is not there, or cannot be read.</exception>
    public static Manifest Read(IStorage storage, string folder)
    {
        using IStorageReader file = storage.Open(folder, FileName);
        if (file.Length > MaxBytes) throw new CheckpointException($"{folder}/{FileName} is {file.Length} bytes long, which no manifest is");
        byte[] bytes = new byte[file.Length];
        file.Read(0, bytes);
        return Read(bytes, $"{folder}/{FileName}");
    }

    private string? WhatIsWrong()
    {
        if (Generation == 0 || Ranks < 0 || Regions.Count > ushort.MaxValue) return "a count is none";
        if (Regions.Any(r => r is null || r.Bytes is 0 or > MaxRegionBytes)) return "a region has no length that one can have";
        if (Regions.DistinctBy(r => r.Name).Count() < Regions.Count) return "two regions have one name";
        return Parts.Any(p => p is null || p.Generation == 0 || p.Generation > Generation || p.StoredPages > p.Pages || p.Pages > MaxPartPages || !Control.RunDirectory.IsValidName(p.Node))
            ? "a part is none"
            : null;
    }
}

/// <summary>How a job was run.</summary>
/// <param name="Command">The program, and its arguments.</param>
/// <param name="Directory">Where.</param>
/// <param name="Region">The name of a region that is attached without one; null: the default.</param>
/// <param name="Protocol">What keeps its regions coherent.</param>
/// <param name="IsMirrored">Whether they have second homes.</param>
internal sealed record SavedRun(IReadOnlyList<string> Command, string Directory, string? Region, string Protocol, bool IsMirrored);

/// <summary>A region of a checkpoint.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Bytes">Its length.</param>
/// <param name="Address">Where it lies in every rank.</param>
internal sealed record SavedRegion(string Name, ulong Bytes, ulong Address)
{
    /// <summary>Its length in pages, as the program asked for it.</summary>
    [JsonIgnore]
    public ulong UsedPages => (Bytes + PageNumber.Bytes - 1) / PageNumber.Bytes;

    /// <summary>Its length in pages: of whole extents, as it is placed. What is behind its end can be granted, and so be checkpointed, though nobody should use it.</summary>
    [JsonIgnore]
    public ulong PageCount => (Bytes + ExtentNumber.Bytes - 1) / ExtentNumber.Bytes * ExtentNumber.Pages;
}

/// <summary>What a node has written for a generation.</summary>
/// <param name="Generation">Which.</param>
/// <param name="Node">Which node.</param>
/// <param name="Pages">How many pages.</param>
/// <param name="StoredPages">How many of these are not zero.</param>
/// <param name="IndexCrc">CRC-32C of its index.</param>
internal sealed record SavedPart(uint Generation, string Node, ulong Pages, ulong StoredPages, uint IndexCrc)
{
    /// <summary>How long its files are together.</summary>
    [JsonIgnore]
    public ulong FileBytes => (Pages * IndexRecord.Bytes) + (StoredPages * PageNumber.Bytes);
}

/// <summary>A checkpoint that cannot be used; the message says which file, and why.</summary>
internal sealed class CheckpointException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>The one field of a manifest that all formats have.</summary>
internal sealed record ManifestFormat(int Format);

/// <summary>Manifests as JSON.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(Manifest))]
[JsonSerializable(typeof(ManifestFormat))]
internal sealed partial class ManifestJson : JsonSerializerContext;
