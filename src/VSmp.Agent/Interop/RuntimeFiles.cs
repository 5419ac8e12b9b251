// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Agent.Interop;

/// <summary>What the .NET runtime has of a process in the temporary folder, and leaves there if that is killed: the pipes and the socket of its debugger and its diagnostics.</summary>
internal static class RuntimeFiles
{
    /// <summary>Deletes those of a process that is dead. One that belongs to another user, or is in another folder, stays.</summary>
    public static void Delete(ProcessIdentity process)
    {
        string key = string.Create(CultureInfo.InvariantCulture, $"{process.ProcessId}-{process.StartTicks}");
        foreach (string name in new[] { $"clr-debug-pipe-{key}-in", $"clr-debug-pipe-{key}-out", $"dotnet-diagnostic-{key}-socket" })
        {
            try { File.Delete(Path.Combine(Path.GetTempPath(), name)); }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException) { } // nothing depends on it
        }
    }
}
