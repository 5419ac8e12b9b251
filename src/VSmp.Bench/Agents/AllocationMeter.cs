// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Agents;

/// <summary>What the reactors of agents have allocated between two moments, all together.</summary>
/// <param name="Seconds">How long it was.</param>
/// <param name="Bytes">What they allocated, but for the answers to the questions that were asked to know this.</param>
/// <param name="Faults">Faults that they have served.</param>
internal readonly record struct Allocation(double Seconds, double Bytes, double Faults)
{
    /// <summary>Bytes for each of so many, but for what agents allocate anyhow.</summary>
    /// <param name="count">Faults, or pages.</param>
    /// <param name="idle">The same agents, with nothing to do: reports to each other.</param>
    /// <param name="word">The same agents, while they bring a rank the word that it may go on, and do nothing else.</param>
    public double BytesForEach(double count, Allocation idle, Allocation word) => (BytesBut(idle) - word.BytesBut(idle)) / count;

    private double BytesBut(Allocation idle) => Bytes - (idle.Bytes / idle.Seconds * Seconds);
}

/// <summary>Measures <see cref="Allocation"/>s.</summary>
/// <param name="read">Asks all agents: bytes allocated and faults served since they started, all together.</param>
/// <param name="clock">Tells the time, in seconds.</param>
internal sealed class AllocationMeter(Func<(double Bytes, double Faults)> read, Func<double> clock)
{
    private double _bytesPerQuestion;
    private Allocation _begin;

    /// <summary>From now on.</summary>
    public void Begin()
    {
        Allocation first = Read();
        _begin = Read();
        // An answer is counted in part by itself and in part by the next one; so this is one answer, and so is what End finds too much.
        _bytesPerQuestion = _begin.Bytes - first.Bytes;
    }

    /// <summary>Until now.</summary>
    public Allocation End()
    {
        Allocation end = Read();
        return new Allocation(end.Seconds - _begin.Seconds, end.Bytes - _begin.Bytes - _bytesPerQuestion, end.Faults - _begin.Faults);
    }

    // Since the agents have started; seconds since whenever.
    private Allocation Read()
    {
        (double bytes, double faults) = read();
        return new Allocation(clock(), bytes, faults);
    }
}
