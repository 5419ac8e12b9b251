// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Litmus;

/// <summary>What the runs of a test say.</summary>
public enum LitmusVerdict
{
    /// <summary>Nothing forbidden, and the runs were such that it could have been seen.</summary>
    Pass,

    /// <summary>An outcome that x86-TSO forbids.</summary>
    Violation,

    /// <summary>Nothing forbidden, but the accesses did not meet often enough for that to mean much.</summary>
    Inconclusive,

    /// <summary>This machine cannot run the test.</summary>
    Unsupported,
}

/// <summary>The outcomes of one test in one layout and kind, judged.</summary>
public sealed class LitmusResult
{
    // A few meetings can be of one sort only, in which nothing could have gone wrong.
    private const int EnoughMeetings = 10;

    private readonly Dictionary<LitmusOutcome, long> _counts = [];
    private readonly IReadOnlySet<LitmusOutcome> _allowed;
    private readonly LitmusOutcome[] _overlapping;
    private readonly LitmusOutcome[] _relaxed;
    private string? _unsupported;

    /// <summary>A test without runs so far.</summary>
    public LitmusResult(LitmusTest test, LitmusLayout layout, LitmusKind kind)
    {
        Test = test;
        Layout = layout;
        Kind = kind;
        _allowed = TsoModel.Allowed(test, layout, kind);
        IReadOnlySet<LitmusOutcome> sequential = TsoModel.SequentiallyConsistent(test);
        _overlapping = [.. sequential.Except(TsoModel.Serial(test))];
        // Torn outcomes are left out: that they come is no sign of anything.
        _relaxed = [.. TsoModel.Allowed(test, LitmusLayout.One, kind).Except(sequential)];
    }

    /// <summary>The test.</summary>
    public LitmusTest Test { get; }

    /// <summary>Where its variables lie.</summary>
    public LitmusLayout Layout { get; }

    /// <summary>Which instructions it uses.</summary>
    public LitmusKind Kind { get; }

    /// <summary>How many runs there were.</summary>
    public long Runs => _counts.Values.Sum();

    /// <summary>Runs whose outcome x86-TSO forbids.</summary>
    public long Forbidden => _counts.Where(pair => !_allowed.Contains(pair.Key)).Sum(pair => pair.Value);

    /// <summary>Runs that came to what no order of whole threads gives: in them, the threads certainly met.</summary>
    public long Overlapping => _counts.Where(pair => _overlapping.Contains(pair.Key) || _relaxed.Contains(pair.Key)).Sum(pair => pair.Value);

    /// <summary>Runs that came to what x86-TSO allows and sequential consistency does not.</summary>
    public long Relaxed => _counts.Where(pair => _relaxed.Contains(pair.Key)).Sum(pair => pair.Value);

    /// <summary>Outcomes and how often they came.</summary>
    public IReadOnlyDictionary<LitmusOutcome, long> Counts => _counts;

    /// <summary>Adds runs.</summary>
    public void Add(LitmusOutcome outcome, long count) => _counts[outcome] = _counts.GetValueOrDefault(outcome) + count;

    /// <summary>Says that this machine cannot run the test.</summary>
    public void SetUnsupported(string reason) => _unsupported = reason;

    /// <summary>Whether x86-TSO allows an outcome.</summary>
    public bool IsAllowed(LitmusOutcome outcome) => _allowed.Contains(outcome);

    /// <summary>The verdict.</summary>
    /// <param name="why">Which outcomes are forbidden or were missed, or why the test is not supported.</param>
    public LitmusVerdict Judge(out string why)
    {
        LitmusOutcome[] forbidden = [.. _counts.Keys.Where(outcome => !_allowed.Contains(outcome))];
        if (forbidden.Length > 0)
        {
            why = "forbidden: " + string.Join(", ", forbidden.Select(outcome => $"'{outcome}' ×{_counts[outcome]}"));
            return LitmusVerdict.Violation;
        }
        if (_unsupported is not null)
        {
            why = _unsupported;
            return LitmusVerdict.Unsupported;
        }
        LitmusOutcome[] missed = [.. _overlapping.Where(outcome => !_counts.ContainsKey(outcome))];
        if (missed.Length > 0)
        {
            why = $"never saw {missed.Length} of the {_overlapping.Length} outcomes of threads that meet: "
                + string.Join(", ", missed.Take(4).Select(outcome => $"'{outcome}'"));
            return LitmusVerdict.Inconclusive;
        }
        if (Overlapping < EnoughMeetings)
        {
            why = $"the threads met only {Overlapping} times";
            return LitmusVerdict.Inconclusive;
        }
        if (_relaxed.Length > 0 && Relaxed == 0)
        {
            why = $"never saw what x86-TSO allows beyond sequential consistency: '{_relaxed[0]}'";
            return LitmusVerdict.Inconclusive;
        }
        why = "";
        return LitmusVerdict.Pass;
    }
}
