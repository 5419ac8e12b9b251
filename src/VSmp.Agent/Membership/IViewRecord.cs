// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership;

/// <summary>
/// Where the membership's record is, as the machine's effects want it: everything returns at once, and answers come later, on the reactor. An answer that
/// is lost does no harm, the machine asks again.
/// </summary>
internal interface IViewRecord
{
    /// <summary>Reads the record where it is kept.</summary>
    void Read();

    /// <summary>Puts a view in place of the record, if its revision is still that one.</summary>
    void Propose(long revision, MembershipView view);
}
