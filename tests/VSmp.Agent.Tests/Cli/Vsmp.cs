// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Agent.Tests.Keeping;

namespace VSmp.Agent.Tests.Cli;

/// <summary>The built <c>vsmp</c> command, as a user runs it.</summary>
internal static class Vsmp
{
    private static readonly Lazy<string> Path = new(Prepare);

    /// <summary>The executable.</summary>
    public static string Executable => Path.Value;

    /// <summary>Starts it; input, output and errors are pipes.</summary>
    public static Process Start(params string[] arguments) => Start("", arguments);

    /// <summary>Starts it for a cluster.</summary>
    public static Process Start(RunDirectory directory, params string[] arguments) => Start(directory.Cluster, arguments);

    /// <summary>Runs it to its end.</summary>
    public static async Task<(int ExitCode, string Output, string Errors)> RunAsync(RunDirectory? directory,
        params string[] arguments)
    {
        using Process process = Start(directory?.Cluster ?? "", arguments);
        process.StandardInput.Close();
        return await FinishAsync(process);
    }

    /// <summary>Waits for the end of a started command.</summary>
    public static async Task<(int ExitCode, string Output, string Errors)> FinishAsync(Process process)
    {
        using CancellationTokenSource patience = new(TimeSpan.FromSeconds(60));
        Task<string> output = process.StandardOutput.ReadToEndAsync(patience.Token),
            errors = process.StandardError.ReadToEndAsync(patience.Token);
        try
        {
            await process.WaitForExitAsync(patience.Token);
            return (process.ExitCode, await output, await errors);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw new TimeoutException($"{process.StartInfo.FileName} {string.Join(' ', process.StartInfo.ArgumentList)} does "
                + "not end");
        }
    }

    /// <summary>Sends a signal to a started command.</summary>
    public static void Signal(this Process process, int signal) => _ = Libc.Kill(process.Id, signal);

    private static Process Start(string cluster, string[] arguments)
    {
        ProcessStartInfo start = new(Executable, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["VSMP_CLUSTER"] = cluster;
        return Process.Start(start)!;
    }

    private static string Prepare()
    {
        // What is preloaded is not under test here: any library that loads will do.
        string library = System.IO.Path.Combine(AppContext.BaseDirectory, "libvsmp-guest.so");
        if (!File.Exists(library)) File.Copy("/lib/x86_64-linux-gnu/libm.so.6", library);
        string keeper = System.IO.Path.Combine(AppContext.BaseDirectory, KeptAgents.KeeperName);
        File.Delete(keeper);
        _ = File.CreateSymbolicLink(keeper, KeeperPrograms.Keeper);
        return System.IO.Path.Combine(AppContext.BaseDirectory, "vsmp");
    }
}
