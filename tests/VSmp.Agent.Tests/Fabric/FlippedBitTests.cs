// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>
/// Frames of every type with payloads as they travel, in which bits were flipped: none gets past <see cref="PeerSession.Take"/>, and
/// nothing beyond the bytes that were received is looked at. The seed is printed.
/// </summary>
public sealed unsafe partial class FlippedBitTests
{
    private static readonly NodeId Sender = new(1), Receiver = new(0);
    private static readonly Epoch Epoch5 = new(5);

    private readonly int _seed = Environment.TickCount;

    public FlippedBitTests() => TestContext.Current.TestOutputHelper?.WriteLine($"seed {_seed}");

    [Fact]
    public void Every_single_bit_of_a_frame_is_guarded_the_CRC_among_them()
    {
        using Guarded memory = new();
        foreach (byte[] frame in Frames(new Random(_seed)).Where(frame => frame.Length <= FrameHeader.Bytes + PageNumber.Bytes))
        {
            using var receiver = new Receiving(memory, frame);
            for (int bit = 0; bit < frame.Length * 8; bit++)
            {
                receiver.Write();
                receiver.Flip(bit);
                Assert.True(receiver.IsDetected(), $"bit {bit} of a {(MessageType)frame[6]} frame, seed {_seed}");
            }
            receiver.AssertTakenAsItIs();
        }
    }

    [Fact]
    public void A_million_frames_with_flipped_bits_are_all_detected_before_they_are_used()
    {
        const int Total = 1_000_000;
        var random = new Random(_seed);
        using Guarded memory = new();
        byte[][] frames = [.. Frames(random)];
        int[] bits = new int[8];
        int lengthened = 0;
        for (int done = 0, turn = 0; done < Total; turn++)
        {
            byte[] frame = frames[turn % frames.Length];
            using var receiver = new Receiving(memory, frame);
            // The longest are few among many, as they are on the wire, or most of the time would be theirs.
            int times = Math.Min(Total - done, frame.Length > 4 * PageNumber.Bytes ? 20 : 2000);
            for (int i = 0; i < times; i++)
            {
                receiver.Write();
                int flips = i % 4 == 0 ? random.Next(2, 9) : 1;
                for (int flip = 0; flip < flips; flip++)
                {
                    // Half of them in the header, where they may lead astray.
                    int bytes = random.Next(2) == 0 ? FrameHeader.Bytes : frame.Length;
                    bits[flip] = random.Next(bytes * 8);
                    receiver.Flip(bits[flip]);
                }
                if (receiver.IsAsItWas()) receiver.Flip(bits[0]); // the flips undid each other
                if (receiver.AnnouncedBytes() > frame.Length) lengthened++;
                Assert.True(receiver.IsDetected(), $"bits {string.Join(", ", bits[..flips])} of a {(MessageType)frame[6]} frame, seed {_seed}");
            }
            done += times;
            receiver.AssertTakenAsItIs();
        }
        Assert.True(lengthened > 1000, $"only {lengthened} frames seemed longer than they were: this proves nothing");
    }

    /// <summary>A frame of every type, each the first that a session sends, with the payloads that its type has.</summary>
    private static IEnumerable<byte[]> Frames(Random random)
    {
        foreach (MessageType type in Enum.GetValues<MessageType>().Where(type => type != MessageType.None))
        {
            foreach ((uint count, int payloadBytes, MessageFlags flags) in Shapes(type)) yield return Frame(random, type, count, payloadBytes, flags);
        }
    }

    private static (uint Count, int PayloadBytes, MessageFlags Flags)[] Shapes(MessageType type) => type switch
    {
        MessageType.DataS or MessageType.DataE or MessageType.DataM or MessageType.PutM or MessageType.PutO or MessageType.Writeback
            or MessageType.MirrorPut or MessageType.Recalled =>
            [(1, PageNumber.Bytes, MessageFlags.None), (FrameHeader.MaxPages, FrameHeader.MaxPayloadBytes, MessageFlags.None), (3, 0, MessageFlags.Zero)],
        MessageType.Diff => [(1, 100, MessageFlags.None), (1, PageDiff.MaxBytes, MessageFlags.None)],
        >= MessageType.ReserveExtents and < MessageType.SessionAck => [(1, 0, MessageFlags.None), (1, 56, MessageFlags.None), (1, 1500, MessageFlags.None)],
        _ => [(1, 0, MessageFlags.None)],
    };

    private static byte[] Frame(Random random, MessageType type, uint count, int payloadBytes, MessageFlags flags)
    {
        using var pool = new ChunkPool();
        using var session = new PeerSession(Sender, Receiver, Epoch5, pool);
        byte[] frame = new byte[FrameHeader.Bytes + payloadBytes];
        // SAFETY: the array is pinned, and as long as the frame.
        fixed (byte* to = frame)
        {
            if (type == MessageType.SessionAck)
            {
                session.WriteAck(to, new ViewNumber(1));
                return frame;
            }
            random.NextBytes(session.Begin(payloadBytes));
            session.Commit(new FrameHeader
            {
                Type = type,
                Flags = flags,
                Requestor = Sender,
                Count = count,
                Transaction = (uint)random.Next(),
                Region = new RegionId((ulong)random.NextInt64()),
                Page = new PageNumber((ulong)random.Next()),
                PageVersion = new PageVersion((uint)random.Next()),
                Argument0 = (ulong)random.NextInt64(),
            }, new ViewNumber(1));
            new Span<byte>(session.Outbox.NextUnsent(), frame.Length).CopyTo(frame);
        }
        return frame;
    }

    /// <summary>Memory behind which there is none.</summary>
    private sealed partial class Guarded : IDisposable
    {
        private const int Bytes = 128 * 1024, PageBytes = 4096, ReadWrite = 3, PrivateAnonymous = 0x22;

        private readonly byte* _start;

        public Guarded()
        {
            _start = Map(null, Bytes + PageBytes, ReadWrite, PrivateAnonymous, -1, 0);
            Assert.NotEqual(-1, (nint)_start);
            Assert.Equal(0, Protect(_start + Bytes, PageBytes, 0));
        }

        /// <summary>The first byte that cannot be touched.</summary>
        public byte* End => _start + Bytes;

        public void Dispose() => Assert.Equal(0, Unmap(_start, Bytes + PageBytes));

        [LibraryImport("libc", EntryPoint = "mmap")]
        private static partial byte* Map(void* address, nuint bytes, int protection, int flags, int fd, long offset);

        [LibraryImport("libc", EntryPoint = "mprotect")]
        private static partial int Protect(void* address, nuint bytes, int protection);

        [LibraryImport("libc", EntryPoint = "munmap")]
        private static partial int Unmap(void* address, nuint bytes);
    }

    /// <summary>A frame and another one behind it, received by a session that has taken nothing yet; nothing is behind the second.</summary>
    private sealed class Receiving(Guarded memory, byte[] frame) : IDisposable
    {
        private readonly PeerSession _session = new(Receiver, Sender, Epoch5, new ChunkPool());
        private readonly byte[] _next = Frame(new Random(1), MessageType.NodeReport, 1, 300, MessageFlags.None);

        private byte* Start => memory.End - _next.Length - frame.Length;

        /// <summary>What was sent.</summary>
        public void Write()
        {
            // SAFETY: both lie before the guarded memory's end.
            frame.CopyTo(new Span<byte>(Start, frame.Length));
            _next.CopyTo(new Span<byte>(Start + frame.Length, _next.Length));
        }

        public void Flip(int bit) => Start[bit >> 3] ^= (byte)(1 << (bit & 7));

        public bool IsAsItWas() => new ReadOnlySpan<byte>(Start, frame.Length).SequenceEqual(frame);

        /// <summary>How long the frame says that it is; −1 if it does not look like one.</summary>
        public int AnnouncedBytes() => PeerSession.FrameBytes((FrameHeader*)Start);

        /// <summary>Whether the receive path refuses the frame, or waits for bytes that never come, and the session is as it was.</summary>
        public bool IsDetected()
        {
            int bytes = AnnouncedBytes();
            // As a link does it: what is no frame is refused, and what has not come in full waits.
            bool isRefused = bytes < 0 || bytes > memory.End - Start || _session.Take((FrameHeader*)Start) == FrameVerdict.Violation;
            return isRefused && _session is { LastTaken: 0, LastAcknowledged: 0, OwesAck: false };
        }

        /// <summary>Without a flip the same session takes it.</summary>
        public void AssertTakenAsItIs()
        {
            Write();
            FrameVerdict verdict = (MessageType)frame[6] switch
            {
                MessageType.SessionAck => FrameVerdict.Ignore,
                MessageType.SessionClose => FrameVerdict.Close,
                _ => FrameVerdict.Deliver,
            };
            Assert.Equal(frame.Length, AnnouncedBytes());
            Assert.Equal(verdict, _session.Take((FrameHeader*)Start));
        }

        public void Dispose() => _session.Dispose();
    }
}
