// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Membership;

/// <summary>
/// How long a member whose host answers nothing may be silent before it counts as gone: several times the longest silence that it has come back from
/// lately, and never less than <see cref="LeastTicks"/>. So a network that is known to be quick is trusted to be, and one with spikes gets the whole time of
/// suspicion, as does one that is not known yet (<see cref="UnknownTicks"/>).
/// </summary>
internal sealed class SilencePatience
{
    /// <summary>The least, in milliseconds: eight heartbeats, and a lease with its margin.</summary>
    public const long LeastTicks = 400;

    /// <summary>So long, and at most twice that, a silence is remembered.</summary>
    public const long WindowTicks = 10_000;

    /// <summary>So long a network has to be watched before anything is made of it.</summary>
    public const long UnknownTicks = 2_000;

    private const long Factor = 4, Unknown = long.MaxValue / Factor;

    private long _silence;
    private long _windowBegan = long.MinValue;
    private long _longest;
    private long _longestBefore = Unknown;

    /// <summary>The member has been silent for so long now. To be called several times in a heartbeat's time.</summary>
    public void OnSilent(long silentTicks, long now)
    {
        if (_windowBegan == long.MinValue) _windowBegan = now;
        if (silentTicks < _silence) _longest = Math.Max(_longest, _silence); // it was heard
        _silence = silentTicks;
        if (silentTicks >= LeastTicks) return; // one that lasts teaches nothing yet
        if (_longestBefore == Unknown && now - _windowBegan >= UnknownTicks) _longestBefore = 0;
        if (now - _windowBegan >= WindowTicks) (_longestBefore, _longest, _windowBegan) = (_longest, 0, now);
    }

    /// <summary>Whether the silence is longer than it has any reason to be.</summary>
    public bool IsOver => _silence >= Math.Max(LeastTicks, Factor * Math.Max(_longest, _longestBefore));
}
