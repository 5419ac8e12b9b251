// SPDX-License-Identifier: Apache-2.0
using System.Reflection;
using BenchmarkDotNet.Attributes;
using VSmp.Bench.Micro;
using VSmp.Bench.Running;

namespace VSmp.Bench.Tests.Micro;

/// <summary>What is measured inside an agent runs, for as long as one likes, and allocates nothing.</summary>
public sealed class InsideTests
{
    public static TheoryData<string> Measured =>
        [.. typeof(Inside).GetMethods().Where(method => method.GetCustomAttribute<BenchmarkAttribute>() is not null).Select(method => method.Name)];

    [Theory]
    [MemberData(nameof(Measured))]
    public void It_allocates_nothing_however_often_it_runs(string name)
    {
        const int Times = 10_000;
        using Inside inside = new();
        MethodInfo method = typeof(Inside).GetMethod(name)!;
        Action run = method.ReturnType == typeof(void) ? method.CreateDelegate<Action>(inside) : Discard(method, inside);
        for (int i = 0; i < Times; i++) run();
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < Times; i++) run();
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, Times / 10); // less than any object each time
    }

    [Fact]
    public void A_report_has_a_step_s_share_of_a_round_and_finds_what_allocates()
    {
        MicroResult round = new("Forward", "msi", Steps: 12, LeastNanoseconds: 1200, MeanNanoseconds: 1300, AllocatedBytes: 0);
        MicroResult inside = new("a queue", "", 1, 20, 21, 0);
        Machine machine = new("a processor", 2, "6.1", "abc", "2026-01-02");
        Assert.Equal(100, round.StepNanoseconds);
        Assert.True(new MicroReport(machine, [round], [inside]).IsFreeOfAllocation);
        Assert.False(new MicroReport(machine, [round], [inside with { AllocatedBytes = 24 }]).IsFreeOfAllocation);
        Assert.False(new MicroReport(machine, [round with { AllocatedBytes = 24 }], [inside]).IsFreeOfAllocation);
    }

    private static Action Discard(MethodInfo method, Inside inside) => (Action)typeof(InsideTests)
        .GetMethod(nameof(Typed), BindingFlags.NonPublic | BindingFlags.Static)!.MakeGenericMethod(method.ReturnType).Invoke(null, [method, inside])!;

    private static Action Typed<T>(MethodInfo method, Inside inside)
    {
        Func<T> run = method.CreateDelegate<Func<T>>(inside);
        return () => run();
    }
}
