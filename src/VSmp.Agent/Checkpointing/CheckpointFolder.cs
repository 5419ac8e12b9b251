// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Checkpointing;

/// <summary>
/// The folder of a checkpoint: its generations (<see cref="CheckpointStore"/>), and the file <c>lock</c>, which whoever writes generations, or removes them, has locked. While generations are in the
/// memory of nodes, the folder has only that.
/// </summary>
internal sealed class CheckpointFolder
{
    private const string LockFile = "lock";

    /// <summary>How long to wait for another who has it locked: a job that has just ended may still be tidying up.</summary>
    private static readonly TimeSpan LockPatience = TimeSpan.FromSeconds(2);

    private readonly string _path;

    private CheckpointFolder(string path, IStorage? memory)
    {
        Name = System.IO.Path.GetFileName(path);
        (_path, IsInMemory) = (path, memory is not null);
        Store = new CheckpointStore(memory ?? new RepairingStorage(new DiskStorage(path)));
    }

    /// <summary>Where the current user's checkpoints are, each in the folder of its name.</summary>
    public static string DefaultRoot
    {
        get
        {
            if (Libc.GetEffectiveUserId() == 0) return "/var/lib/vsmp/checkpoints";
            string? state = Environment.GetEnvironmentVariable("XDG_STATE_HOME");
            if (string.IsNullOrEmpty(state)) state = System.IO.Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".local", "state");
            return System.IO.Path.Combine(state, "vsmp", "checkpoints");
        }
    }

    /// <summary>Whether it is in the memory of nodes.</summary>
    public bool IsInMemory { get; }

    /// <summary>What it is called.</summary>
    public string Name { get; }

    /// <summary>Where it is, from the root of the file system on, or in whose memory.</summary>
    public string Path => IsInMemory ? $"{Name} in the memory of nodes" : _path;

    /// <summary>The file that is locked.</summary>
    public string LockPath => System.IO.Path.Combine(_path, LockFile);

    /// <summary>Its generations; to be asked only if it <see cref="Exists"/>.</summary>
    public CheckpointStore Store { get; }

    /// <summary>Whether there is one: a folder with a generation, complete or not, or with the lock of who is about to write the first.</summary>
    /// <exception cref="IOException">It is there, and cannot be read.</exception>
    public bool Exists => IsInMemory ? Store.HasAny : Directory.Exists(_path) && (Store.HasAny || File.Exists(LockPath));

    /// <summary>The folder of a checkpoint, whether or not it is there.</summary>
    /// <param name="root">Where checkpoints are.</param>
    /// <param name="nameOrPath">Its name; or, if there is a slash in it, the path of its folder, which may have been copied.</param>
    /// <exception cref="CommandException">It is neither.</exception>
    public static CheckpointFolder At(string root, string nameOrPath)
    {
        bool isPath = nameOrPath.Contains('/');
        if (!isPath && !RunDirectory.IsValidName(nameOrPath))
        {
            throw new CommandException(ExitCodes.Usage,
                $"'{nameOrPath}' is no name of a checkpoint: letters, digits, '.', '_' and '-', 63 at most, a letter or digit first; write a folder's path with a slash, like ./{nameOrPath}");
        }
        return new CheckpointFolder(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(isPath ? nameOrPath : System.IO.Path.Combine(root, nameOrPath))), null);
    }

    /// <summary>A checkpoint in the memory of nodes.</summary>
    /// <param name="root">Where checkpoints on disk are: a job that writes it has locked a folder of its name there.</param>
    /// <param name="name">Its name.</param>
    /// <param name="memory">What the nodes have.</param>
    /// <exception cref="CommandException">It is no name.</exception>
    public static CheckpointFolder InMemory(string root, string name, IStorage memory) => RunDirectory.IsValidName(name)
        ? new CheckpointFolder(System.IO.Path.Combine(System.IO.Path.GetFullPath(root), name), memory)
        : throw new CommandException(ExitCodes.Usage, $"'{name}' is no name of a checkpoint in memory");

    /// <summary>The names of the checkpoints that there are, c2 before c10. What else may lie there is passed over; that a folder cannot be looked into is for who asks for that one.</summary>
    /// <exception cref="IOException">It cannot be read.</exception>
    /// <exception cref="UnauthorizedAccessException">As above.</exception>
    public static IReadOnlyList<string> In(string root) => !Directory.Exists(root) ? [] :
        [.. Directory.EnumerateDirectories(root).Select(path => System.IO.Path.GetFileName(path)).Where(RunDirectory.IsValidName).Where(name => MayBeOne(At(root, name))).Order(NaturalOrder.Instance)];

    /// <summary>Makes it, if it is not there, for its owner alone.</summary>
    /// <exception cref="IOException">It cannot be made.</exception>
    /// <exception cref="UnauthorizedAccessException">As above.</exception>
    public void Create() => _ = Directory.CreateDirectory(_path, WholeFile.OwnerOnly | UnixFileMode.UserExecute);

    /// <summary>As <see cref="TryLock"/>, and waits a little for who has it.</summary>
    /// <param name="isToBeMade">Whether the folder is made if it is not there, or not any more.</param>
    /// <returns>Ends it; null: somebody else has it, and keeps it.</returns>
    /// <exception cref="IOException">It is not there, cannot be made, or cannot be locked.</exception>
    public IDisposable? AwaitLock(bool isToBeMade)
    {
        long began = Stopwatch.GetTimestamp();
        while (true)
        {
            bool isLast = Stopwatch.GetElapsedTime(began) > LockPatience;
            try
            {
                if (isToBeMade) Create();
                if (TryLock() is { } taken) return taken;
            }
            catch (IOException) when (isToBeMade && !isLast && !Directory.Exists(_path))
            {
                // Who had it has removed it meanwhile.
            }
            if (isLast) return null;
            Thread.Sleep(10);
        }
    }

    /// <summary>Locks it against all others who do so, on any host that sees the same folder and its locks.</summary>
    /// <returns>Ends it; null: somebody else has it.</returns>
    /// <exception cref="IOException">It is not there, or cannot be locked.</exception>
    public IDisposable? TryLock()
    {
        if (IsInMemory && !Directory.Exists(_path)) return new MemoryStream(); // nobody writes it
        string path = LockPath;
        while (true)
        {
            int fd = Libc.Open(path, Libc.O_RDWR | Libc.O_CREAT | Libc.O_NOFOLLOW | Libc.O_NONBLOCK | Libc.O_CLOEXEC, (uint)WholeFile.OwnerOnly);
            if (fd < 0) throw Errno.Exception($"cannot open {path}");
            SafeFileHandle file = new(fd, ownsHandle: true);
            try
            {
                if (Libc.FLock(fd, Libc.LOCK_EX | Libc.LOCK_NB) < 0) return Errno.Last == Errno.EAGAIN ? null : throw Errno.Exception($"cannot lock {path}");
                // Who had it before may have deleted it, with the folder: then the lock is another's to take.
                if (FileStatus.Of(fd).Links == 0) continue;
                (IDisposable taken, file) = (file, null!);
                return taken;
            }
            finally
            {
                file?.Dispose();
            }
        }
    }

    /// <summary>Removes all generations, and the folder, unless there is something in it that no checkpoint has. It is to be locked.</summary>
    /// <returns>Whether the folder is gone.</returns>
    /// <exception cref="IOException">Something could not be removed.</exception>
    /// <exception cref="UnauthorizedAccessException">As above.</exception>
    public bool Remove()
    {
        Store.RemoveAll();
        if (IsInMemory) return true;
        if (Directory.EnumerateFileSystemEntries(_path).Any(path => System.IO.Path.GetFileName(path) != LockFile)) return false;
        File.Delete(LockPath);
        Directory.Delete(_path);
        return true;
    }

    private static bool MayBeOne(CheckpointFolder folder)
    {
        try { return folder.Exists; }
        catch (IOException) { return true; }
    }
}
