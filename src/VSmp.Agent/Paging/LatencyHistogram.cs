// SPDX-License-Identifier: Apache-2.0
using System.Numerics;

namespace VSmp.Agent.Paging;

/// <summary>Counts of durations in buckets of 1/8 octave, so that a quantile is right to 9 %. Owned by the reactor.</summary>
internal sealed class LatencyHistogram
{
    private const int SubBuckets = 8;
    private readonly ulong[] _counts = new ulong[64 * SubBuckets];
    private ulong _total;
    private long _maxNanoseconds;

    /// <summary>Counts a duration.</summary>
    public void Add(long nanoseconds)
    {
        ulong n = (ulong)Math.Max(nanoseconds, SubBuckets);
        int octave = BitOperations.Log2(n);
        int sub = (int)((n >> (octave - 3)) & (SubBuckets - 1));
        _counts[(octave * SubBuckets) + sub]++;
        _total++;
        _maxNanoseconds = Math.Max(_maxNanoseconds, nanoseconds);
    }

    /// <summary>The longest, in microseconds.</summary>
    public double MaxMicroseconds => _maxNanoseconds / 1000.0;

    /// <summary>The duration that a fraction of all stayed below, in microseconds; 0 if there were none.</summary>
    public double QuantileMicroseconds(double fraction)
    {
        ulong rank = (ulong)(fraction * _total);
        ulong seen = 0;
        for (int i = 0; i < _counts.Length; i++)
        {
            seen += _counts[i];
            if (seen > rank)
            {
                double low = Math.Pow(2, i / SubBuckets) * (1 + (i % SubBuckets / (double)SubBuckets));
                return Math.Min(low * (1 + (0.5 / SubBuckets)), _maxNanoseconds) / 1000.0;
            }
        }
        return 0;
    }
}
