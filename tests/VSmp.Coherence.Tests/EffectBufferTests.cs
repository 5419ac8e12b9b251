// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Messages;

namespace VSmp.Coherence.Tests;

/// <summary>Effects on neighbouring pages become runs; what is asked of one page keeps its order.</summary>
public sealed class EffectBufferTests
{
    private static readonly RegionId Region = new(7);
    private static readonly NodeId Peer = new(1), Other = new(2);
    private readonly EffectBuffer _effects = new();

    [Fact]
    public void Several_messages_about_each_page_become_one_run_each()
    {
        for (ulong page = 10; page < 14; page++)
        {
            _effects.Add(EffectKind.WriteProtect, Region, new PageNumber(page));
            Send(Peer, MessageType.DataS, page);
            Send(Peer, MessageType.Writeback, page);
        }
        Assert.Equal(["WriteProtect 10+4", "DataS 10+4", "Writeback 10+4"], All());
    }

    [Fact]
    public void A_message_does_not_go_before_what_must_be_done_to_its_page_first()
    {
        _effects.Add(EffectKind.WriteProtect, Region, new PageNumber(10));
        Send(Peer, MessageType.DataM, 10);
        _effects.Add(EffectKind.Keep, Region, new PageNumber(10));
        _effects.Add(EffectKind.Keep, Region, new PageNumber(11));
        Send(Peer, MessageType.DataM, 11);
        Assert.Equal(["WriteProtect 10+1", "DataM 10+1", "Keep 10+2", "DataM 11+1"], All());
    }

    [Fact]
    public void A_run_moves_behind_what_must_be_done_first_where_nothing_on_its_pages_stands_in_between()
    {
        Send(Peer, MessageType.InvAck, 10);
        _effects.Add(EffectKind.Unmap, Region, new PageNumber(11));
        Send(Peer, MessageType.InvAck, 11);
        Assert.Equal(["Unmap 11+1", "InvAck 10+2"], All());
    }

    [Fact]
    public void Messages_to_others_and_of_other_pages_stay_apart()
    {
        Send(Peer, MessageType.DataS, 10);
        Send(Other, MessageType.DataS, 11);
        Send(Peer, MessageType.DataS, 13);
        Assert.Equal(["DataS 10+1", "DataS 11+1", "DataS 13+1"], All());
    }

    private void Send(NodeId to, MessageType type, ulong page) => _effects.AddSend(to, DataSource.None, new Message
    {
        Type = type,
        Requestor = to,
        Region = Region,
        Page = new PageNumber(page),
        Count = 1,
    });

    private string[] All() => [.. Enumerable.Range(0, _effects.Count).Select(i => _effects[i]).Select(effect =>
        $"{(effect.Kind == EffectKind.Send ? effect.Message.Type : effect.Kind)} {effect.Page.Value}+{effect.Count}")];
}
