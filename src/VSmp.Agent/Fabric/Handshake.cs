// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric;

/// <summary>How a handshake ended. Values below 128 are on the wire: never renumber, only append.</summary>
internal enum HandshakeStatus : byte
{
    /// <summary>Both sides have proved that they know the secret, and the answer is yes.</summary>
    Ok = 0,
    /// <summary>The peer speaks another version of the wire format.</summary>
    OtherVersion = 1,
    /// <summary>The peer belongs to a cluster of another name.</summary>
    OtherCluster = 2,
    /// <summary>The secrets differ.</summary>
    WrongSecret = 3,
    /// <summary>The peer belongs to another life of the cluster.</summary>
    OtherEpoch = 4,
    /// <summary>The peer does not know this node as a member.</summary>
    NotAMember = 5,
    /// <summary>The peer is in another session with this node and cannot resume this one.</summary>
    OtherSession = 6,
    /// <summary>A node of that name is a member.</summary>
    NameTaken = 7,
    /// <summary>Ask the coordinator; the body says where it is.</summary>
    Redirect = 8,
    /// <summary>The cluster has as many members as it can have.</summary>
    Full = 9,
    /// <summary>The peer is not in a cluster yet, or about to leave it.</summary>
    NotReady = 10,
    /// <summary>The request makes no sense to the peer.</summary>
    BadRequest = 11,
    /// <summary>The peer uses another transport.</summary>
    OtherTransport = 12,
    /// <summary>The peer's cluster decides on its membership in another way.</summary>
    OtherMembership = 13,
    /// <summary>One of the two agents has been started again, and the other does not know it yet, or does not know itself yet that it has.</summary>
    OtherIncarnation = 14,

    /// <summary>No connection could be made.</summary>
    Unreachable = 128,
    /// <summary>What answered is not an agent.</summary>
    NotVSmp = 129,
    /// <summary>The peer closed the connection in mid-handshake.</summary>
    Closed = 130,
    /// <summary>The peer did not answer in time.</summary>
    TimedOut = 131,
}

/// <summary>What a connection is wanted for. Values are on the wire.</summary>
internal enum HandshakePurpose : byte
{
    /// <summary>To carry a session between two members.</summary>
    Session = 1,
    /// <summary>To become a member.</summary>
    Join = 2,
    /// <summary>To read the membership's record at who keeps it, or to have it say that a member's agent has been started again.</summary>
    Record = 3,
}

/// <summary>
/// The bytes that two agents exchange before anything else (docs/wire-format.md): Hello, Challenge, Proof, Answer. Each side
/// proves
/// with HMAC-SHA256 over everything said so far, its role included, that it knows the secret. Before the proof only fixed-size
/// fields are looked at; bodies are not parsed before their MAC is checked.
/// </summary>
internal static class Handshake
{
    public const uint MagicValue = 0x53485356; // "VSHS"
    public const int PrefixBytes = 8, HelloBytes = 128, ChallengeBytes = 40, ProofBytes = 40, AnswerBytes = 40, MacBytes = 32;
    public const int MaxProofBody = 1024, MaxAnswerBody = 64 * 1024, SessionBodyBytes = 16, MaxClusterNameBytes = 63;

    private const int NonceBytes = 32, NonceOffset = 16, IncarnationsOffset = 48, NameOffset = 64;

    /// <summary>Writes magic, version, and the two bytes that differ from message to message.</summary>
    public static void WritePrefix(Span<byte> to, byte sixth, ushort version = FrameHeader.CurrentVersion)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(to, MagicValue);
        BinaryPrimitives.WriteUInt16LittleEndian(to[4..], version);
        to[6] = sixth;
        to[7] = 0;
    }

    public static bool HasMagic(ReadOnlySpan<byte> prefix) => BinaryPrimitives.ReadUInt32LittleEndian(prefix) == MagicValue;

    public static ushort VersionOf(ReadOnlySpan<byte> prefix) => BinaryPrimitives.ReadUInt16LittleEndian(prefix[4..]);

    public static void WriteHello(Span<byte> to, HandshakePurpose purpose, TransportKind transport, Epoch epoch, NodeId client, NodeId server,
        string cluster)
    {
        to[..HelloBytes].Clear();
        WritePrefix(to, (byte)purpose);
        to[7] = (byte)transport;
        BinaryPrimitives.WriteUInt32LittleEndian(to[8..], epoch.Value);
        BinaryPrimitives.WriteUInt16LittleEndian(to[12..], client.Value);
        BinaryPrimitives.WriteUInt16LittleEndian(to[14..], server.Value);
        RandomNumberGenerator.Fill(to.Slice(NonceOffset, NonceBytes));
        WriteClusterName(to[NameOffset..HelloBytes], cluster);
    }

    /// <summary>Says between which agents of the two nodes a session is to be: a node's agent may have been started again.</summary>
    public static void WriteIncarnations(Span<byte> hello, uint client, uint server)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(hello[IncarnationsOffset..], client);
        BinaryPrimitives.WriteUInt32LittleEndian(hello[(IncarnationsOffset + 4)..], server);
    }

    /// <summary>Which agents of the two nodes a hello is about.</summary>
    public static (uint Client, uint Server) IncarnationsOf(ReadOnlySpan<byte> hello) =>
        (BinaryPrimitives.ReadUInt32LittleEndian(hello[IncarnationsOffset..]), BinaryPrimitives.ReadUInt32LittleEndian(hello[(IncarnationsOffset + 4)..]));

    public static Epoch EpochOf(ReadOnlySpan<byte> hello) => new(BinaryPrimitives.ReadUInt32LittleEndian(hello[8..]));

    public static NodeId ClientOf(ReadOnlySpan<byte> hello) => new(BinaryPrimitives.ReadUInt16LittleEndian(hello[12..]));

    public static NodeId ServerOf(ReadOnlySpan<byte> hello) => new(BinaryPrimitives.ReadUInt16LittleEndian(hello[14..]));

    /// <summary>Whether a hello names the cluster.</summary>
    public static bool NamesCluster(ReadOnlySpan<byte> hello, string cluster)
    {
        Span<byte> expected = stackalloc byte[HelloBytes - NameOffset];
        WriteClusterName(expected, cluster);
        return hello[NameOffset..HelloBytes].SequenceEqual(expected);
    }

    public static void WriteChallenge(Span<byte> to)
    {
        WritePrefix(to, (byte)HandshakeStatus.Ok);
        RandomNumberGenerator.Fill(to.Slice(PrefixBytes, NonceBytes));
    }

    /// <summary>Writes what precedes a body in Proof and Answer: the status (0 in a Proof), the body's length, the MAC.</summary>
    public static void WriteBodyHeader(Span<byte> to, HandshakeStatus status, int bodyBytes)
    {
        to[..ProofBytes].Clear();
        to[0] = (byte)status;
        BinaryPrimitives.WriteUInt32LittleEndian(to[4..], (uint)bodyBytes);
    }

    public static uint BodyBytesOf(ReadOnlySpan<byte> header) => BinaryPrimitives.ReadUInt32LittleEndian(header[4..]);

    public static bool HasZeroPadding(ReadOnlySpan<byte> header) => (header[1] | header[2] | header[3]) == 0;

    /// <summary>
    /// The MAC of the message that <paramref name="header"/> (its first 8 bytes count) and <paramref name="body"/> make, sent by
    /// the given role after hello and challenge.
    /// </summary>
    public static void ComputeMac(ClusterSecret secret, bool byServer, ReadOnlySpan<byte> hello, ReadOnlySpan<byte> challenge,
        ReadOnlySpan<byte> header, ReadOnlySpan<byte> body, Span<byte> mac)
    {
        using IncrementalHash hash = secret.BeginMac();
        hash.AppendData(byServer ? "VSmp handshake 1 server "u8 : "VSmp handshake 1 client "u8);
        hash.AppendData(hello[..HelloBytes]);
        hash.AppendData(challenge[..ChallengeBytes]);
        hash.AppendData(header[..8]);
        hash.AppendData(body);
        hash.GetHashAndReset(mac);
    }

    /// <summary>
    /// A key for what the two sides do after the handshake beside the connection. It never travels, and differs each time.
    /// </summary>
    public static byte[] LinkKey(ClusterSecret secret, ReadOnlySpan<byte> hello, ReadOnlySpan<byte> challenge)
    {
        using IncrementalHash hash = secret.BeginMac();
        hash.AppendData("VSmp link 1 "u8);
        hash.AppendData(hello[..HelloBytes]);
        hash.AppendData(challenge[..ChallengeBytes]);
        return hash.GetHashAndReset();
    }

    /// <summary>Checks the MAC of a message (in constant time).</summary>
    public static bool HasRightMac(ClusterSecret secret, bool byServer, ReadOnlySpan<byte> hello, ReadOnlySpan<byte> challenge,
        ReadOnlySpan<byte> header, ReadOnlySpan<byte> body)
    {
        Span<byte> expected = stackalloc byte[MacBytes];
        ComputeMac(secret, byServer, hello, challenge, header, body, expected);
        return CryptographicOperations.FixedTimeEquals(expected, header.Slice(8, MacBytes));
    }

    /// <summary>A complete Answer.</summary>
    public static byte[] MakeAnswer(ClusterSecret secret, ReadOnlySpan<byte> hello, ReadOnlySpan<byte> challenge,
        HandshakeStatus status, ReadOnlySpan<byte> body)
    {
        byte[] answer = new byte[AnswerBytes + body.Length];
        WriteBodyHeader(answer, status, body.Length);
        body.CopyTo(answer.AsSpan(AnswerBytes));
        ComputeMac(secret, byServer: true, hello, challenge, answer, body, answer.AsSpan(8, MacBytes));
        return answer;
    }

    /// <summary>The body of a session's Proof and Answer: which session, and the last frame of the peer that was taken.</summary>
    public static void WriteSessionBody(Span<byte> to, ulong sessionId, ulong lastTaken)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(to, sessionId);
        BinaryPrimitives.WriteUInt64LittleEndian(to[8..], lastTaken);
    }

    public static (ulong SessionId, ulong LastTaken) ReadSessionBody(ReadOnlySpan<byte> body) =>
        (BinaryPrimitives.ReadUInt64LittleEndian(body), BinaryPrimitives.ReadUInt64LittleEndian(body[8..]));

    /// <summary>Throws if the name cannot be a cluster's: it goes into paths, too.</summary>
    public static string CheckClusterName(string name)
    {
        bool good = name.Length is > 0 and <= MaxClusterNameBytes
            && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.') && char.IsAsciiLetterOrDigit(name[0]);
        return good ? name : throw new ArgumentException(
            $"'{name}' cannot be a cluster's name: 1 to {MaxClusterNameBytes} letters, digits, '-', '_' and '.', "
            + "a letter or digit first");
    }

    private static void WriteClusterName(Span<byte> to, string cluster)
    {
        to.Clear();
        to[0] = (byte)Encoding.ASCII.GetBytes(cluster, to[1..]);
    }
}
