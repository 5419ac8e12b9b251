// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Guests;

/// <summary>
/// What this node contributes, and what it is set aside for. <c>contributed = home + cache + free</c>, always: admission counts what may
/// be used, not what is. What checkpoints have of it is part of the cache. Owned by the reactor.
/// </summary>
/// <param name="contributedBytes">A multiple of the extent.</param>
internal sealed class Capacity(ulong contributedBytes)
{
    /// <summary>What the node gives to the pool.</summary>
    public ulong ContributedBytes { get; } = contributedBytes;

    /// <summary>Reserved for pages whose home this node is.</summary>
    public ulong HomeBytes { get; private set; }

    /// <summary>Set aside for copies of remote pages.</summary>
    public ulong CacheBytes { get; private set; }

    /// <summary>The rest.</summary>
    public ulong FreeBytes => ContributedBytes - HomeBytes - CacheBytes;

    /// <summary>Free, in extents.</summary>
    public uint FreeExtents => (uint)(FreeBytes / ExtentNumber.Bytes);

    /// <summary>Becomes home of extents, if there is room.</summary>
    public bool TryAddHome(uint extents)
    {
        if (extents > FreeExtents) return false;
        HomeBytes += extents * (ulong)ExtentNumber.Bytes;
        return true;
    }

    /// <summary>Ceases to be home of extents.</summary>
    public void RemoveHome(uint extents) => HomeBytes = checked(HomeBytes - (extents * (ulong)ExtentNumber.Bytes));

    /// <summary>Sets aside for copies, if there is room.</summary>
    public bool TryAddCache(ulong bytes)
    {
        if (bytes > FreeBytes) return false;
        CacheBytes += bytes;
        return true;
    }

    /// <summary>Of the cache, what checkpoints in memory have.</summary>
    public ulong CheckpointBytes { get; private set; }

    /// <summary>Sets aside for a checkpoint, if there is room.</summary>
    public bool TryAddCheckpoint(ulong bytes)
    {
        if (!TryAddCache(bytes)) return false;
        CheckpointBytes += bytes;
        return true;
    }

    /// <summary>Gives back what was set aside for a checkpoint.</summary>
    public void RemoveCheckpoint(ulong bytes)
    {
        CheckpointBytes = checked(CheckpointBytes - bytes);
        RemoveCache(bytes);
    }

    /// <summary>Gives back what was set aside for copies.</summary>
    public void RemoveCache(ulong bytes) => CacheBytes = checked(CacheBytes - bytes);

    /// <summary>What was set aside for copies becomes home, extent by extent, or the other way round.</summary>
    public void CacheToHome(long extents)
    {
        CacheBytes = checked((ulong)((long)CacheBytes - (extents * ExtentNumber.Bytes)));
        HomeBytes = checked((ulong)((long)HomeBytes + (extents * ExtentNumber.Bytes)));
    }
}
