// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;

namespace VSmp.Agent.Membership.Etcd;

// The messages of etcd's API version 3 as its JSON gateway has them, as far as VSmp uses them: names as in etcd's rpc.proto, 64-bit
// numbers as strings, bytes in base64, and what is zero, empty or false left out. What is left out keeps its default only where it can be
// set: generated code gives something to every `init`.

/// <summary>What every answer begins with.</summary>
/// <param name="ClusterId">Which etcd cluster.</param>
/// <param name="Revision">The store's count of changes when it answered.</param>
internal sealed record EtcdHeader(ulong ClusterId, long Revision);

/// <summary>An answer with a header.</summary>
internal interface IEtcdReply
{
    /// <summary>Null where something else than etcd answers.</summary>
    EtcdHeader? Header { get; }

    /// <summary>Of a stream: why it ended, if it did.</summary>
    EtcdStreamError? Error => null;
}

/// <summary>A key and what is under it.</summary>
internal sealed class EtcdKeyValue
{
    public byte[] Key { get; set; } = [];

    public byte[] Value { get; set; } = [];

    /// <summary>The change that wrote it (of a deletion: the change that deleted it).</summary>
    public long ModRevision { get; init; }

    /// <summary>The lease that it is bound to, or 0.</summary>
    public long Lease { get; init; }
}

internal sealed class RangeRequest
{
    public required byte[] Key { get; init; }

    /// <summary>The first key behind the range; null: <see cref="Key"/> alone.</summary>
    public byte[]? RangeEnd { get; init; }

    /// <summary>As of that change; 0: as of now.</summary>
    public long Revision { get; init; }

    /// <summary>What the member that is asked knows, though it may be outdated.</summary>
    public bool Serializable { get; init; }

    public bool KeysOnly { get; init; }
}

internal sealed class RangeReply : IEtcdReply
{
    public EtcdHeader? Header { get; init; }

    public EtcdKeyValue?[] Kvs { get; set; } = [];
}

internal sealed class PutRequest
{
    public required byte[] Key { get; init; }

    public required byte[] Value { get; init; }

    public long Lease { get; init; }
}

internal sealed class PutReply : IEtcdReply
{
    public EtcdHeader? Header { get; init; }
}

/// <summary>A condition: the key was last changed at that revision (0: there is no such key).</summary>
internal sealed class EtcdCompare
{
    public required byte[] Key { get; init; }

    public string Target { get; } = "MOD";

    public string Result { get; } = "EQUAL";

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public long ModRevision { get; init; }
}

internal sealed class EtcdOperation
{
    public PutRequest? RequestPut { get; init; }

    public RangeRequest? RequestRange { get; init; }

    public DeleteRequest? RequestDeleteRange { get; init; }
}

/// <summary>Deletes one key.</summary>
internal sealed class DeleteRequest
{
    public required byte[] Key { get; init; }
}

internal sealed class TxnRequest
{
    public required EtcdCompare[] Compare { get; init; }

    public required EtcdOperation[] Success { get; init; }

    public required EtcdOperation[] Failure { get; init; }
}

internal sealed class EtcdOperationReply
{
    public RangeReply? ResponseRange { get; init; }
}

internal sealed class TxnReply : IEtcdReply
{
    public EtcdHeader? Header { get; init; }

    public bool Succeeded { get; init; }

    public EtcdOperationReply?[] Responses { get; set; } = [];
}

internal sealed class LeaseGrantRequest
{
    [JsonPropertyName("TTL")]
    public required long TtlSeconds { get; init; }
}

/// <summary>The lease that was granted; etcd makes short times to live longer.</summary>
internal sealed class LeaseGrantReply : IEtcdReply
{
    public EtcdHeader? Header { get; init; }

    [JsonPropertyName("ID")]
    public long Id { get; init; }

    [JsonPropertyName("TTL")]
    public long TtlSeconds { get; init; }
}

internal sealed class LeaseRequest
{
    [JsonPropertyName("ID")]
    public required long Id { get; init; }
}

internal sealed class LeaseRevokeReply : IEtcdReply
{
    public EtcdHeader? Header { get; init; }
}

/// <summary>The lease has so much time again; no time if there is no such lease (any more).</summary>
internal sealed class LeaseKeepAlive : IEtcdReply
{
    public EtcdHeader? Header { get; init; }

    [JsonPropertyName("TTL")]
    public long TtlSeconds { get; init; }
}

/// <summary>To etcd, keeping alive is a stream: its elements are wrapped.</summary>
internal sealed class LeaseKeepAliveReply : IEtcdReply
{
    [JsonIgnore]
    public EtcdHeader? Header => Result?.Header;

    public LeaseKeepAlive? Result { get; init; }

    public EtcdStreamError? Error { get; init; }
}

internal sealed class AuthenticateRequest
{
    public required string Name { get; init; }

    public required string Password { get; init; }
}

internal sealed class AuthenticateReply : IEtcdReply
{
    public EtcdHeader? Header { get; init; }

    public string? Token { get; init; }
}

internal sealed class WatchCreate
{
    public required byte[] Key { get; init; }

    public required long StartRevision { get; init; }

    /// <summary>Many changes at once come in several elements, not in one of any size.</summary>
    public bool Fragment { get; } = true;
}

internal sealed class WatchRequest
{
    public required WatchCreate CreateRequest { get; init; }
}

internal sealed class EtcdEvent
{
    /// <summary>"PUT", which is left out, or "DELETE".</summary>
    public string? Type { get; init; }

    public EtcdKeyValue? Kv { get; init; }
}

internal sealed class WatchReply
{
    public EtcdHeader? Header { get; init; }

    public bool Created { get; init; }

    public bool Canceled { get; init; }

    public string? CancelReason { get; init; }

    /// <summary>If not 0: the changes before that one, which were asked for, are forgotten.</summary>
    public long CompactRevision { get; init; }

    public EtcdEvent?[] Events { get; set; } = [];
}

/// <summary>Why a stream ended, in the gateway's own form.</summary>
internal sealed class EtcdStreamError
{
    public int GrpcCode { get; init; }

    public string? Message { get; init; }
}

/// <summary>An element of a watch.</summary>
internal sealed class WatchElement : IEtcdReply
{
    [JsonIgnore]
    public EtcdHeader? Header => Result?.Header;

    public WatchReply? Result { get; init; }

    public EtcdStreamError? Error { get; init; }
}

/// <summary>An answer that is none.</summary>
internal sealed class EtcdError
{
    /// <summary>The message again, or, of a call that is a stream to etcd, an <see cref="EtcdStreamError"/>.</summary>
    public JsonElement Error { get; init; }

    public string? Message { get; init; }

    /// <summary>As gRPC numbers them: <see cref="GrpcCode"/>.</summary>
    public int Code { get; init; }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault, RespectNullableAnnotations = true,
    NumberHandling = JsonNumberHandling.AllowReadingFromString | JsonNumberHandling.WriteAsString)]
[JsonSerializable(typeof(RangeRequest))]
[JsonSerializable(typeof(RangeReply))]
[JsonSerializable(typeof(PutRequest))]
[JsonSerializable(typeof(PutReply))]
[JsonSerializable(typeof(TxnRequest))]
[JsonSerializable(typeof(TxnReply))]
[JsonSerializable(typeof(LeaseGrantRequest))]
[JsonSerializable(typeof(LeaseGrantReply))]
[JsonSerializable(typeof(LeaseRequest))]
[JsonSerializable(typeof(LeaseRevokeReply))]
[JsonSerializable(typeof(LeaseKeepAliveReply))]
[JsonSerializable(typeof(AuthenticateRequest))]
[JsonSerializable(typeof(AuthenticateReply))]
[JsonSerializable(typeof(WatchRequest))]
[JsonSerializable(typeof(WatchElement))]
[JsonSerializable(typeof(EtcdError))]
[JsonSerializable(typeof(EtcdStreamError))]
internal sealed partial class EtcdJson : JsonSerializerContext;
