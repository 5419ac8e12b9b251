// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Fabric;

/// <summary>
/// Lets a stranger's misbehaviour fill no disk: at most a few lines a second, and a count of those that were left out. Belongs to
/// one thread.
/// </summary>
internal sealed class RateLimitedLog(Action<string> write)
{
    private const int LinesPerSecond = 5;

    private long _second;
    private int _lines;
    private long _suppressed;

    public void Write(string line)
    {
        long second = Reactor.Clock() / 1_000_000;
        if (second != _second)
        {
            if (_suppressed > 0) write($"fabric: {_suppressed} more messages like these were left out");
            _second = second;
            _lines = 0;
            _suppressed = 0;
        }
        if (++_lines <= LinesPerSecond) write(line);
        else _suppressed++;
    }
}
