// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Paging;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Paging;

/// <summary>
/// Instructions that need two pages at once, on several nodes that want the same two, in virtual time. On a real cluster chance ends such
/// a contest sooner or later; here nothing is left to it: every page takes exactly as long to travel as every other.
/// </summary>
public sealed class HoldRulesTests
{
    private const long Second = 1_000_000;

    [Theory]
    [InlineData(2, 100)]
    [InlineData(2, 200)]
    [InlineData(2, 400)]
    [InlineData(3, 200)]
    [InlineData(4, 200)]
    [InlineData(8, 100)]
    public void An_instruction_that_needs_two_pages_completes_though_other_nodes_need_the_same_two(int nodes, long transferMicroseconds)
    {
        Contest contest = new(nodes, transferMicroseconds, extendsHolds: true);
        contest.Run(2 * Second);
        Assert.All(contest.Completed, completed => Assert.True(completed >= 10, string.Join(", ", contest.Completed)));
    }

    [Fact]
    public void Without_extended_holds_no_such_instruction_would_ever_complete()
    {
        Contest contest = new(nodes: 2, transferMicroseconds: 200, extendsHolds: false);
        contest.Run(2 * Second);
        Assert.All(contest.Completed, completed => Assert.Equal(0, completed));
        Assert.True(contest.Transfers > 1000, "the pages went to and fro all the time");
    }

    [Fact]
    public void A_hold_ends_at_once_if_its_thread_waits_for_nothing()
    {
        HoldRules rules = new(new NodeId(0));
        HoldRules.Hold hold = rules.Begin();
        Assert.False(rules.TryExtend(ref hold, waits: false));
    }

    [Fact]
    public void A_thread_that_waits_for_ever_loses_its_pages_in_the_end()
    {
        HoldRules rules = new(new NodeId(0));
        HoldRules.Hold hold = rules.Begin();
        int extensions = 0;
        while (rules.TryExtend(ref hold, waits: true)) extensions++;
        Assert.InRange(extensions, 8, 39);
    }

    /// <summary>
    /// Nodes with a thread each, that executes the same instruction again and again; it needs two pages. Odd nodes touch them in the other
    /// order. A page goes to those that ask in the order in which they asked.
    /// </summary>
    private sealed class Contest
    {
        private readonly long _transferMicroseconds;
        private readonly bool _extendsHolds;
        private readonly HoldRules[] _rules;
        private readonly Page[] _pages = [new(), new()];
        private readonly PriorityQueue<Action, (long Time, long Order)> _events = new();
        private long _now, _order;

        public Contest(int nodes, long transferMicroseconds, bool extendsHolds)
        {
            _transferMicroseconds = transferMicroseconds;
            _extendsHolds = extendsHolds;
            _rules = [.. Enumerable.Range(0, nodes).Select(node => new HoldRules(new NodeId((ushort)node)))];
            Completed = new long[nodes];
            // Everybody begins at once; the first of each page's queue gets it.
            for (int node = 0; node < nodes; node++) Execute(node);
            foreach (Page page in _pages) PassOn(page);
        }

        public long[] Completed { get; }

        public long Transfers { get; private set; }

        public void Run(long untilMicroseconds)
        {
            while (_events.TryDequeue(out Action? happen, out var at) && at.Time <= untilMicroseconds)
            {
                _now = at.Time;
                happen();
            }
        }

        private void After(long microseconds, Action happen) => _events.Enqueue(happen, (_now + microseconds, _order++));

        // The processor begins anew after each fault, and faults on the first page that is not there.
        private void Execute(int node)
        {
            foreach (int number in node % 2 == 0 ? (int[])[0, 1] : [1, 0])
            {
                Page page = _pages[number];
                if (page.Holder == node) continue;
                page.Queue.Enqueue(node);
                if (page is { Holder: not null, IsHeld: false }) PassOn(page);
                return;
            }
            Completed[node]++;
            After(10, () => Execute(node));
        }

        private void PassOn(Page page)
        {
            if (!page.Queue.TryPeek(out int next)) return;
            page.Holder = null;
            After(_transferMicroseconds, () =>
            {
                _ = page.Queue.Dequeue();
                Transfers++;
                (page.Holder, page.IsHeld) = (next, true);
                HoldRules.Hold hold = _rules[next].Begin();
                After(HoldRules.HoldMicroseconds, () => EndHold(page, next, hold));
                After(1, () => Execute(next)); // the thread wakes up
            });
        }

        private void EndHold(Page page, int node, HoldRules.Hold hold)
        {
            bool waits = Array.Exists(_pages, other => other != page && other.Queue.Contains(node));
            if (_extendsHolds && _rules[node].TryExtend(ref hold, waits))
            {
                After(HoldRules.HoldMicroseconds, () => EndHold(page, node, hold));
                return;
            }
            page.IsHeld = false;
            PassOn(page);
        }

        private sealed class Page
        {
            public int? Holder { get; set; } // none while it travels

            public bool IsHeld { get; set; }

            public Queue<int> Queue { get; } = [];
        }
    }
}
