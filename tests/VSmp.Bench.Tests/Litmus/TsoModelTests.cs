// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Litmus;

namespace VSmp.Bench.Tests.Litmus;

/// <summary>The abstract machine against what is published of x86-TSO.</summary>
public sealed class TsoModelTests
{
    private const string Forbidden = "forbidden", Allowed = "allowed";

    // Sewell et al., CACM 2010, and Alglave et al., Herding Cats, TOPLAS 2014.
    [Theory]
    [InlineData("SB", Allowed, Forbidden, Forbidden)]
    [InlineData("MP", Forbidden, Forbidden, Forbidden)]
    [InlineData("LB", Forbidden, Forbidden, Forbidden)]
    [InlineData("IRIW", Forbidden, Forbidden, Forbidden)]
    [InlineData("CoRR", Forbidden, Forbidden, Forbidden)]
    [InlineData("CoRW", Forbidden, Forbidden, Forbidden)]
    [InlineData("CoWR", Forbidden, Forbidden, Forbidden)]
    [InlineData("CoWW", Forbidden, Forbidden, Forbidden)]
    [InlineData("2+2W", Forbidden, Forbidden, Forbidden)]
    [InlineData("R", Allowed, Forbidden, Forbidden)]
    [InlineData("S", Forbidden, Forbidden, Forbidden)]
    [InlineData("WRC", Forbidden, Forbidden, Forbidden)]
    [InlineData("ISA2", Forbidden, Forbidden, Forbidden)]
    public void Textbook_questions_have_the_textbook_answers(string name, string plain, string mfence, string xchg)
    {
        LitmusTest test = LitmusTest.All.Single(t => t.Name == name);
        Assert.Equal(plain, Answer(LitmusKind.Plain));
        Assert.Equal(mfence, Answer(LitmusKind.Mfence));
        Assert.Equal(xchg, Answer(LitmusKind.Xchg));

        string Answer(LitmusKind kind) => TsoModel.Allowed(test, LitmusLayout.One, kind).Any(test.IsQuestion) ? Allowed : Forbidden;
    }

    [Fact]
    public void A_thread_sees_its_own_buffered_store_before_others_do()
    {
        // (The textbook n6: with forwarding, a read of 1 and a last value of 1 go together.)
        LitmusTest forwarding = new("n6", "Wx1;Rx|Wx2", "1;1");
        Assert.Contains(new LitmusOutcome("11;11"), TsoModel.Allowed(forwarding, LitmusLayout.One, LitmusKind.Plain));
        Assert.DoesNotContain(new LitmusOutcome("00;11"), TsoModel.Allowed(forwarding, LitmusLayout.One, LitmusKind.Plain));
    }

    [Fact]
    public void Message_passing_has_exactly_three_outcomes() =>
        Assert.Equal(["00 00;11 11", "00 11;11 11", "11 11;11 11"],
            TsoModel.Allowed(Test("MP"), LitmusLayout.Two, LitmusKind.Plain).Select(outcome => outcome.Text).Order(StringComparer.Ordinal));

    [Fact]
    public void With_fences_nothing_but_sequential_consistency_is_left() => Assert.All(LitmusTest.All, test =>
    {
        IReadOnlySet<LitmusOutcome> sequential = TsoModel.SequentiallyConsistent(test);
        foreach (LitmusKind kind in new[] { LitmusKind.Mfence, LitmusKind.Xchg, LitmusKind.Rmw })
        {
            Assert.Equal(Sorted(sequential), Sorted(TsoModel.Allowed(test, LitmusLayout.One, kind)));
        }
        Assert.Subset(TsoModel.Allowed(test, LitmusLayout.One, LitmusKind.Plain).ToHashSet(), sequential.ToHashSet());
    });

    [Fact]
    public void Plain_accesses_that_cross_pages_may_be_torn_but_not_reordered()
    {
        IReadOnlySet<LitmusOutcome> allowed = TsoModel.Allowed(Test("MP"), LitmusLayout.Crossing, LitmusKind.Plain);
        Assert.Contains(new LitmusOutcome("00 01;11 11"), allowed); // half of x was there
        Assert.Contains(new LitmusOutcome("10 11;11 11"), allowed); // half of y, so all of x
        Assert.DoesNotContain(new LitmusOutcome("10 01;11 11"), allowed); // half of y, but not all of x
        Assert.DoesNotContain(new LitmusOutcome("11 00;11 11"), allowed);
        Assert.All(allowed, outcome => Assert.EndsWith(";11 11", outcome.Text, StringComparison.Ordinal));
    }

    [Fact]
    public void Locked_instructions_that_cross_pages_are_never_torn() => Assert.All(LitmusTest.All, test =>
        Assert.Equal(Sorted(TsoModel.SequentiallyConsistent(test)), Sorted(TsoModel.Allowed(test, LitmusLayout.Crossing, LitmusKind.Rmw))));

    [Fact]
    public void Every_test_has_outcomes_that_need_threads_to_meet() => Assert.All(LitmusTest.All, test =>
        Assert.NotEmpty(TsoModel.SequentiallyConsistent(test).Except(TsoModel.Serial(test))));

    private static LitmusTest Test(string name) => LitmusTest.All.Single(test => test.Name == name);

    private static string[] Sorted(IEnumerable<LitmusOutcome> outcomes) =>
        [.. outcomes.Select(outcome => outcome.Text).Order(StringComparer.Ordinal)];
}
