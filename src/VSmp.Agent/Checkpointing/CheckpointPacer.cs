// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Checkpointing;

/// <summary>
/// How often to take a checkpoint: as often as loses least, counting what the checkpoints cost, and what is computed again after a failure.
/// </summary>
/// <remarks>
/// J. W. Young: A first order approximation to the optimum checkpoint interval, Communications of the ACM 17 (1974); J. T. Daly: A higher order estimate of the optimum checkpoint
/// interval for restart dumps, Future Generation Computer Systems 22 (2006).
/// </remarks>
/// <param name="mtbf">Mean time between failures of all that the job needs.</param>
internal sealed class CheckpointPacer(TimeSpan mtbf)
{
    /// <summary>How much what a checkpoint has cost counts beside those before it.</summary>
    private const double Weight = 0.5;

    /// <summary>More often is not worth it, whatever it costs: a restart takes longer.</summary>
    private static readonly TimeSpan Least = TimeSpan.FromSeconds(1);

    private double? _cost;

    /// <summary>How long to compute before the next. Before the first: as if it took a second.</summary>
    public TimeSpan Interval => TimeSpan.FromSeconds(Math.Max(Least.TotalSeconds, Daly(_cost ?? 1, mtbf.TotalSeconds)));

    /// <summary>A checkpoint has cost this much of the computation's time.</summary>
    public void OnTaken(TimeSpan cost) => _cost = _cost is { } before ? (before * (1 - Weight)) + (cost.TotalSeconds * Weight) : cost.TotalSeconds;

    /// <summary>Young's interval: √(2CM), in the unit of its arguments.</summary>
    public static double Young(double cost, double mtbf) => Math.Sqrt(2 * cost * mtbf);

    /// <summary>Daly's: √(2CM)·(1 + ⅓√(C/2M) + C/18M) − C where C &lt; 2M, otherwise M.</summary>
    public static double Daly(double cost, double mtbf)
    {
        if (cost >= 2 * mtbf) return mtbf;
        double ratio = cost / (2 * mtbf);
        return (Young(cost, mtbf) * (1 + (Math.Sqrt(ratio) / 3) + (ratio / 9))) - cost;
    }

    /// <summary>Which part of the time is wasted, to first order: on checkpoints, and on computing again what failures cost.</summary>
    /// <param name="interval">Between two checkpoints.</param>
    /// <param name="cost">Of a checkpoint.</param>
    /// <param name="restart">From a failure until it computes again.</param>
    /// <param name="mtbf">Mean time between failures.</param>
    public static double Waste(double interval, double cost, double restart, double mtbf)
    {
        double overhead = cost / (interval + cost);
        return 1 - ((1 - overhead) * Math.Max(0, 1 - (((interval + cost) / 2) + restart) / mtbf));
    }
}
