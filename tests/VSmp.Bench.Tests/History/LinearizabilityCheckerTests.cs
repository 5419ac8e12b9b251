// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Bench.History;

namespace VSmp.Bench.Tests.History;

/// <summary>The checker accepts what an atomic memory can do, and finds what it cannot.</summary>
public sealed class LinearizabilityCheckerTests
{
    private const ulong A = 0x1_0000, B = 0x2_0000, C = 0x3_0000;

    [Fact]
    public void A_sequential_history_is_linearizable() => Accepts(
        Read(1, 2, 0), Write(3, 4, A), Read(5, 6, A), Add(7, 8, A), Read(9, 10, A + 1), Write(11, 12, B), Read(13, 14, B));

    [Fact]
    public void Concurrent_reads_may_see_either_value() => Accepts(Write(1, 10, A), Read(2, 3, 0), Read(4, 5, A), Read(6, 7, A));

    [Fact]
    public void Concurrent_writes_may_take_effect_in_any_order() => Accepts(
        Write(1, 10, A), Write(1, 10, B), Read(2, 3, B), Read(4, 5, A));

    [Fact]
    public void A_stale_read_is_found() => Rejects(Write(1, 2, A), Write(3, 4, B), Read(5, 6, A));

    [Fact]
    public void A_read_of_the_initial_value_after_a_write_is_found() => Rejects(Write(1, 2, A), Read(3, 4, 0));

    [Fact]
    public void A_read_from_the_future_is_found() => Rejects(Read(1, 2, A), Write(3, 4, A));

    [Fact]
    public void A_value_that_nobody_wrote_is_found() => Rejects(Write(1, 2, A), Read(3, 4, C));

    [Fact]
    public void Two_reads_that_see_two_writes_in_opposite_orders_are_found() => Rejects(
        Write(1, 20, A), Write(1, 20, B), Read(2, 3, A), Read(4, 5, B), Read(6, 7, A));

    [Fact]
    public void New_then_old_is_found_even_while_the_write_is_under_way() => Rejects(Write(1, 10, A), Read(2, 3, A), Read(4, 5, 0));

    [Fact]
    public void A_lost_addition_is_found() => Rejects(Write(1, 2, A), Add(3, 10, A), Add(4, 11, A));

    [Fact]
    public void An_addition_that_a_write_went_between_is_found() =>
        // The write came after A was read and was over before A + 1 appeared; then nothing may find A + 1 made of A.
        Rejects(Write(1, 2, A), Write(3, 4, B), Add(5, 6, A));

    [Fact]
    public void A_chain_of_additions_keeps_real_time() => Rejects(Write(1, 2, A), Add(10, 11, A), Add(3, 4, A + 1));

    [Fact]
    public void A_write_between_two_additions_of_a_chain_is_found() => Rejects(
        Write(1, 2, A), Add(3, 4, A), Write(5, 6, B), Add(7, 8, A + 1));

    [Fact]
    public void Words_are_checked_one_by_one()
    {
        Violation violation = Assert.Single(LinearizabilityChecker.Check(
            [Write(1, 2, A), Read(3, 4, A), Write(1, 2, B) with { Word = 7 }, Read(3, 4, 0) with { Word = 7 }]));
        Assert.Equal(7u, violation.Word);
    }

    [Fact]
    public void Small_histories_get_the_verdict_of_trying_every_order()
    {
        const int Histories = 20_000;
        int seed = Environment.TickCount;
        Random random = new(seed);
        int linearizable = 0;
        for (int i = 0; i < Histories; i++)
        {
            Operation[] history = RandomHistory(random);
            bool expected = HasOrder(history, 0, 0);
            bool found = LinearizabilityChecker.Check(history).Count == 0;
            Assert.True(expected == found, $"seed {seed}, history {i}: {expected} by trying\n{string.Join('\n', history)}");
            if (expected) linearizable++;
        }
        // Neither verdict is a rarity, so both are tested.
        Assert.InRange(linearizable, Histories / 20, Histories * 19 / 20);
    }

    [Fact]
    public void One_wrong_read_in_a_million_operations_is_found()
    {
        const int Operations = 1_000_000;
        Operation[] history = AtomicHistory(new Random(1), Operations);
        Stopwatch watch = Stopwatch.StartNew();
        Assert.Empty(LinearizabilityChecker.Check(history));
        TestContext.Current.TestOutputHelper?.WriteLine($"{Operations} operations: {watch.ElapsedMilliseconds} ms");
        int read = Array.FindIndex(history, Operations / 2, operation => operation.Kind == OperationKind.Read && operation.Value != 0);
        ulong stale = history.Last(operation => operation.Kind == OperationKind.Write && operation.Word == history[read].Word
            && operation.Finish + 1000 < history[read].Start && operation.Value != history[read].Value).Value;
        history[read] = history[read] with { Value = stale };
        Assert.Equal(history[read].Word, Assert.Single(LinearizabilityChecker.Check(history)).Word);
    }

    // Every operation takes effect at a moment within its interval: intervals of four ranks overlap at random.
    private static Operation[] AtomicHistory(Random random, int count)
    {
        ulong[] words = new ulong[8];
        ulong[] free = new ulong[4]; // until when a rank is busy
        Operation[] history = new Operation[count];
        for (int i = 0; i < count; i++)
        {
            ulong effect = ((ulong)i + 1) * 10;
            int rank = Array.IndexOf(free, free.Min());
            ulong start = Math.Max(free[rank] + 1, effect - Math.Min(effect, (ulong)random.Next(1, 60)));
            if (start > effect) start = effect;
            ulong finish = effect + (ulong)random.Next(20);
            free[rank] = finish;
            uint word = (uint)random.Next(words.Length);
            OperationKind kind = (OperationKind)random.Next(3);
            ulong value = kind == OperationKind.Write ? ((ulong)i + 1) << 16 : words[word];
            history[i] = new Operation(start, finish, value, word, kind);
            words[word] = history[i].ValueAfter;
        }
        return history;
    }

    private static Operation[] RandomHistory(Random random)
    {
        int count = random.Next(2, 7);
        Operation[] history = new Operation[count];
        ulong[] values = [0, A, B, A + 1, A + 2, B + 1, 1, 2];
        ulong written = 0;
        for (int i = 0; i < count; i++)
        {
            ulong start = (ulong)random.Next(1, 20), finish = start + (ulong)random.Next(1, 12);
            history[i] = random.Next(3) switch
            {
                0 => Write(start, finish, written += 0x1_0000),
                1 => Add(start, finish, values[random.Next(values.Length)]),
                _ => Read(start, finish, values[random.Next(values.Length)]),
            };
        }
        return history;
    }

    // Whether the operations that are not done yet can be ordered, the word being at this value.
    private static bool HasOrder(Operation[] history, int done, ulong value)
    {
        if (done == (1 << history.Length) - 1) return true;
        for (int i = 0; i < history.Length; i++)
        {
            Operation next = history[i];
            bool isDone = (done & (1 << i)) != 0;
            if (isDone || (next.Kind != OperationKind.Write && next.Value != value)) continue;
            bool mayBeNext = true;
            for (int j = 0; j < history.Length; j++) mayBeNext &= (done & (1 << j)) != 0 || history[j].Finish >= next.Start;
            if (mayBeNext && HasOrder(history, done | (1 << i), next.ValueAfter)) return true;
        }
        return false;
    }

    private static void Accepts(params Operation[] history) => Assert.Empty(LinearizabilityChecker.Check(history));

    private static void Rejects(params Operation[] history) => Assert.Single(LinearizabilityChecker.Check(history));

    private static Operation Read(ulong start, ulong finish, ulong value) => new(start, finish, value, 0, OperationKind.Read);

    private static Operation Write(ulong start, ulong finish, ulong value) => new(start, finish, value, 0, OperationKind.Write);

    private static Operation Add(ulong start, ulong finish, ulong found) => new(start, finish, found, 0, OperationKind.FetchAdd);
}
