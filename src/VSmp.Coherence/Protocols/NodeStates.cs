// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Protocols;

/// <summary>What states mean, whatever the protocol.</summary>
public static class NodeStates
{
    /// <summary>Whether a node in this state has been granted reading, and waits for nothing.</summary>
    public static bool MayRead(NodeState state) => state is NodeState.S or NodeState.M or NodeState.E or NodeState.O;

    /// <summary>Whether a node in this state has the page mapped writable. (E may write without asking anybody either, but becomes M by it.)</summary>
    public static bool MayWrite(NodeState state) => state is NodeState.M;

    /// <summary>Whether nothing is under way for the page.</summary>
    public static bool IsStable(NodeState state) => state == NodeState.I || MayRead(state);

    /// <summary>Whether something is under way for the page at its home, and requests for it wait.</summary>
    public static bool IsBusy(DirectoryState state) => state is DirectoryState.S_D or DirectoryState.M_A or DirectoryState.I_A
        or DirectoryState.I_W or DirectoryState.S_W or DirectoryState.I_AW;

    /// <summary>Whether a node in this state has contents that the home may lack: giving them up costs a writeback.</summary>
    public static bool IsDirty(NodeState state) => state is NodeState.M or NodeState.O;

    /// <summary>Whether the home copy is what was written last, once nothing is under way.</summary>
    public static bool HomeIsValid(DirectoryState state) => state is DirectoryState.I or DirectoryState.S;

    /// <summary>Whether a node's state is one that the directory allows, once nothing is under way.</summary>
    /// <param name="directory">The home's state.</param>
    /// <param name="isOwner">Whether the directory names the node as owner.</param>
    /// <param name="mayShare">Whether the directory counts the node among the sharers.</param>
    /// <param name="node">The node's state.</param>
    public static bool Agrees(DirectoryState directory, bool isOwner, bool mayShare, NodeState node) => directory switch
    {
        DirectoryState.I => node == NodeState.I,
        DirectoryState.S => node == NodeState.I || (node == NodeState.S && mayShare),
        DirectoryState.M => node == (isOwner ? NodeState.M : NodeState.I),
        DirectoryState.E => isOwner ? node is NodeState.E or NodeState.M : node == NodeState.I,
        DirectoryState.O => isOwner ? node == NodeState.O : node == NodeState.I || (node == NodeState.S && mayShare),
        DirectoryState.Lost => node == NodeState.I,
        _ => false,
    };
}
