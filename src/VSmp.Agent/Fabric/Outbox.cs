// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric;

/// <summary>Native memory of the outboxes of one fabric, in pieces of one size that go round.</summary>
internal sealed unsafe class ChunkPool : IDisposable
{
    /// <summary>Bytes of a chunk: three frames of the largest size.</summary>
    public const int ChunkBytes = 256 * 1024;

    private const int KeepChunks = 64;

    private readonly byte*[] _free = new byte*[KeepChunks];
    private int _freeCount;

    /// <summary>Hears of a chunk that is about to go back to the system: devices may know it.</summary>
    public Action<nint>? Freeing { get; set; }

    /// <summary>Chunks that are out.</summary>
    public int InUse { get; private set; }

    public byte* Take()
    {
        InUse++;
        return _freeCount > 0 ? _free[--_freeCount] : (byte*)NativeMemory.AlignedAlloc(ChunkBytes, 4096);
    }

    public void Give(byte* chunk)
    {
        InUse--;
        if (_freeCount < KeepChunks)
        {
            _free[_freeCount++] = chunk;
            return;
        }
        Freeing?.Invoke((nint)chunk);
        NativeMemory.AlignedFree(chunk);
    }

    public void Dispose()
    {
        while (_freeCount > 0) NativeMemory.AlignedFree(_free[--_freeCount]);
    }
}

/// <summary>
/// What one peer has been sent and not yet acknowledged, and what is to be sent: whole frames, one after the other, in native
/// memory. It is send queue and replay buffer at once.
/// </summary>
/// <remarks>
/// <code>
///   released │ sent, not acknowledged │ to be sent │ room
///            ^ head                   ^ cursor     ^ tail
/// </code>
/// A frame never straddles two chunks. The head is always at a frame's start; the cursor may be inside a frame.
/// </remarks>
internal sealed unsafe class Outbox(ChunkPool pool) : IDisposable
{
    private Chunk[] _ring = new Chunk[4]; // power of two
    private int _first;
    private int _count;
    private int _headOffset;
    private int _cursorChunk; // counted from the first chunk
    private int _cursorOffset;

    /// <summary>Bytes of frames that are not acknowledged, sent or not.</summary>
    public long UnacknowledgedBytes { get; private set; }

    /// <summary>Bytes still to be handed to the socket.</summary>
    public long UnsentBytes { get; private set; }

    /// <summary>Room for one frame at the tail; it counts once <see cref="Append"/> is called.</summary>
    public byte* Reserve(int frameBytes)
    {
        if (_count == 0 || At(_count - 1).Used + frameBytes > ChunkPool.ChunkBytes) AddChunk();
        ref Chunk tail = ref At(_count - 1);
        return tail.Base + tail.Used;
    }

    /// <summary>Makes the frame that was written into the room last reserved part of the stream.</summary>
    public void Append(int frameBytes)
    {
        At(_count - 1).Used += frameBytes;
        UnacknowledgedBytes += frameBytes;
        UnsentBytes += frameBytes;
    }

    /// <summary>Points the vectors at what is to be sent next, in order.</summary>
    /// <returns>How many vectors were filled.</returns>
    public int Gather(IoVector* vectors, int capacity)
    {
        int filled = 0;
        int offset = _cursorOffset;
        for (int i = _cursorChunk; i < _count && filled < capacity; i++, offset = 0)
        {
            ref Chunk chunk = ref At(i);
            if (chunk.Used == offset) continue;
            vectors[filled++] = new IoVector { Base = chunk.Base + offset, Bytes = (nuint)(chunk.Used - offset) };
        }
        return filled;
    }

    /// <summary>
    /// As many whole frames as lie side by side at the cursor, which must be at a frame's start, and moves the cursor behind them.
    /// </summary>
    /// <param name="maxBytes">Room for at least one frame.</param>
    /// <param name="bytes">How long they are; 0 if there is nothing to be sent.</param>
    /// <param name="chunk">The chunk that they lie in.</param>
    /// <param name="last">The last of them.</param>
    public byte* NextRun(int maxBytes, out int bytes, out byte* chunk, out FrameHeader* last)
    {
        bytes = 0;
        last = null;
        chunk = null;
        if (UnsentBytes == 0) return null;
        SkipToNextChunk();
        ref Chunk at = ref At(_cursorChunk);
        chunk = at.Base;
        byte* first = at.Base + _cursorOffset;
        while (_cursorOffset + bytes < at.Used)
        {
            var frame = (FrameHeader*)(first + bytes);
            int frameBytes = FrameHeader.Bytes + (int)frame->PayloadBytes;
            if (bytes + frameBytes > maxBytes) break;
            bytes += frameBytes;
            last = frame;
        }
        MarkSent(bytes);
        return first;
    }

    /// <summary>Moves the cursor over bytes that the socket took.</summary>
    public void MarkSent(long bytes)
    {
        UnsentBytes -= bytes;
        while (bytes > 0)
        {
            int step = (int)Math.Min(bytes, At(_cursorChunk).Used - _cursorOffset);
            _cursorOffset += step;
            bytes -= step;
            SkipToNextChunk();
        }
    }

    /// <summary>
    /// The frame at the cursor, which must be at a frame's start, and moves the cursor behind it; null if there is none.
    /// </summary>
    public FrameHeader* NextUnsent()
    {
        SkipToNextChunk();
        if (UnsentBytes == 0) return null;
        var frame = (FrameHeader*)(At(_cursorChunk).Base + _cursorOffset);
        MarkSent(FrameHeader.Bytes + frame->PayloadBytes);
        return frame;
    }

    /// <summary>Forgets the frames up to and including a sequence number.</summary>
    /// <returns>False if one of them has not been sent in full: the peer lies.</returns>
    public bool Release(ulong acknowledged)
    {
        while (UnacknowledgedBytes > 0)
        {
            if (_headOffset == At(0).Used)
            {
                DropFirstChunk();
                continue;
            }
            var frame = (FrameHeader*)(At(0).Base + _headOffset);
            if (frame->Sequence > acknowledged) return true;
            int frameBytes = FrameHeader.Bytes + (int)frame->PayloadBytes;
            if (_cursorChunk == 0 && _headOffset + frameBytes > _cursorOffset) return false;
            _headOffset += frameBytes;
            UnacknowledgedBytes -= frameBytes;
        }
        // Nothing is left: start over in the last chunk, so that an idle session stays in the same few cache lines.
        while (_count > 1) DropFirstChunk();
        if (_count == 1) At(0).Used = 0;
        _headOffset = _cursorOffset = 0;
        return true;
    }

    /// <summary>Everything that is not acknowledged is to be sent again.</summary>
    public void Rewind()
    {
        _cursorChunk = 0;
        _cursorOffset = _headOffset;
        UnsentBytes = UnacknowledgedBytes;
        SkipToNextChunk();
    }

    /// <summary>Gives all memory back.</summary>
    public void Dispose()
    {
        while (_count > 0) DropFirstChunk();
        UnacknowledgedBytes = UnsentBytes = 0;
    }

    private ref Chunk At(int index) => ref _ring[(_first + index) & (_ring.Length - 1)];

    private void SkipToNextChunk()
    {
        while (_cursorChunk < _count - 1 && _cursorOffset == At(_cursorChunk).Used)
        {
            _cursorChunk++;
            _cursorOffset = 0;
        }
    }

    private void AddChunk()
    {
        if (_count == _ring.Length)
        {
            var larger = new Chunk[_ring.Length * 2];
            for (int i = 0; i < _count; i++) larger[i] = At(i);
            _ring = larger;
            _first = 0;
        }
        _count++;
        At(_count - 1) = new Chunk { Base = pool.Take(), Used = 0 };
    }

    private void DropFirstChunk()
    {
        pool.Give(At(0).Base);
        _first = (_first + 1) & (_ring.Length - 1);
        _count--;
        _headOffset = 0;
        if (_cursorChunk > 0) _cursorChunk--;
        else _cursorOffset = 0;
    }

    private struct Chunk
    {
        public byte* Base;
        public int Used;
    }
}
