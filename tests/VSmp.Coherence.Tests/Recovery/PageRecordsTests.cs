// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Coherence.Tests.Recovery;

/// <summary>What outlives an agent, as words. (What is made of it when agents are killed, the model checker searches: <c>vsmp-bench check</c>.)</summary>
public sealed class PageRecordsTests
{
    [Fact]
    public void A_page_at_a_node_is_read_as_it_was_written_but_for_what_ends_with_the_agent()
    {
        var entry = new PageEntry
        {
            State = NodeState.MI_A,
            Version = new PageVersion(0xFEDCBA98),
            Flags = PageFlags.HasFrame | PageFlags.MayBeWritten | PageFlags.Held | PageFlags.Awaited,
        };
        PageEntry read = PageRecords.NodeEntry(PageRecords.WordOf(in entry, new TransactionTable(4)));
        Assert.Equal(NodeState.MI_A, read.State);
        Assert.Equal(PageFlags.HasFrame | PageFlags.MayBeWritten, read.Flags);
        Assert.Equal(entry.Version, read.Version);
        Assert.Equal(0, read.Slot);
    }

    [Fact]
    public void What_was_granted_and_is_not_installed_is_known_by_the_grants_version()
    {
        var transactions = new TransactionTable(4);
        var entry = new PageEntry { State = NodeState.IM_A, Slot = transactions.Take(1) };
        transactions[entry.Slot].Version = new PageVersion(7);
        Assert.Equal(new PageVersion(7), PageRecords.NodeEntry(PageRecords.WordOf(in entry, transactions)).Version);
        entry.State = NodeState.SM_A; // reads on what it has had before
        Assert.Equal(default, PageRecords.NodeEntry(PageRecords.WordOf(in entry, transactions)).Version);
    }

    [Fact]
    public void A_page_at_its_home_is_read_as_it_was_written_but_for_its_sharers_and_what_waits()
    {
        DirectoryEntry entry = DirectoryEntry.Zero;
        entry.State = DirectoryState.M_A;
        entry.Owner = new NodeId(513);
        entry.Version = new PageVersion(uint.MaxValue);
        entry.Flags = DirectoryFlags.Kept | DirectoryFlags.Forwarded | DirectoryFlags.HasWaiters;
        entry.AddSharer(new NodeId(3));
        DirectoryEntry read = PageRecords.HomeEntry(PageRecords.WordOf(in entry));
        Assert.Equal((entry.State, entry.Owner, entry.Version), (read.State, read.Owner, read.Version));
        Assert.Equal(DirectoryFlags.Kept | DirectoryFlags.Forwarded, read.Flags);
        Assert.False(read.MayShare(new NodeId(3)));
    }

    [Fact]
    public void A_page_at_its_mirror_is_read_as_it_was_written()
    {
        foreach (MirrorContents contents in Enum.GetValues<MirrorContents>())
        {
            var entry = new MirrorEntry { Contents = contents, Version = new PageVersion(9) };
            MirrorEntry read = PageRecords.MirrorEntry(PageRecords.WordOf(in entry));
            Assert.Equal((entry.Contents, entry.Version), (read.Contents, read.Version));
        }
    }

    [Fact]
    public void A_page_that_nobody_ever_asked_for_is_zeros_everywhere()
    {
        Assert.Equal(NodeState.I, PageRecords.NodeEntry(0).State);
        Assert.Equal((DirectoryState.I, DirectoryFlags.Zero), (PageRecords.HomeEntry(0).State, PageRecords.HomeEntry(0).Flags));
        Assert.Equal(MirrorContents.Zero, PageRecords.MirrorEntry(0).Contents);
    }

    [Fact]
    public void Words_that_no_agent_writes_are_refused()
    {
        Assert.Throws<InvalidDataException>(() => PageRecords.NodeEntry(0xFF)); // a state that is none
        Assert.Throws<InvalidDataException>(() => PageRecords.NodeEntry((ulong)PageFlags.Held << 8));
        Assert.Throws<InvalidDataException>(() => PageRecords.NodeEntry(1ul << 16));
        Assert.Throws<InvalidDataException>(() => PageRecords.HomeEntry(128)); // a mirror's
        Assert.Throws<InvalidDataException>(() => PageRecords.HomeEntry(100));
        Assert.Throws<InvalidDataException>(() => PageRecords.HomeEntry(1 | (ulong)DirectoryFlags.HasWaiters << 8));
        Assert.Throws<InvalidDataException>(() => PageRecords.MirrorEntry(1)); // a home's
        Assert.Throws<InvalidDataException>(() => PageRecords.MirrorEntry(140));
        Assert.Throws<InvalidDataException>(() => PageRecords.MirrorEntry(129 | 1ul << 8));
    }

    [Fact]
    public void A_page_is_not_recorded_before_an_effect_while_data_of_it_are_still_to_come()
    {
        var region = new RegionId(1);
        var page = new PageNumber(5);
        var effects = new EffectBuffer();
        effects.Add(EffectKind.ReleaseKept, region, page);
        Assert.True(PageRecords.MustRecordBefore(effects, 0));
        effects.Add(EffectKind.Keep, region, page.Plus(1)); // another's
        Assert.True(PageRecords.MustRecordBefore(effects, 0));
        effects.Add(EffectKind.Keep, region, page);
        Assert.False(PageRecords.MustRecordBefore(effects, 0));
    }

    [Fact]
    public void A_step_without_effects_on_a_page_asks_for_its_recording_and_one_with_effects_does_not_ask_twice()
    {
        var region = new RegionId(1);
        var effects = new EffectBuffer();
        effects.Touch(region, new PageNumber(5));
        Assert.Equal(EffectKind.Record, effects[0].Kind);
        effects.Touch(region, new PageNumber(5));
        Assert.Equal(1, effects.Count);
        effects.Add(EffectKind.Unmap, region, new PageNumber(9));
        effects.Touch(region, new PageNumber(9));
        Assert.Equal(2, effects.Count);
    }
}
