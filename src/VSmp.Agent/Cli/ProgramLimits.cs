// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>
/// The .NET runtime has raised our soft limit of open files; programs that we start get the one that we were started with, as far as
/// that can be told: our parent's.
/// </summary>
internal sealed class ProgramLimits : IDisposable
{
    private readonly (ulong Soft, ulong Hard)? _own;

    private ProgramLimits()
    {
        var (soft, hard) = ProcessControl.OpenFileLimit;
        if (SoftLimitOfParent() is not { } inherited || inherited >= soft) return;
        _own = (soft, hard);
        ProcessControl.OpenFileLimit = (inherited, hard);
    }

    /// <summary>Sets the inherited limit until it is disposed of.</summary>
    public static ProgramLimits Inherited() => new();

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_own is { } own) ProcessControl.OpenFileLimit = own;
    }

    private static ulong? SoftLimitOfParent()
    {
        const string Key = "Max open files";
        try
        {
            string status = File.ReadAllText("/proc/self/stat");
            string parent = status[(status.LastIndexOf(')') + 2)..].Split(' ')[1];
            string? line = File.ReadLines($"/proc/{parent}/limits")
                .FirstOrDefault(l => l.StartsWith(Key, StringComparison.Ordinal));
            string? soft = line?[Key.Length..].Split(' ', StringSplitOptions.RemoveEmptyEntries).FirstOrDefault();
            return ulong.TryParse(soft, NumberStyles.None, CultureInfo.InvariantCulture, out ulong limit) ? limit : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
