// SPDX-License-Identifier: Apache-2.0
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>A guest of the run: whom to kill, and what keeps it from reading zeros until then.</summary>
internal sealed class HeldGuest(SafeFileHandle? process, SafeFileHandle userfaultfd) : IDisposable
{
    public HeldGuest? Earlier { get; set; }

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
