// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Fabric;
using Xunit;

namespace VSmp.Agent.Tests.Checkpointing;

/// <summary>Folders that were copied, or made, by whoever it was.</summary>
public sealed class DiskStorageTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("vsmp-checkpoints-").FullName;

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public void What_a_link_in_a_checkpoint_leads_to_is_not_removed()
    {
        SavedCheckpoint made = SavedCheckpoint.Write($"{_root}/heat", 2);
        string precious = Directory.CreateDirectory($"{_root}/precious").FullName;
        foreach (string file in new[] { "manifest", "photo" }) File.WriteAllText($"{precious}/{file}", "");
        Directory.Delete($"{_root}/heat/g00000001", recursive: true); // that the second needs
        File.CreateSymbolicLink($"{_root}/heat/g00000001", precious);
        File.CreateSymbolicLink($"{_root}/heat/g00000007", precious);
        Assert.Equal([2u], made.Store.List());
        made.Store.Sweep();
        made.Store.Remove(2);
        Assert.Equal(2, Directory.GetFiles(precious).Length);
    }

    [Fact]
    public void What_is_no_file_or_not_to_be_read_is_a_storage_that_fails()
    {
        SavedCheckpoint made = SavedCheckpoint.Write($"{_root}/heat", 2);
        File.Delete(made.PathOf(2, "n0.pages"));
        Directory.CreateDirectory(made.PathOf(2, "n0.pages"));
        Assert.Throws<CheckpointException>(() => made.Store.Load(2));
        var warnings = new List<string>();
        Assert.Equal(1u, made.Store.FindNewest(warnings.Add)!.Generation);
        Assert.Contains("no regular file", Assert.Single(warnings), StringComparison.Ordinal);
        File.Delete(made.PathOf(1, "n0.index"));
        File.CreateSymbolicLink(made.PathOf(1, "n0.index"), "/dev/zero"); // never ends
        Assert.Throws<CheckpointException>(() => made.Store.Load(1));
    }

    [Fact]
    public void A_pipe_in_place_of_a_file_is_not_waited_for()
    {
        SavedCheckpoint made = SavedCheckpoint.Write($"{_root}/heat", 1);
        File.Delete(made.PathOf(1, "n0.pages"));
        using (var mkfifo = Process.Start("mkfifo", [made.PathOf(1, "n0.pages")])) mkfifo.WaitForExit();
        Assert.Throws<CheckpointException>(() => made.Store.Load(1));
    }

    [Fact]
    public void A_length_that_overflows_is_refused()
    {
        SavedCheckpoint made = SavedCheckpoint.Write($"{_root}/heat", 1);
        IReadOnlyList<SavedPart> parts = made.Store.Load(1).Parts;
        File.WriteAllText(made.PathOf(1, "n0.index"), "");
        made.Replace(1, made.New(1, [parts[0] with { Pages = 1ul << 61 }, parts[1]])); // times 24 that is 0
        Assert.Throws<CheckpointException>(() => made.Store.Verify(made.Store.Load(1)));
    }

    [Theory]
    [InlineData("\"regions\": [\n", "\"regions\": [null,\n")]
    [InlineData("\"parts\": [\n", "\"parts\": [null,\n")]
    [InlineData("\"parts\": [\n", "\"parts\": null, \"x\": [\n")]
    [InlineData("\"name\": \"heap\"", "\"name\": \"grid\"")]
    [InlineData("\"name\": \"heap\"", "\"name\": \"\\ud800\"")]
    [InlineData("\"node\": \"n0\"", "\"node\": \"../n0\"")]
    [InlineData("\"ranks\": 2", "\"ranks\": -2")]
    public void A_sealed_manifest_that_makes_no_sense_is_refused(string was, string becomes)
    {
        SavedCheckpoint made = SavedCheckpoint.Write($"{_root}/heat", 1);
        string text = Encoding.UTF8.GetString(File.ReadAllBytes(made.PathOf(1, Manifest.FileName)));
        string json = text[..(text.TrimEnd().LastIndexOf('\n') + 1)];
        Assert.Contains(was, json, StringComparison.Ordinal);
        string changed = json.Replace(was, becomes, StringComparison.Ordinal);
        File.WriteAllText(made.PathOf(1, Manifest.FileName), $"{changed}crc32c {Crc32C.Compute(Encoding.UTF8.GetBytes(changed)):x8}\n");
        Assert.Throws<CheckpointException>(() => made.Store.Load(1));
    }
}
