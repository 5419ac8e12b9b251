// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Messages;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

/// <summary>
/// Which versions anybody will look at again, read off a protocol's own table: a version is dead in a state if on every way from
/// there it is overwritten before it is compared or sent to somebody who compares it. (Live variables, as compilers compute
/// them.)
/// </summary>
/// <remarks>
/// Where nodes are lost, versions are read beyond that (<see cref="WorldCodec"/>): here that does not happen.
/// What is read off is the table that is searched, planted bugs included: where a bug makes a version matter, it is live.
/// </remarks>
internal sealed class VersionLiveness
{
    private readonly ProtocolTable<NodeState, NodeEvent, NodeAction> _table;
    private readonly bool[] _states = new bool[Enum.GetValues<NodeState>().Length];
    private readonly bool[] _types = new bool[byte.MaxValue + 1];

    public VersionLiveness(Protocol protocol)
    {
        _table = protocol.Node;
        bool grows;
        do
        {
            grows = false;
            foreach (NodeState state in _table.States)
            {
                if (_states[(int)state] || !_table.Events.Any(e => !IsOfRecovery(e) && Reads(state, e))) continue;
                grows = _states[(int)state] = true;
            }
        }
        while (grows);
        foreach (MessageType type in Enum.GetValues<MessageType>()) _types[(int)type] = IsRead(type);
    }

    /// <summary>Whether the version of a page in some state at a node will be looked at.</summary>
    public bool IsLive(NodeState state) => _states[(int)state];

    /// <summary>Whether the version in a message will be looked at.</summary>
    public bool IsLive(MessageType type) => _types[(int)type];

    private static bool IsOfRecovery(NodeEvent @event) => @event is NodeEvent.Freeze or NodeEvent.Recall or NodeEvent.Promote or NodeEvent.Thaw;

    private bool IsRead(MessageType type) => type switch
    {
        MessageType.GetS or MessageType.GetM or MessageType.Upgrade => false, // the home has its own
        MessageType.DataS => Installs(NodeEvent.DataS),
        MessageType.FwdGetS => Installs(NodeEvent.FwdGetS),
        MessageType.Inv => Installs(NodeEvent.Inv) || IsRead(MessageType.InvAck),
        MessageType.InvAck => Installs(NodeEvent.InvAck) || Installs(NodeEvent.LastInvAck),
        MessageType.PutAck => Installs(NodeEvent.PutAck),
        MessageType.Nack => Installs(NodeEvent.Nack),
        MessageType.WritebackAck => Installs(NodeEvent.WritebackAck),
        MessageType.PutZ => IsRead(MessageType.PutAck) || IsRead(MessageType.Nack), // their answers repeat it
        MessageType.Writeback or MessageType.WritebackClean => IsRead(MessageType.WritebackAck),
        _ => true, // grants, and what is compared with the version at the home or of what is kept
    };

    /// <summary>Whether an event takes the message's version over, to where it is live.</summary>
    private bool Installs(NodeEvent @event)
    {
        foreach (NodeState state in _table.States)
        {
            ref readonly Cell<NodeState, NodeAction> cell = ref _table[state, @event];
            if (cell.Verdict != Verdict.Handle) continue;
            foreach (NodeAction action in cell.Actions)
            {
                if (action == NodeAction.SendDataM || (action == NodeAction.InstallReadable && IsLive(cell.Next))) return true;
            }
        }
        return false;
    }

    private bool Reads(NodeState state, NodeEvent @event)
    {
        ref readonly Cell<NodeState, NodeAction> cell = ref _table[state, @event];
        if (cell.Verdict != Verdict.Handle) return false;
        if (@event == NodeEvent.InstallAck) return true; // compared with what is kept
        foreach (NodeAction action in cell.Actions)
        {
            switch (action)
            {
                case NodeAction.SendPutM or NodeAction.SendPutE or NodeAction.SendPutO:
                case NodeAction.SendPutZ when IsRead(MessageType.PutZ):
                case NodeAction.SendDataToHome or NodeAction.SendCleanToHome when IsRead(MessageType.Writeback):
                case NodeAction.SendDataToRequestor when IsRead(MessageType.DataS):
                    return true;
                case NodeAction.SendDataM or NodeAction.InstallReadable or NodeAction.InstallExclusive:
                case NodeAction.InstallWritable or NodeAction.MakeWritable when HasTransaction(state):
                    return false; // overwritten
            }
        }
        return cell.Next != NodeState.I && IsLive(cell.Next); // I has none
    }

    private static bool HasTransaction(NodeState state) => state is NodeState.IS_D or NodeState.IS_D_I
        or NodeState.IM_AD or NodeState.IM_A or NodeState.SM_AD or NodeState.SM_A or NodeState.OM_AD or NodeState.OM_A
        or NodeState.IM_ADK or NodeState.IM_AK or NodeState.IM_K;
}
