// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Running;

namespace VSmp.Bench.Velvet;

/// <summary>How a run ended.</summary>
internal enum RunEnd
{
    /// <summary>As it should.</summary>
    Finished,

    /// <summary>It took too long, and was ended.</summary>
    Late,

    /// <summary>The kernel killed it: it found nothing to take from the group, though there was room in the swap file.</summary>
    Killed,

    /// <summary>It was not tried: what is private leaves nothing for frames.</summary>
    Impossible,
}

/// <summary>A run.</summary>
/// <param name="End">How it ended.</param>
/// <param name="Seconds">How long it took; of one that did not finish, until its end.</param>
/// <param name="LocalBytes">The local memory that it really used, at most.</param>
internal sealed record Outcome(RunEnd End, double Seconds, ulong LocalBytes)
{
    /// <summary>This one, and another behind it: as bad as the worse.</summary>
    public Outcome Then(Outcome next)
    {
        ArgumentNullException.ThrowIfNull(next);
        return new Outcome((RunEnd)Math.Max((int)End, (int)next.End), Seconds + next.Seconds, Math.Max(LocalBytes, next.LocalBytes));
    }
}

/// <summary>Runs of one kind, a round each, until one does not finish.</summary>
internal sealed class Series
{
    /// <summary>How long they took.</summary>
    public Sample Seconds { get; } = new();

    /// <summary>That, as a multiple of what the native run of the same round took.</summary>
    public Sample Ratio { get; } = new();

    /// <summary>The local memory that they really used.</summary>
    public Sample LocalMebibytes { get; } = new();

    /// <summary>How the last of them ended.</summary>
    public RunEnd End { get; private set; }

    /// <summary>Whether they finished, all of them.</summary>
    public bool IsFinished => End == RunEnd.Finished && Ratio.Values.Count > 0;

    /// <summary>One more round.</summary>
    public void Add(Outcome outcome, double nativeSeconds)
    {
        ArgumentNullException.ThrowIfNull(outcome);
        End = outcome.End;
        Seconds.Add(outcome.Seconds);
        Ratio.Add(outcome.Seconds / nativeSeconds);
        LocalMebibytes.Add(outcome.LocalBytes / (double)(1 << 20));
    }

    /// <summary>A figure, or why there is none.</summary>
    public string ToCell(Func<Series, Sample> figure, int decimals)
    {
        ArgumentNullException.ThrowIfNull(figure);
        string Number(double value) => value.ToString("F" + decimals, System.Globalization.CultureInfo.InvariantCulture);
        return End switch
        {
            _ when Ratio.Values.Count == 0 => "",
            RunEnd.Finished => Number(figure(this).Median),
            RunEnd.Late => $"> {Number(figure(this).Values[^1])}",
            RunEnd.Killed => "killed",
            _ => "none left",
        };
    }
}
