// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Velvet;

/// <summary>Where the memory controller is, and what its files are called: both versions of cgroups do the same under other names.</summary>
/// <param name="Root">The folder that groups are made in.</param>
/// <param name="Limit">The limit, in bytes.</param>
/// <param name="Peak">The most that was used, in bytes.</param>
/// <param name="Events">A file with a line <c>oom_kill N</c>.</param>
internal sealed record CgroupFiles(string Root, string Limit, string Peak, string Events)
{
    /// <summary>Of this machine; null if it has no memory controller.</summary>
    public static CgroupFiles? Find()
    {
        CgroupFiles? files = FromMounts(File.ReadLines("/proc/self/mounts"), root => File.ReadAllText(Path.Combine(root, "cgroup.controllers")));
        // Version 2: children get the controller only if their parent hands it down.
        if (files is { Limit: "memory.max" }) File.WriteAllText(Path.Combine(files.Root, "cgroup.subtree_control"), "+memory");
        return files;
    }

    /// <summary>From lines as in /proc/self/mounts.</summary>
    /// <param name="mounts">The lines.</param>
    /// <param name="controllers">The controllers that a version 2 hierarchy has.</param>
    internal static CgroupFiles? FromMounts(IEnumerable<string> mounts, Func<string, string> controllers)
    {
        foreach (string mount in mounts)
        {
            string[] words = mount.Split(' ');
            string root = words[1], type = words[2];
            if (type == "cgroup" && words[3].Split(',').Contains("memory"))
            {
                return new CgroupFiles(root, "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control");
            }
            if (type == "cgroup2" && controllers(root).Split((char[])[' ', '\n']).Contains("memory"))
            {
                return new CgroupFiles(root, "memory.max", "memory.peak", "memory.events");
            }
        }
        return null;
    }
}

/// <summary>A memory cgroup, removed when it is disposed of.</summary>
internal sealed class MemoryGroup : IDisposable
{
    // A process that has ended is in its group a moment longer.
    private const int RemoveAttempts = 100, RemovePauseMilliseconds = 20;

    private readonly CgroupFiles _files;
    private readonly string _folder;

    /// <summary>Makes it.</summary>
    /// <param name="files">Where.</param>
    /// <param name="name">Its name.</param>
    /// <param name="limitBytes">What its processes may use together.</param>
    /// <exception cref="BenchException">It cannot be made.</exception>
    public MemoryGroup(CgroupFiles files, string name, ulong limitBytes)
    {
        _files = files;
        _folder = Path.Combine(files.Root, name);
        try
        {
            Directory.CreateDirectory(_folder);
            File.WriteAllText(Path.Combine(_folder, files.Limit), limitBytes.ToString(CultureInfo.InvariantCulture));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Dispose();
            throw new BenchException($"a memory cgroup cannot be made: {e.Message}");
        }
    }

    /// <summary>The most that was used; 0 where the kernel does not say (version 2, before 5.19).</summary>
    public ulong PeakBytes
    {
        get
        {
            string path = Path.Combine(_folder, _files.Peak);
            return File.Exists(path) ? ulong.Parse(File.ReadAllText(path), CultureInfo.InvariantCulture) : 0;
        }
    }

    /// <summary>Whether the kernel has killed one of its processes, for want of memory.</summary>
    public bool HasKilled => File.ReadLines(Path.Combine(_folder, _files.Events)).Any(line => line.StartsWith("oom_kill ", StringComparison.Ordinal) && line != "oom_kill 0");

    /// <summary>The command that runs another in this group.</summary>
    public IReadOnlyList<string> Command(IEnumerable<string> command) =>
        ["sh", "-c", "echo $$ > \"$1\" && shift && exec \"$@\"", "sh", Path.Combine(_folder, "cgroup.procs"), .. command];

    /// <inheritdoc/>
    public void Dispose()
    {
        for (int attempt = 1; Directory.Exists(_folder); attempt++)
        {
            try
            {
                Directory.Delete(_folder); // its files are the kernel's, and go with it
                return;
            }
            catch (IOException e)
            {
                if (attempt == RemoveAttempts)
                {
                    Console.Error.WriteLine($"vsmp-bench: {_folder} cannot be removed: {e.Message}");
                    return;
                }
                Thread.Sleep(RemovePauseMilliseconds);
            }
        }
    }
}
