// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;
using VSmp.Agent.Keeping;
using Xunit;

namespace VSmp.Agent.Tests.Keeping;

/// <summary>What a client makes of a keeper that talks nonsense: an error at once, and descriptors closed.</summary>
public sealed class KeeperNonsenseTests : IDisposable
{
    private readonly string _path = Path.Combine(Path.GetTempPath(), $"vsmp-k-{Guid.NewGuid():N}");
    private readonly UnixSocket _keeper;
    private readonly KeeperClient _client;

    public KeeperNonsenseTests()
    {
        using UnixSocket listener = UnixSocket.Listen(_path, UnixSocketType.SequencedPacket, groupId: null);
        _keeper = UnixSocket.Connect(_path, UnixSocketType.SequencedPacket);
        _client = new KeeperClient(listener.Accept()!);
        _ = Libc.Unlink(_path);
    }

    public void Dispose()
    {
        _client.Dispose();
        _keeper.Dispose();
    }

    [Theory]
    [InlineData("noise")]
    [InlineData("short")]
    [InlineData("long")]
    [InlineData("version")]
    [InlineData("length")]
    [InlineData("serial")]
    [InlineData("descriptors")]
    [InlineData("state")]
    public void Nonsense_is_an_error_at_once(string what)
    {
        KeeperMessage message = new()
        {
            Magic = KeeperMessage.MagicValue,
            Version = KeeperMessage.CurrentVersion,
            Type = KeeperRequest.State | KeeperRequest.Reply,
            Serial = 1,
            DescriptorCount = 1,
        };
        int bytes = KeeperMessage.Bytes;
        switch (what)
        {
            case "noise": message.Magic = 0x12345678; break;
            case "short": bytes = 20; break;
            case "long": bytes += KeeperMessage.MaxDataBytes + 100; break;
            case "version": message.Version++; break;
            case "length": message.DataBytes = 10; break;
            case "serial": message.Serial = 7; break;
            case "descriptors": message.DescriptorCount = 2; break;
            default: break; // a reply to STATE without the state
        }
        byte[] data = new byte[bytes];
        Span<byte> header = stackalloc byte[KeeperMessage.Bytes];
        MemoryMarshal.Write(header, message);
        header[..Math.Min(bytes, KeeperMessage.Bytes)].CopyTo(data);
        // One end of a pipe goes along: if the client closes it, as it must, the other end says so.
        Span<int> ends = stackalloc int[2];
        OpenPipe(ends);
        Assert.Equal(bytes, _keeper.Send(data, ends[1..], wait: true));
        _ = Libc.Close(ends[1]);

        IOException error = Assert.Throws<IOException>(() => _client.State());
        Assert.StartsWith("the keeper is lost: ", error.Message, StringComparison.Ordinal);
        Assert.Throws<IOException>(() => _client.Drop(new HoldKey(1)));
        _client.Dispose();
        Assert.True(IsAtEnd(ends[0]));
        _ = Libc.Close(ends[0]);
    }

    private static unsafe void OpenPipe(Span<int> ends)
    {
        // SAFETY: two descriptors are written, on the caller's stack.
        fixed (int* start = ends) Assert.Equal(0, Libc.Pipe(start, Libc.O_CLOEXEC | Libc.O_NONBLOCK));
    }

    private static unsafe bool IsAtEnd(int fd)
    {
        byte nothing;
        // SAFETY: at most a byte, on this stack.
        return Libc.Read(fd, &nothing, 1) == 0;
    }
}
