// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Lazy;

/// <summary>
/// The write notices of a region, in the order of the releases: kept where the locks and barriers are kept. Whoever acquires gets the
/// notices since it acquired last. That is every release that happens before, and perhaps some that do not: invalidating more than
/// needed is never wrong. What all nodes have seen is forgotten; a node that is further behind than the log reaches is told to
/// invalidate everything.
/// </summary>
public sealed class NoticeLog
{
    private readonly Queue<Notice> _notices = [];
    private readonly SortedDictionary<ushort, ulong> _seen = [];
    private readonly int _capacity;

    /// <summary>Makes an empty log.</summary>
    /// <param name="capacity">Notices kept at most.</param>
    public NoticeLog(int capacity = 1 << 16)
    {
        _capacity = capacity;
    }

    /// <summary>The number of the last notice. The first is 1.</summary>
    public ulong Last { get; private set; }

    /// <summary>Notices kept.</summary>
    public int Count => _notices.Count;

    /// <summary>A node begins to use the region: it has no copies yet.</summary>
    public void Add(NodeId node) => _seen[node.Value] = Last;

    /// <summary>A node does not use the region any more.</summary>
    public void Remove(NodeId node)
    {
        _seen.Remove(node.Value);
        Forget();
    }

    /// <summary>A node has released, and the home has all that it wrote.</summary>
    /// <param name="node">The node.</param>
    /// <param name="pages">The pages that it wrote since its last release.</param>
    public void OnRelease(NodeId node, ReadOnlySpan<PageNumber> pages)
    {
        foreach (PageNumber page in pages) _notices.Enqueue(new Notice(++Last, node, page));
        Forget();
    }

    /// <summary>A node acquires.</summary>
    /// <param name="node">The node.</param>
    /// <param name="pages">Receives the pages whose copies it must invalidate; pages that it wrote itself only if others did, too.</param>
    /// <returns>False if it must invalidate every copy that it has instead: the log does not reach back far enough.</returns>
    public bool OnAcquire(NodeId node, ICollection<PageNumber> pages)
    {
        if (!_seen.TryGetValue(node.Value, out ulong seen)) throw new InvalidOperationException($"{node} does not use the region");
        bool reaches = _notices.Count == 0 ? seen == Last : seen + 1 >= _notices.Peek().Number;
        if (reaches)
        {
            foreach (Notice notice in _notices)
            {
                if (notice.Number > seen && notice.Writer != node) pages.Add(notice.Page);
            }
        }
        _seen[node.Value] = Last;
        Forget();
        return reaches;
    }

    /// <summary>What a node has seen, for saving and restoring.</summary>
    internal ulong SeenBy(NodeId node) => _seen[node.Value];

    /// <summary>The notices kept, for saving.</summary>
    internal IEnumerable<Notice> Notices => _notices;

    /// <summary>Puts a log back to what it was.</summary>
    internal void Restore(ulong last, IEnumerable<Notice> notices, ReadOnlySpan<ulong> seen)
    {
        Last = last;
        _notices.Clear();
        foreach (Notice notice in notices) _notices.Enqueue(notice);
        for (ushort n = 0; n < seen.Length; n++) _seen[n] = seen[n];
    }

    private void Forget()
    {
        ulong seenByAll = _seen.Count == 0 ? Last : _seen.Values.Min();
        while (_notices.TryPeek(out Notice oldest) && (oldest.Number <= seenByAll || _notices.Count > _capacity)) _notices.Dequeue();
    }

    /// <summary>A page was written.</summary>
    internal readonly record struct Notice(ulong Number, NodeId Writer, PageNumber Page);
}
