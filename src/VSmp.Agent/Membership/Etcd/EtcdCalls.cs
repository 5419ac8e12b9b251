// SPDX-License-Identifier: Apache-2.0
using System.Text.Json.Serialization.Metadata;

namespace VSmp.Agent.Membership.Etcd;

/// <summary>A call of etcd: its path in the gateway and what goes and comes.</summary>
internal sealed record EtcdCall<TRequest, TReply>(string Path, JsonTypeInfo<TRequest> Request, JsonTypeInfo<TReply> Reply)
    where TReply : IEtcdReply;

/// <summary>The calls that VSmp uses.</summary>
internal static class EtcdCalls
{
    public const string Watch = "v3/watch";

    public static readonly EtcdCall<RangeRequest, RangeReply> Range =
        new("v3/kv/range", EtcdJson.Default.RangeRequest, EtcdJson.Default.RangeReply);

    public static readonly EtcdCall<PutRequest, PutReply> Put = new("v3/kv/put", EtcdJson.Default.PutRequest, EtcdJson.Default.PutReply);

    public static readonly EtcdCall<TxnRequest, TxnReply> Txn = new("v3/kv/txn", EtcdJson.Default.TxnRequest, EtcdJson.Default.TxnReply);

    public static readonly EtcdCall<LeaseGrantRequest, LeaseGrantReply> LeaseGrant =
        new("v3/lease/grant", EtcdJson.Default.LeaseGrantRequest, EtcdJson.Default.LeaseGrantReply);

    public static readonly EtcdCall<LeaseRequest, LeaseKeepAliveReply> LeaseKeepAlive =
        new("v3/lease/keepalive", EtcdJson.Default.LeaseRequest, EtcdJson.Default.LeaseKeepAliveReply);

    public static readonly EtcdCall<LeaseRequest, LeaseRevokeReply> LeaseRevoke =
        new("v3/lease/revoke", EtcdJson.Default.LeaseRequest, EtcdJson.Default.LeaseRevokeReply);

    public static readonly EtcdCall<AuthenticateRequest, AuthenticateReply> Authenticate =
        new("v3/auth/authenticate", EtcdJson.Default.AuthenticateRequest, EtcdJson.Default.AuthenticateReply);
}

/// <summary>gRPC's status codes, as far as they mean something here (grpc.io/docs/guides/status-codes).</summary>
internal enum GrpcCode
{
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}
