// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Velvet;

/// <summary>
/// Sequencing reads of a random genome, the same for the same seed on every machine, and the same as <c>demo/make-reads</c> makes: 50 bases
/// each, both strands, one base in two hundred misread. The generator is Park and Miller's (1988).
/// </summary>
internal sealed class Reads
{
    /// <summary>How often each base of the genome is read, on average.</summary>
    public const int Coverage = 12;

    private const int ReadBases = 50, ChunkBases = 1000, WarmUp = 100;
    private const string Alphabet = "ACGT", Complement = "TGCA";

    private long _state;

    private Reads(int seed)
    {
        _state = seed;
        for (int i = 0; i < WarmUp; i++) _ = Next(2); // the first numbers after a small seed are small
    }

    /// <summary>Writes reads as FASTA.</summary>
    /// <param name="output">Where to.</param>
    /// <param name="count">How many reads; the genome is as long as they need to cover it.</param>
    /// <param name="seed">At least 1.</param>
    public static void Write(TextWriter output, int count, int seed)
    {
        ArgumentNullException.ThrowIfNull(output);
        new Reads(seed).Write(output, count);
    }

    private void Write(TextWriter output, int count)
    {
        int bases = (int)((long)count * ReadBases / Coverage);
        char[] genome = new char[(bases + ChunkBases - 1) / ChunkBases * ChunkBases]; // the demo makes it in chunks
        for (int i = 0; i < genome.Length; i++) genome[i] = Alphabet[Next(4)];
        char[] read = new char[ReadBases];
        for (int number = 1; number <= count; number++)
        {
            genome.AsSpan(Next(bases - ReadBases), ReadBases).CopyTo(read);
            if (Next(2) != 0)
            {
                Array.Reverse(read);
                for (int i = 0; i < ReadBases; i++) read[i] = Complement[Alphabet.IndexOf(read[i], StringComparison.Ordinal)];
            }
            for (int i = Next(200); i < ReadBases; i += 1 + Next(399)) read[i] = Alphabet[Next(4)];
            output.Write(FormattableString.Invariant($">read{number}\n"));
            output.Write(read);
            output.Write('\n');
        }
    }

    private int Next(int limit)
    {
        _state = 16807 * _state % 2147483647;
        return (int)(_state % limit);
    }
}
