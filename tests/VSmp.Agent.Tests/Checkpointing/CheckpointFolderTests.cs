// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Checkpointing;

/// <summary>Folders of checkpoints, among what else a disk may have.</summary>
public sealed class CheckpointFolderTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("vsmp-checkpoints-").FullName;

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public void A_name_is_below_the_root_and_a_path_is_itself()
    {
        CheckpointFolder named = CheckpointFolder.At(_root, "heat"), copied = CheckpointFolder.At("/nowhere", $"{_root}/copies/../heat/");
        Assert.Equal(("heat", $"{_root}/heat", false), (named.Name, named.Path, named.Exists));
        Assert.Equal((named.Name, named.Path), (copied.Name, copied.Path));
        SavedCheckpoint.Write(named.Path, 1);
        Assert.True(named.Exists && copied.Exists);
        foreach (string name in new[] { "", "..", "a b", ".heat", new string('x', 64) })
            Assert.Equal(ExitCodes.Usage, Assert.Throws<CommandException>(() => CheckpointFolder.At(_root, name)).ExitCode);
    }

    [Fact]
    public void The_default_root_is_absolute_and_the_users()
    {
        Assert.StartsWith("/", CheckpointFolder.DefaultRoot, StringComparison.Ordinal);
        Assert.EndsWith("/vsmp/checkpoints", CheckpointFolder.DefaultRoot, StringComparison.Ordinal);
        if (Libc.GetEffectiveUserId() == 0) Assert.Equal("/var/lib/vsmp/checkpoints", CheckpointFolder.DefaultRoot);
    }

    [Fact]
    public void Checkpoints_are_found_among_other_things()
    {
        Assert.Empty(CheckpointFolder.In($"{_root}/nowhere"));
        foreach (string name in new[] { "c10", "c2", "c1" }) SavedCheckpoint.Write($"{_root}/{name}", 1);
        SavedCheckpoint.Write($"{_root}/no name", 1);
        Directory.CreateDirectory($"{_root}/begun/g00000001"); // and not complete
        Directory.CreateDirectory($"{_root}/other/g1");
        Directory.CreateDirectory($"{_root}/empty");
        File.WriteAllText($"{_root}/file", "");
        File.CreateSymbolicLink($"{_root}/dangling", "/nowhere");
        Assert.Equal(["begun", "c1", "c2", "c10"], CheckpointFolder.In(_root));
    }

    [Fact]
    public void A_checkpoint_is_locked_by_one_at_a_time()
    {
        CheckpointFolder folder = CheckpointFolder.At(_root, "heat"), other = CheckpointFolder.At(_root, "heat");
        Assert.Throws<IOException>(() => folder.TryLock());
        Directory.CreateDirectory(folder.Path);
        using (IDisposable? own = folder.TryLock())
        {
            Assert.NotNull(own);
            Assert.Null(other.TryLock());
            Assert.True(folder.Exists);
        }
        other.TryLock()!.Dispose();
        Assert.Equal(WholeFile.OwnerOnly, File.GetUnixFileMode($"{folder.Path}/lock"));
        SavedCheckpoint.Write(folder.Path, 2);
        folder.Store.Retain(1);
        folder.Store.Sweep();
        Assert.True(File.Exists($"{folder.Path}/lock")); // is none of the files of generations
        Assert.Equal([2u], folder.Store.List());
    }

    [Fact]
    public void A_lock_is_not_made_where_a_link_leads()
    {
        CheckpointFolder folder = CheckpointFolder.At(_root, "heat");
        Directory.CreateDirectory(folder.Path);
        File.CreateSymbolicLink($"{folder.Path}/lock", $"{_root}/elsewhere");
        Assert.Throws<IOException>(() => folder.TryLock());
        Assert.False(File.Exists($"{_root}/elsewhere"));
    }

    [Fact]
    public void A_lock_that_was_deleted_with_its_checkpoint_is_not_taken_for_one()
    {
        CheckpointFolder folder = CheckpointFolder.At(_root, "heat");
        Directory.CreateDirectory(folder.Path);
        using IDisposable? old = folder.TryLock();
        Assert.True(folder.Remove());
        Directory.CreateDirectory(folder.Path);
        using IDisposable? own = folder.TryLock();
        Assert.NotNull(own);
    }

    [Fact]
    public void All_of_a_checkpoint_is_removed_and_nothing_else()
    {
        SavedCheckpoint made = SavedCheckpoint.Write($"{_root}/heat", 3);
        made.Damage(2, Manifest.FileName, 10);
        Directory.CreateDirectory($"{_root}/heat/g00000009"); // that was begun
        Directory.CreateDirectory($"{_root}/heat/notes");
        CheckpointFolder folder = CheckpointFolder.At(_root, "heat");
        Assert.False(folder.Remove());
        Assert.Equal([$"{_root}/heat/notes"], Directory.EnumerateFileSystemEntries(folder.Path));
        Directory.Delete($"{_root}/heat/notes");
        Assert.True(folder.Remove());
        Assert.False(Directory.Exists(folder.Path));
    }
}
