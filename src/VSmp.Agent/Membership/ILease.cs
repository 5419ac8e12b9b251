// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using VSmp.Agent.Keeping;

namespace VSmp.Agent.Membership;

/// <summary>What sees to it that this node's guests run only as long as it has a lease. On the reactor.</summary>
internal interface ILease
{
    /// <summary>Guests may run until then; those that are stopped go on.</summary>
    void Extend(BootTime deadline);

    /// <summary>The lease has run out, or there was none yet: guests are stopped until there is one.</summary>
    void End();
}

/// <summary>The keeper that started this agent stops and continues the guests, whether the agent is there or not.</summary>
internal sealed class KeeperLease(KeeperClient keeper) : ILease
{
    /// <inheritdoc/>
    public void Extend(BootTime deadline)
    {
        try { _ = keeper.Lease(deadline); } // one that is not taken is followed by the next
        catch (IOException)
        {
            // There is no keeper any more: the agent is told, and ends its guests and itself.
        }
    }

    /// <inheritdoc/>
    public void End()
    {
        // The keeper has a clock of its own.
    }
}
