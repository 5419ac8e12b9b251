// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// How often in a row a process's threads came back for a page that they had been given, without having got to use it. Those that
/// get nowhere are to hold it longer; those that used it, and want it again, need not.
/// </summary>
/// <remarks>
/// A thread that finds its page gone when it runs at last has taken a few microseconds of its processor since it was given the page: it was
/// woken, and faulted again. One that has taken more has used it.
/// </remarks>
/// <param name="processorNanoseconds">The processor time that a thread has taken so far; negative if that is not known.</param>
internal sealed class PageReturns(Func<uint, long> processorNanoseconds)
{
    /// <summary>What waking up and faulting again takes at most: two switches of context.</summary>
    public const long FruitlessNanoseconds = 15_000;

    private const int MaxThreads = 4096;

    private readonly Dictionary<uint, LastPage> _lastPages = [];

    /// <summary>A thread is given a page.</summary>
    /// <param name="threadId">The thread.</param>
    /// <param name="region">The page's region.</param>
    /// <param name="page">The page.</param>
    /// <param name="limit">What is counted up to.</param>
    /// <returns>How often in a row it came back for this very page, without having used it as far as can be told.</returns>
    public int OnGiven(uint threadId, RegionId region, PageNumber page, int limit)
    {
        if (_lastPages.Count > MaxThreads) _lastPages.Clear(); // of threads that have ended long since
        ref LastPage last = ref CollectionsMarshal.GetValueRefOrAddDefault(_lastPages, threadId, out _);
        if (last.Region != region || last.Page != page)
        {
            last = new LastPage(region, page, Returns: 0, ProcessorNanoseconds: -1);
            return 0;
        }
        long now = processorNanoseconds(threadId);
        bool hasUsedIt = last.ProcessorNanoseconds >= 0 && now - last.ProcessorNanoseconds > FruitlessNanoseconds;
        last = last with { Returns = hasUsedIt ? 0 : Math.Min(last.Returns + 1, limit), ProcessorNanoseconds = now };
        return last.Returns;
    }

    private readonly record struct LastPage(RegionId Region, PageNumber Page, int Returns, long ProcessorNanoseconds);
}
