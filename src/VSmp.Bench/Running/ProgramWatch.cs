// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using VSmp.Agent.Interop;

namespace VSmp.Bench.Running;

/// <summary>
/// Watches a program while it runs: how long, and how much memory it has. Ends it when it takes too long.
/// </summary>
/// <param name="name">The program's file name. It may be the process that was started, after an <c>exec</c>, or a child of that.</param>
/// <param name="limitSeconds">How long it may take.</param>
internal sealed class ProgramWatch(string name, double limitSeconds)
{
    private const int PeriodMilliseconds = 10, GraceMilliseconds = 5_000;
    private const int KernelNameLength = 15; // what the kernel keeps of a name (TASK_COMM_LEN, less the zero)

    private readonly string _kernelName = name[..Math.Min(name.Length, KernelNameLength)];

    /// <summary>From its start to its end.</summary>
    public double Seconds { get; private set; }

    /// <summary>Whether it was ended, because it took too long.</summary>
    public bool IsLate { get; private set; }

    /// <summary>The most memory it had in its mappings (VmHWM).</summary>
    public ulong PeakResidentBytes { get; private set; }

    /// <summary>
    /// The most memory it had outside of frames at one time that was looked: anonymous pages and those of mapped files.
    /// </summary>
    public ulong PeakPrivateBytes { get; private set; }

    /// <summary>Waits for the end of a process that was just started.</summary>
    /// <param name="process">The process.</param>
    /// <param name="clock">Running since its start.</param>
    public void Await(Process process, Stopwatch clock)
    {
        ArgumentNullException.ThrowIfNull(process);
        ArgumentNullException.ThrowIfNull(clock);
        while (!process.WaitForExit(PeriodMilliseconds))
        {
            Look(process.Id);
            foreach (int child in Children(process.Id)) Look(child);
            if (clock.Elapsed.TotalSeconds <= limitSeconds) continue;
            IsLate = true;
            // As a user would: vsmp run passes it on, and takes leave of its agent.
            _ = Libc.Kill(process.Id, Signals.SIGTERM);
            if (!process.WaitForExit(GraceMilliseconds)) process.Kill(entireProcessTree: true);
            break;
        }
        Seconds = clock.Elapsed.TotalSeconds;
    }

    /// <summary>Takes note of what a process's <c>status</c> in /proc says, if it is the program.</summary>
    internal void Note(IEnumerable<string> status)
    {
        ulong peak = 0, anonymous = 0, ofFiles = 0;
        foreach (string line in status)
        {
            string[] words = line.Split((char[])[':', '\t', ' '], StringSplitOptions.RemoveEmptyEntries);
            switch (words[0])
            {
                case "Name" when words[1] != _kernelName: return; // it is still what starts it
                case "VmHWM": peak = Bytes(words[1]); break;
                case "RssAnon": anonymous = Bytes(words[1]); break;
                case "RssFile": ofFiles = Bytes(words[1]); break;
            }
        }
        PeakResidentBytes = Math.Max(PeakResidentBytes, peak);
        PeakPrivateBytes = Math.Max(PeakPrivateBytes, anonymous + ofFiles);
    }

    private static ulong Bytes(string kibibytes) => ulong.Parse(kibibytes, CultureInfo.InvariantCulture) << 10;

    private void Look(int processId)
    {
        try
        {
            Note(File.ReadLines($"/proc/{processId}/status"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It has ended, which WaitForExit tells in a moment.
        }
    }

    private static List<int> Children(int processId)
    {
        List<int> children = [];
        try
        {
            foreach (string task in Directory.EnumerateDirectories($"/proc/{processId}/task"))
            {
                string[] words = File.ReadAllText(Path.Combine(task, "children")).Split(' ', StringSplitOptions.RemoveEmptyEntries);
                children.AddRange(words.Select(word => int.Parse(word, CultureInfo.InvariantCulture)));
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Likewise.
        }
        return children;
    }
}
