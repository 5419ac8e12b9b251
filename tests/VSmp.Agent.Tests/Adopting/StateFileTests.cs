// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Adopting;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using Xunit;

namespace VSmp.Agent.Tests.Adopting;

public sealed class StateFileTests : IDisposable
{
    private const int Extents = 300; // more than fit into one block of the table
    private static readonly NodeId Self = new(3);
    private static readonly RegionId Id = RegionId.Create(new NodeId(2), 77);
    private static readonly NodeController Node = new(Self);
    private readonly string _folder = Path.Combine("/dev/shm", $"vsmp-state-{Environment.ProcessId}-{Guid.NewGuid():n}");

    public StateFileTests() => Directory.CreateDirectory(_folder);

    private string Frames => FrameFile.PathOf(_folder, Id);

    private string StatePath => Frames + StateFile.Suffix;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void What_was_recorded_is_found_again()
    {
        Region region = NewRegion();
        StateFile file = StateFile.Create(Frames, region, Self);
        for (uint e = 0; e < Extents; e++) region.Homes!.Place(new ExtentNumber(e), new NodeId((ushort)(e * 211)));
        region.Homes!.PlaceMirror(new ExtentNumber(299), new NodeId(0));
        region.BecomeHome(new ExtentNumber(7));
        region.SetMirror(new ExtentNumber(7), new NodeId(65534));
        region.SetNextMirror(new ExtentNumber(7), new NodeId(5));
        region.Mirrored.Add(new ExtentNumber(299), new NodeId(0), isFresh: false);
        region.BecomeHome(new ExtentNumber(9));
        region.LeaveUndecided(new ExtentNumber(9));
        region.Open(new ExtentNumber(7));
        region.Open(new ExtentNumber(8));
        region.Generation = new Generation(9);
        file.RecordLayout(region, Node, RegionTraits.IsUsed | RegionTraits.IsShared);
        file.NodeWordOf(new PageNumber((8 << 9) + 511)) = 0x8000_0001_0000_0000;
        file.Close();

        StateFile found = StateFile.Open(Frames, Id, Self);
        Assert.Equal("a name", found.Header.Name);
        Assert.Equal("mesi", found.Header.Protocol);
        Assert.Equal(new Generation(9), found.Generation);
        Assert.Equal(RegionTraits.IsUsed | RegionTraits.IsShared, found.Header.Traits);
        Assert.Equal(new ExtentRecord(ExtentRoles.Open | ExtentRoles.Home, new NodeId(7 * 211), NodeId.None, new NodeId(65534), new NodeId(5), NodeId.None), found[new ExtentNumber(7)]);
        Assert.Equal(new ExtentRecord(ExtentRoles.Mirror, new NodeId(299 * 211 & 0xFFFF), new NodeId(0), NodeId.None, NodeId.None, new NodeId(0)), found[new ExtentNumber(299)]);
        Assert.Equal(ExtentRoles.Home | ExtentRoles.Undecided, found[new ExtentNumber(9)].Roles);
        Assert.Equal(ExtentRoles.None, found[new ExtentNumber(298)].Roles);
        Assert.Equal(0x8000_0001_0000_0000, found.NodeWordOf(new PageNumber((8 << 9) + 511)));
        Assert.Equal(128ul, found.HomeWordOf(new PageNumber(299 << 9))); // a mirror that knows nothing yet
        found.Close();
    }

    [Fact]
    public void A_role_that_ends_leaves_no_words()
    {
        Region region = NewRegion();
        ExtentNumber extent = new(4);
        using StateFile file = StateFile.Create(Frames, region, Self);
        region.Homes!.Place(extent, Self);
        region.Open(extent);
        file.RecordExtent(region, Node, extent);
        file.NodeWordOf(extent.FirstPage) = 5;
        region.Close(extent);
        file.RecordExtent(region, Node, extent);
        region.Open(extent);
        file.RecordExtent(region, Node, extent);
        Assert.Equal(0ul, file.NodeWordOf(extent.FirstPage));
    }

    [Fact]
    public void A_flipped_bit_of_what_does_not_change_is_found()
    {
        StateFile.Create(Frames, NewRegion(), Self).Close();
        byte[] whole = File.ReadAllBytes(StatePath);
        for (int bit = 0; bit < 1024 * 8; bit++)
        {
            whole[bit / 8] ^= (byte)(1 << (bit % 8));
            Overwrite(whole.AsSpan(0, StateHeader.Bytes));
            Assert.Throws<InvalidDataException>(() => StateFile.Open(Frames, Id, Self));
            whole[bit / 8] ^= (byte)(1 << (bit % 8));
        }
        Overwrite(whole.AsSpan(0, StateHeader.Bytes));
        StateFile.Open(Frames, Id, Self).Close();
    }

    [Fact]
    public void Any_bit_of_what_changes_is_taken_or_refused()
    {
        Region region = NewRegion();
        StateFile file = StateFile.Create(Frames, region, Self);
        region.Homes!.Place(new ExtentNumber(0), Self);
        region.BecomeHome(new ExtentNumber(0));
        file.RecordLayout(region, Node, RegionTraits.IsUsed);
        file.Close();
        byte[] whole = File.ReadAllBytes(StatePath);
        foreach (int at in Enumerable.Range(1024, 12).Concat(Enumerable.Range(4096, 32)))
        {
            for (int bit = 0; bit < 8; bit++)
            {
                whole[at] ^= (byte)(1 << bit);
                Overwrite(whole.AsSpan(0, 8192));
                try { StateFile.Open(Frames, Id, Self).Close(); }
                catch (InvalidDataException e) { Assert.Contains(StatePath, e.Message, StringComparison.Ordinal); }
                whole[at] ^= (byte)(1 << bit);
            }
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(4095)]
    [InlineData(4096)]
    [InlineData(12288)]
    public void A_truncated_file_is_refused(long bytes)
    {
        StateFile.Create(Frames, NewRegion(), Self).Close();
        using (FileStream stream = File.OpenWrite(StatePath)) stream.SetLength(bytes);
        Assert.Throws<InvalidDataException>(() => StateFile.Open(Frames, Id, Self));
    }

    [Fact]
    public void Another_region_or_node_is_refused()
    {
        StateFile.Create(Frames, NewRegion(), Self).Close();
        Assert.Throws<InvalidDataException>(() => StateFile.Open(Frames, Id, new NodeId(4)));
        Assert.Throws<InvalidDataException>(() => StateFile.Open(Frames, RegionId.Create(new NodeId(2), 78), Self));
        Assert.Throws<IOException>(() => StateFile.Open(Frames + "x", Id, Self));
    }

    [Fact]
    public void A_region_without_records_says_so()
    {
        StateFile.Create(Frames, new LazyRegion(Id, "lazy", 4, new HomeMap(4), new FrameBudget(8)), Self).Close();
        Assert.Contains("not recorded", Assert.Throws<InvalidDataException>(() => StateFile.Open(Frames, Id, Self)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_region_whose_homes_are_changing_places_is_refused()
    {
        StateFile file = StateFile.Create(Frames, NewRegion(), Self);
        file.BeginChange();
        file.Close();
        Assert.Contains("changing places", Assert.Throws<InvalidDataException>(() => StateFile.Open(Frames, Id, Self)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public unsafe void Kept_copies_are_found_again_and_the_newer_counts()
    {
        using FrameFile frames = FrameFile.Create(_folder, Id, ExtentNumber.Bytes);
        PageNumber one = new(1), two = new(2), zero = new(3), aside = new(4);
        var kept = new KeptCopies(KeptFile.Create(Frames));
        Fill(frames, one, 11);
        kept.Keep(one, frames);
        Fill(frames, one, 12);
        kept.KeepInstead(one, frames);
        Fill(frames, two, 21);
        kept.Keep(two, frames);
        kept.Keep(zero, frames);
        kept.Release(two);
        Fill(frames, aside, 41);
        kept.TakeAside(aside, frames);
        Fill(frames, aside, 0);
        kept.Close();

        kept = new KeptCopies(KeptFile.Open(Frames));
        IReadOnlyList<int> slots = kept.Load(ExtentNumber.Pages);
        Assert.Equal(2, kept.Count);
        Assert.Equal(12, *kept.Find(one));
        Assert.True(kept.Find(zero) == null);
        Assert.False(kept.Contains(two));
        kept.PutBack(Assert.Single(slots), frames);
        byte[] page = new byte[PageNumber.Bytes];
        fixed (byte* bytes = page) frames.Read(aside, bytes, 1);
        Assert.All(page, b => Assert.Equal(41, b));
        kept.Dispose();
        Assert.False(File.Exists(Frames + KeptFile.Suffix));
    }

    [Fact]
    public void A_damaged_file_of_kept_copies_is_refused()
    {
        using FrameFile frames = FrameFile.Create(_folder, Id, ExtentNumber.Bytes);
        var kept = new KeptCopies(KeptFile.Create(Frames));
        Fill(frames, new PageNumber(1), 1);
        kept.Keep(new PageNumber(1), frames);
        kept.Close();
        foreach (ulong word in (ulong[])[1, 1ul << 63 | 512, 1ul << 63 | 1ul << 62 | 1ul << 61, ulong.MaxValue])
        {
            using (FileStream stream = File.OpenWrite(Frames + KeptFile.Suffix)) stream.Write(BitConverter.GetBytes(word));
            var found = new KeptCopies(KeptFile.Open(Frames));
            Assert.Throws<InvalidDataException>(() => found.Load(ExtentNumber.Pages));
            found.Close();
        }
        using (FileStream stream = File.OpenWrite(Frames + KeptFile.Suffix)) stream.SetLength(KeptCopies.SlabBytes - 1);
        var cut = new KeptCopies(KeptFile.Open(Frames));
        Assert.Throws<InvalidDataException>(() => cut.Load(ExtentNumber.Pages));
        cut.Close();
    }

    private static Region NewRegion() => new(Id, "a name", Extents, Mesi.Protocol, new HomeMap(Extents), new FrameBudget(8));

    private static unsafe void Fill(FrameFile frames, PageNumber page, byte value)
    {
        byte[] bytes = new byte[PageNumber.Bytes];
        Array.Fill(bytes, value);
        fixed (byte* first = bytes) frames.Write(page, first, 1);
    }

    private void Overwrite(ReadOnlySpan<byte> bytes)
    {
        using FileStream stream = File.OpenWrite(StatePath);
        stream.Write(bytes);
    }
}
