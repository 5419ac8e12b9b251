// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Checkpointing;

/// <summary>The folder of a checkpoint: its generations (<see cref="CheckpointStore"/>), and the file <c>lock</c>, which whoever changes it holds.</summary>
internal sealed class CheckpointFolder
{
    private const string LockFile = "lock";

    private CheckpointFolder(string path)
    {
        Path = path;
        Name = System.IO.Path.GetFileName(path);
        Store = new CheckpointStore(new DiskStorage(path));
    }

    /// <summary>Where checkpoints are if nobody says otherwise.</summary>
    public static string DefaultRoot
    {
        get
        {
            if (Libc.GetEffectiveUserId() == 0) return "/var/lib/vsmp/checkpoints";
            string? state = Environment.GetEnvironmentVariable("XDG_STATE_HOME");
            string home = state is { Length: > 0 } ? state : System.IO.Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".local", "state");
            return System.IO.Path.Combine(home, "vsmp", "checkpoints");
        }
    }

    /// <summary>Its name.</summary>
    public string Name { get; }

    /// <summary>Where it is.</summary>
    public string Path { get; }

    /// <summary>Its generations.</summary>
    public CheckpointStore Store { get; }

    /// <summary>Whether it is there.</summary>
    public bool Exists => Directory.Exists(Path);

    /// <summary>The folder of a checkpoint, whether or not it is there.</summary>
    /// <param name="root">The folder that checkpoints are in.</param>
    /// <param name="nameOrPath">Its name; or, with a slash, the path of a folder that may be a copy.</param>
    public static CheckpointFolder At(string root, string nameOrPath) =>
        new(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(nameOrPath.Contains('/') ? nameOrPath : System.IO.Path.Combine(root, nameOrPath))));

    /// <summary>The checkpoints that there are, by name.</summary>
    /// <exception cref="IOException">The folder that they are in cannot be read.</exception>
    public static IReadOnlyList<CheckpointFolder> In(string root) => !Directory.Exists(root) ? [] :
        [.. Directory.EnumerateDirectories(root).Where(path => RunDirectory.IsValidName(System.IO.Path.GetFileName(path)))
            .OrderBy(path => System.IO.Path.GetFileName(path), NaturalOrder.Instance).Select(path => new CheckpointFolder(path))];

    /// <summary>Makes it, if it is not there, for its owner alone.</summary>
    public void Create() => _ = Directory.CreateDirectory(Path, WholeFile.OwnerOnly | UnixFileMode.UserExecute);

    /// <summary>Locks it against whoever else would change it.</summary>
    /// <returns>Unlocks; null: somebody has it.</returns>
    /// <exception cref="IOException">It cannot be locked.</exception>
    public IDisposable? TryLock()
    {
        try
        {
            return new FileStream(System.IO.Path.Combine(Path, LockFile), new FileStreamOptions
            {
                Mode = FileMode.OpenOrCreate,
                Access = FileAccess.ReadWrite,
                Share = FileShare.None,
                UnixCreateMode = WholeFile.OwnerOnly,
            });
        }
        catch (IOException e) when (e.HResult == Errno.EAGAIN) { return null; }
    }
}
