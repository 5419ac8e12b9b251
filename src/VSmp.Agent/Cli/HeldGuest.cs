// SPDX-License-Identifier: Apache-2.0
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>A guest of the run: whom to kill, and what keeps it from reading zeros until then.</summary>
internal sealed class HeldGuest(SafeFileHandle? process, SafeFileHandle userfaultfd) : IDisposable
{
    /// <summary>What is held of the same process besides, from before this.</summary>
    public HeldGuest? Earlier { get; set; }

    /// <summary>How often the agent had been started again when it told of this.</summary>
    public int Generation { get; init; }

    /// <summary>Whether the process is known to have ended.</summary>
    public bool HasEnded => process is null || ProcessControl.WaitForExit(process, 0);

    /// <summary>Lets go of what was held before this, as far as it is of an earlier generation: this one's agent has told of all that there is.</summary>
    public void DropFormer()
    {
        HeldGuest last = this;
        while (last.Earlier is { } earlier && earlier.Generation == Generation) last = earlier;
        last.Earlier?.Dispose();
        last.Earlier = null;
    }

    public void Kill()
    {
        if (process is not null) _ = ProcessControl.Signal(process, Signals.SIGKILL);
    }

    public void AwaitEnd(int timeoutMilliseconds)
    {
        if (process is not null) _ = ProcessControl.WaitForExit(process, timeoutMilliseconds);
    }

    public void Dispose()
    {
        Earlier?.Dispose();
        process?.Dispose();
        userfaultfd.Dispose();
    }
}
