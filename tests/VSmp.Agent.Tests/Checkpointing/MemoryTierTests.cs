// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Control;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Checkpointing;

/// <summary>Checkpoints in the memory of nodes: any one may be lost, at any moment; what that needs of memory; what strangers may ask for.</summary>
public sealed class MemoryTierTests
{
    [Theory]
    [InlineData(CheckpointTier.Partner, 2)]
    [InlineData(CheckpointTier.Partner, 5)]
    [InlineData(CheckpointTier.Xor, 2)]
    [InlineData(CheckpointTier.Xor, 3)]
    [InlineData(CheckpointTier.Xor, 8)]
    internal void Any_one_node_may_be_lost_and_not_two_that_have_the_same(CheckpointTier tier, int nodes)
    {
        Random random = new(nodes);
        for (int lost = 0; lost < nodes; lost++)
        {
            using MemoryCluster cluster = new(nodes);
            // Of any lengths, none among them, so that pieces end anywhere.
            int[] pages = [.. Enumerable.Range(0, nodes).Select(node => node == (lost + 1) % nodes ? 0 : random.Next(1, 200))];
            Manifest manifest = cluster.Write(tier, 1, pages);
            cluster.Require(manifest);
            cluster.Lose(lost);
            cluster.Require(manifest);
            if (nodes == 2) continue;
            cluster.Lose((lost + nodes - 1) % nodes); // whose partner it is
            Assert.ThrowsAny<Exception>(() => cluster.Require(manifest));
        }
    }

    [Fact]
    public void A_checksum_of_eight_nodes_costs_a_seventh()
    {
        using MemoryCluster cluster = new(8);
        Manifest manifest = cluster.Write(CheckpointTier.Xor, 1, [.. Enumerable.Repeat(1000, 8)]);
        double stored = manifest.Parts.Sum(part => (double)part.FileBytes), taken = cluster.Taken.Sum(bytes => (double)bytes);
        Assert.InRange(taken / stored, 1.14, 1.15);
    }

    [Fact]
    public void Whoever_reads_when_a_node_is_lost_goes_on_with_what_others_have()
    {
        foreach (CheckpointTier tier in new[] { CheckpointTier.Partner, CheckpointTier.Xor })
        {
            int failed = 0;
            for (int after = 0; after < 60; after += 3)
            {
                using MemoryCluster cluster = new(3);
                Manifest manifest = cluster.Write(tier, 1, [100, 150, 70]);
                (cluster.LostAfter, cluster.LostNext) = (after, after % 3);
                // In the middle of a file that only one has, it can fail, and is read once more; it is never wrong.
                try { cluster.Require(manifest); }
                catch (Exception e) when (e is IOException or CheckpointException)
                {
                    failed++;
                    cluster.Require(manifest);
                }
            }
            if (tier == CheckpointTier.Partner) Assert.Equal(0, failed);
        }
    }

    [Theory]
    [InlineData(CheckpointTier.Partner)]
    [InlineData(CheckpointTier.Xor)]
    internal void What_is_safe_outlives_any_node_even_if_another_was_away_for_a_moment_while_it_was_written(CheckpointTier tier)
    {
        int safe = 0, refused = 0;
        for (int after = 0; after < 120; after++)
        {
            using MemoryCluster cluster = new(3);
            (cluster.LostAfter, cluster.LostNext, cluster.BackAfter) = (after, after % 3, after % 4);
            Manifest manifest;
            try { manifest = cluster.Write(tier, 1, [40, 30, 20]); }
            catch (IOException)
            {
                refused++;
                continue;
            }
            cluster.ReturnAll();
            safe++;
            cluster.Lose((cluster.LostNext + 1) % 3);
            cluster.Require(manifest);
        }
        Assert.True(safe > 10 && refused > 10, $"{safe} are safe, {refused} are refused");
    }

    [Fact]
    public void A_damaged_checksum_is_found_when_it_is_needed()
    {
        using MemoryCluster cluster = new(3);
        Manifest manifest = cluster.Write(CheckpointTier.Xor, 1, [50, 60, 70]);
        string path = Path.Combine(cluster.PathOf(0), MemoryCluster.Name, "g00000001", "n0.xor");
        byte[] bytes = File.ReadAllBytes(path);
        cluster.Lose(1);
        Random random = new(4);
        for (int i = 0; i < 300; i++)
        {
            int at = i < 200 ? i : random.Next(bytes.Length);
            byte[] damaged = [.. bytes];
            damaged[at] ^= (byte)(1 << random.Next(8));
            File.WriteAllBytes(path, damaged);
            Exception? found = Record.Exception(() => cluster.Require(manifest));
            // What is behind the end of a part that is shorter than the others is of no use to anybody.
            if (found is null) Assert.True(at > 1000, $"byte {at}");
            else Assert.True(found is CheckpointException or IOException, $"byte {at}: {found}");
        }
    }

    [Fact]
    public void Room_is_taken_before_it_is_written_to_and_given_back_to_the_last_byte()
    {
        using MemoryCluster cluster = new(2, bytesEach: 1 << 20);
        Assert.Contains("the pool has no room", Assert.Throws<IOException>(() => cluster.Write(CheckpointTier.Partner, 1, [300, 10])).Message, StringComparison.Ordinal);
        CheckpointStore store = new(cluster.All);
        store.Discard(1);
        Assert.Equal([0ul, 0], cluster.Taken);
        for (uint generation = 2; generation < 6; generation++)
        {
            _ = cluster.Write(CheckpointTier.Partner, generation, [20, 30]);
            store.Retain(1);
            for (int node = 0; node < 2; node++)
            {
                Assert.Equal((ulong)Directory.EnumerateFiles(cluster.PathOf(node), "*", SearchOption.AllDirectories).Sum(file => new FileInfo(file).Length), cluster.Taken[node]);
            }
        }
        _ = cluster.New(0, 1 << 20, out ulong left); // an agent that is started again
        Assert.Equal(cluster.Taken[0], left);
        store.RemoveAll();
        Assert.Equal([0ul, 0], cluster.Taken);
        Assert.Empty(Directory.EnumerateFileSystemEntries(cluster.PathOf(0)));
    }

    [Fact]
    public void Nothing_is_written_behind_the_room_that_was_taken()
    {
        using MemoryCluster cluster = new(1);
        using IStorageFile file = cluster[0].Create("g00000001", "n0.pages", 10_000);
        file.Write(new byte[10_001]);
        Assert.Contains("beyond the room", Assert.Throws<IOException>(file.Sync).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_no_request_is_refused_and_leads_nowhere_else()
    {
        using MemoryCluster cluster = new(2);
        string secret = Path.Combine(Path.GetDirectoryName(cluster.PathOf(0))!, "secret");
        File.WriteAllText(secret, "secret");
        _ = cluster.Write(CheckpointTier.Xor, 1, [3, 4]);
        foreach (string name in new[] { "../secret", "..", ".", "", "/etc/passwd", "a/b", "a\0b", "a\nb", new string('x', 300) })
        {
            foreach (FileOperation operation in Enum.GetValues<FileOperation>())
            {
                if (operation == FileOperation.Checkpoints) continue;
                if (name.Length == 0 && operation == FileOperation.Folders) continue;
                Refused(new FileRequest(operation, name, "g00000001", "n0.pages"));
                if (operation == FileOperation.Folders) continue;
                Refused(new FileRequest(operation, MemoryCluster.Name, name, "n0.pages", NewName: operation == FileOperation.Rename ? "x" : ""));
                if (operation is not (FileOperation.Files or FileOperation.MakeFolder or FileOperation.DeleteFolder or FileOperation.Protect))
                    Refused(new FileRequest(operation, MemoryCluster.Name, "g00000001", name, NewName: operation == FileOperation.Rename ? "x" : ""));
            }
            Refused(new FileRequest(FileOperation.Rename, MemoryCluster.Name, "g00000001", "n0.pages", NewName: name));
        }
        Refused(new FileRequest(FileOperation.Read, MemoryCluster.Name, "g00000001", "n0.pages", 0, FileRequest.MaxData + 1));
        Refused(new FileRequest(FileOperation.Read, MemoryCluster.Name, "g00000001", "n0.pages", -1, 1));
        Refused(new FileRequest(FileOperation.Write, MemoryCluster.Name, "g00000001", "n0.pages", long.MaxValue) { Data = new byte[1] });

        Random random = new(7);
        byte[] valid = new FileRequest(FileOperation.Files, MemoryCluster.Name, "g00000001").Write();
        for (int i = 0; i < 50_000; i++)
        {
            byte[] bytes = random.Next(2) == 0 ? new byte[random.Next(100)] : [.. valid];
            if (bytes.Length != valid.Length) random.NextBytes(bytes);
            else bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
            try { _ = cluster.Do(0, bytes); }
            catch (ControlException) { }
        }
        Assert.Equal("secret", File.ReadAllText(secret));
        Assert.Equal(3, Directory.GetFileSystemEntries(Path.GetDirectoryName(secret)!).Length);

        void Refused(FileRequest request) => Assert.Throws<ControlException>(() => cluster.Do(0, request.Write()));
    }
}
