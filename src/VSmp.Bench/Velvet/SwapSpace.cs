// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using VSmp.Agent.Interop;
using VSmp.Bench.Running;

namespace VSmp.Bench.Velvet;

/// <summary>
/// What a program without VSmp has when its memory does not suffice: a swap file, in use as long as this object, and memory cgroups that hold
/// programs to less than they need.
/// </summary>
internal sealed class SwapSpace : IDisposable
{
    private const string FileName = "swap";

    private readonly string _file;
    private readonly CgroupFiles _files;
    private bool _isOn;
    private int _groupsMade;

    private SwapSpace(string file, CgroupFiles files) => (_file, _files) = (file, files);

    /// <summary>Makes a swap file, and uses it.</summary>
    /// <param name="folder">Where to make it; not on a tmpfs.</param>
    /// <param name="bytes">How large.</param>
    /// <exception cref="BenchException">That cannot be done here; the message says why.</exception>
    public static SwapSpace Start(string folder, long bytes)
    {
        if (Libc.GetEffectiveUserId() != 0) throw new BenchException("a swap file and cgroups need root");
        SwapSpace space = new(Path.Combine(folder, FileName), CgroupFiles.Find() ?? throw new BenchException("there is no memory cgroup controller to use"));
        try
        {
            space.Start(bytes);
            return space;
        }
        catch
        {
            space.Dispose();
            throw;
        }
    }

    /// <summary>Ends the use of a swap file that somebody has left who was killed.</summary>
    /// <param name="folder">Where it was made, if it was.</param>
    public static void EndAbandoned(string folder)
    {
        string file = Path.Combine(folder, FileName);
        if (File.ReadLines("/proc/swaps").Any(line => line.StartsWith($"{file} ", StringComparison.Ordinal))) SwitchOff(file);
    }

    /// <summary>Makes a group for one run of a program.</summary>
    /// <param name="bytes">The local memory of its processes together, the page cache of their files included.</param>
    public MemoryGroup NewGroup(ulong bytes) =>
        new(_files, string.Create(CultureInfo.InvariantCulture, $"vsmp-bench-{Environment.ProcessId}-{++_groupsMade}"), bytes);

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isOn)
        {
            _isOn = false;
            SwitchOff(_file);
        }
        File.Delete(_file);
    }

    private static void SwitchOff(string file)
    {
        if (Execute("swapoff", file) is { } error) Console.Error.WriteLine($"vsmp-bench: {file} is still in use as swap: {error}");
    }

    private void Start(long bytes)
    {
        try
        {
            // The kernel refuses one with holes, or that others may read.
            FileStreamOptions options = new()
            {
                Mode = FileMode.CreateNew,
                Access = FileAccess.Write,
                UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
            };
            using FileStream file = new(_file, options);
            byte[] zeros = new byte[1 << 20];
            for (long written = 0; written < bytes; written += zeros.Length) file.Write(zeros);
            file.Flush(flushToDisk: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BenchException($"the swap file cannot be made: {e.Message}");
        }
        if ((Execute("mkswap", _file) ?? Execute("swapon", _file)) is { } error) throw new BenchException($"no swap file: {error}");
        _isOn = true;
    }

    // Not through BenchCluster, which runs nothing any more after an interruption: and then this must run. Null: it went well.
    private static string? Execute(string tool, string argument)
    {
        // Users who are root by other ways than a login may not have this folder in their path.
        string path = Path.Combine("/usr/sbin", tool);
        ProcessStartInfo start = new(File.Exists(path) ? path : tool, [argument]) { RedirectStandardOutput = true, RedirectStandardError = true };
        try
        {
            using Process process = Process.Start(start)!;
            process.OutputDataReceived += (_, _) => { };
            process.BeginOutputReadLine();
            string error = process.StandardError.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0 ? null : $"{tool} ended with exit code {process.ExitCode}: {error.Trim()}";
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            return $"{tool}: {e.Message}";
        }
    }
}
