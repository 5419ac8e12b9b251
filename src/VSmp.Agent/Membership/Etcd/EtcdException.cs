// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Membership.Etcd;

/// <summary>etcd did not do what it was asked.</summary>
/// <param name="failure">The kind of failure.</param>
/// <param name="message">What failed, where, and what to do.</param>
/// <param name="mayHaveRun">Whether the request may have been carried out nevertheless, or may be yet.</param>
/// <param name="code">etcd's own code, if it gave one.</param>
internal sealed class EtcdException(StoreFailure failure, string message, bool mayHaveRun = false, GrpcCode code = GrpcCode.Ok)
    : ViewStoreException(failure, message)
{
    /// <summary>Whether the request may have been carried out nevertheless, or may be yet.</summary>
    public bool MayHaveRun => mayHaveRun;

    /// <summary>etcd's own code, or <see cref="GrpcCode.Ok"/>.</summary>
    public GrpcCode Code => code;

    /// <summary>Whether it can help to prove anew who we are: tokens die with the member of etcd that gave them, by age, and when users are
    /// changed.</summary>
    public bool AsksForToken => code == GrpcCode.Unauthenticated
        || (code == GrpcCode.InvalidArgument && (Message.Contains("user name is empty", StringComparison.Ordinal)
            || Message.Contains("revision of auth store is old", StringComparison.Ordinal)));
}
