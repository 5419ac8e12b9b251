// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Membership;

/// <summary>Why a store of views did not do what it was asked.</summary>
internal enum StoreFailure
{
    /// <summary>It cannot be reached, or has no majority at the moment: try again later.</summary>
    Unreachable,

    /// <summary>It answers, and refuses: wrong user or password, no permission, no room. Trying again changes nothing.</summary>
    Refused,

    /// <summary>What answers there is no such store.</summary>
    NotAStore,

    /// <summary>
    /// Whether a swap has happened cannot be told: the request was sent, and the store could not be asked afterwards. It may even
    /// happen later. Only the record itself will tell.
    /// </summary>
    OutcomeUnknown,

    /// <summary>
    /// The store has forgotten what it had already confirmed (emptied, or restored from a backup): nothing that was agreed on can be
    /// relied on.
    /// </summary>
    WentBack,
}

/// <summary>A store of views did not do what it was asked; the message says why, where, and what to do.</summary>
internal class ViewStoreException(StoreFailure failure, string message) : Exception(message)
{
    /// <summary>The kind of failure.</summary>
    public StoreFailure Failure => failure;
}
