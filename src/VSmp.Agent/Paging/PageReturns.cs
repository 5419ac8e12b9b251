// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// How often in a row a process's threads came back for a page that they had been given, without having got to use it. Those that
/// get nowhere are to hold it longer; those that used it, and want it again, need not.
/// </summary>
/// <remarks>
/// A thread that finds its page gone when it runs at last has run once since it was given the page, and for a few microseconds: it was
/// woken, and faulted again. One that has run longer, or has waited for something else in between, has used it.
/// </remarks>
/// <param name="clock">What the scheduler has counted of a thread so far.</param>
internal sealed class PageReturns(Func<uint, ThreadClock> clock)
{
    /// <summary>What waking up and faulting again takes at most: two switches of context.</summary>
    public const long FruitlessNanoseconds = 15_000;

    /// <summary>How often a thread runs for that: once.</summary>
    public const long FruitlessRuns = 1;

    private const int MaxThreads = 4096;

    private readonly Dictionary<uint, LastPage> _lastPages = [];

    /// <summary>A thread wants a page, and waits. (When it is given the page it may run before whoever gives it gets to look.)</summary>
    /// <param name="threadId">The thread.</param>
    /// <param name="region">The page's region.</param>
    /// <param name="page">The page.</param>
    public void OnFault(uint threadId, RegionId region, PageNumber page)
    {
        if (_lastPages.Count > MaxThreads) _lastPages.Clear(); // of threads that have ended long since
        ref LastPage last = ref CollectionsMarshal.GetValueRefOrAddDefault(_lastPages, threadId, out _);
        if (last.Region != region || last.Page != page)
        {
            last = new LastPage(region, page, Returns: 0, ThreadClock.Unknown);
            return;
        }
        ThreadClock now = clock(threadId), then = last.Clock;
        bool hasUsedIt = then.IsKnown && (now.Nanoseconds - then.Nanoseconds > FruitlessNanoseconds || now.Runs - then.Runs > FruitlessRuns);
        last = last with { Returns = hasUsedIt ? 0 : last.Returns + 1, Clock = now };
    }

    /// <summary>
    /// How often in a row a thread came back for the page that it wanted last, without having used it as far as can be told; 0 for any other page.
    /// </summary>
    public int Of(uint threadId, RegionId region, PageNumber page) =>
        _lastPages.TryGetValue(threadId, out LastPage last) && last.Region == region && last.Page == page ? last.Returns : 0;

    /// <summary>
    /// Whether a thread has certainly run since it wanted a page, which it has been given. Not known of one that wants the page for the first time
    /// in a row (that is not worth the look), and not asked of one that came back in vain: it is to have its full time.
    /// </summary>
    public bool HasRun(uint threadId, RegionId region, PageNumber page) =>
        _lastPages.TryGetValue(threadId, out LastPage last) && last is { Returns: 0, Clock.IsKnown: true } && last.Region == region && last.Page == page
        && clock(threadId).Runs > last.Clock.Runs;

    private readonly record struct LastPage(RegionId Region, PageNumber Page, int Returns, ThreadClock Clock);
}
