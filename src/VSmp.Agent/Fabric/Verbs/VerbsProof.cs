// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Security.Cryptography;

namespace VSmp.Agent.Fabric.Verbs;

using Verbs = Interop.Verbs;

/// <summary>
/// What a side shows with an RDMA connection request, or with the answer: that it is the one that made the handshake just before. As the
/// private data: <code>"VSRD" │ version 16 │ zero 16 │ HMAC-SHA256 of the side's role under the handshake's key, 32 │ zeros</code>
/// </summary>
internal sealed class VerbsProof
{
    private const uint MagicValue = 0x44525356; // "VSRD"
    private const ushort Version = 1;
    private const int HeaderBytes = 8, MacBytes = 32;

    private readonly byte[] _bytes = new byte[Verbs.PrivateBytes];

    private VerbsProof(ReadOnlySpan<byte> key, bool byClient)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(_bytes, MagicValue);
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(4), Version);
        HMACSHA256.HashData(key, byClient ? "VSmp RDMA 1 client"u8 : "VSmp RDMA 1 server"u8, _bytes.AsSpan(HeaderBytes, MacBytes));
    }

    /// <summary>The proof of one side of a handshake.</summary>
    /// <param name="key">The handshake's key.</param>
    /// <param name="byClient">Whether of the side that connected.</param>
    public static VerbsProof Make(ReadOnlySpan<byte> key, bool byClient) => new(key, byClient);

    /// <summary>Whether private data, which a transport may have made longer, are this proof. In constant time.</summary>
    public bool IsIn(ReadOnlySpan<byte> privateData) =>
        privateData.Length >= _bytes.Length && CryptographicOperations.FixedTimeEquals(privateData[.._bytes.Length], _bytes);

    /// <summary>As private data.</summary>
    public void CopyTo(Span<byte> privateData) => _bytes.CopyTo(privateData);
}
