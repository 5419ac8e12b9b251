// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Control;

/// <summary>
/// Where the agents of one cluster keep their sockets on this host: <c>/run/vsmp/CLUSTER</c> for root,
/// <c>$XDG_RUNTIME_DIR/vsmp/CLUSTER</c> (or <c>/tmp/vsmp-UID/CLUSTER</c>) for others. One folder per agent, and the secret that
/// <c>vsmp up</c> makes.
/// </summary>
/// <param name="path">The cluster's folder.</param>
/// <param name="cluster">The cluster's name.</param>
internal sealed class RunDirectory(string path, string cluster)
{
    private const int MaxNameBytes = 63;
    private const string SystemBase = "/run/vsmp";

    /// <summary>The cluster's folder.</summary>
    public string Path { get; } = path;

    /// <summary>The cluster's name.</summary>
    public string Cluster { get; } = cluster;

    /// <summary>The cluster's secret, unless the administrator named another file.</summary>
    public string SecretFile => System.IO.Path.Combine(Path, "secret");

    /// <summary>The name of the soft-RoCE device that was made for the cluster, to be removed with it.</summary>
    public string SoftRoceFile => System.IO.Path.Combine(Path, "rxe");

    /// <summary>Where the current user's agents of a cluster have their folders.</summary>
    public static RunDirectory OfCurrentUser(string cluster) => new(System.IO.Path.Combine(UserBase(), cluster), cluster);

    /// <summary>
    /// The folders in which the current user may find a running agent of a cluster: the user's own, then the system's (for
    /// members of the group that its administrator named).
    /// </summary>
    public static IEnumerable<RunDirectory> Candidates(string cluster)
    {
        RunDirectory own = OfCurrentUser(cluster);
        yield return own;
        string system = System.IO.Path.Combine(SystemBase, cluster);
        if (own.Path != system) yield return new RunDirectory(system, cluster);
    }

    /// <summary>Whether the folder is there, but not for us.</summary>
    public bool IsClosedToUs => Directory.Exists(Path) && !UnixFile.MayExecute(Path);

    /// <summary>Whether a cluster, a node or a region may have this name: it becomes part of paths, tables and logs.</summary>
    public static bool IsValidName(string name) =>
        name.Length is > 0 and <= MaxNameBytes && char.IsAsciiLetterOrDigit(name[0])
        && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-');

    /// <summary>Makes the folder, closed to everybody but its owner (and the group, if one is named).</summary>
    public void Create(uint? groupId)
    {
        try
        {
            string parent = System.IO.Path.GetDirectoryName(Path)!;
            const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
            UnixFileMode parentMode = parent == SystemBase
                ? Private | UnixFileMode.GroupRead | UnixFileMode.GroupExecute
                    | UnixFileMode.OtherRead | UnixFileMode.OtherExecute
                : Private;
            Directory.CreateDirectory(parent, parentMode);
            Directory.CreateDirectory(Path, Private);
            CheckOwner(parent); // now that it cannot be removed and made by somebody else any more
            CheckOwner(Path);
            UnixFile.Restrict(Path, groupId, isDirectory: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException(ExitCodes.Failed, $"cannot make the run directory {Path}: {e.Message}");
        }
    }

    /// <summary>The folder of an agent, whether or not it is there.</summary>
    public AgentFolder Agent(string name) => new(this, name);

    /// <summary>The agents that have a folder here, running or not, by name (n2 before n10).</summary>
    public IReadOnlyList<AgentFolder> Agents()
    {
        try
        {
            return [.. Directory.EnumerateDirectories(Path)
                .Select(folder => System.IO.Path.GetFileName(folder))
                .Where(IsValidName)
                .Order(NaturalOrder.Instance)
                .Select(Agent)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    /// <summary>Makes a secret for the cluster if it has none.</summary>
    public void CreateSecret()
    {
        if (File.Exists(SecretFile)) return;
        string fresh = SecretFile + ".new";
        File.Delete(fresh);
        _ = ClusterSecret.Create(fresh);
        File.Move(fresh, SecretFile);
    }

    /// <summary>Removes the folder if no agent is left in it.</summary>
    public void RemoveIfEmpty()
    {
        if (Agents().Count > 0) return;
        try { Directory.Delete(Path, recursive: true); }
        catch (DirectoryNotFoundException) { }
        RemoveUserBase();
    }

    /// <summary>Removes the folder if nothing at all is in it.</summary>
    public void RemoveIfUnused()
    {
        try { Directory.Delete(Path); }
        catch (IOException) { } // something is, or somebody else was quicker
        RemoveUserBase();
    }

    /// <summary>Takes the lock that lets one <c>vsmp up</c> or <c>down</c> at a time change what runs; waits for it.</summary>
    public IDisposable Lock()
    {
        string lockFile = System.IO.Path.Combine(Path, "lock");
        long deadline = Environment.TickCount64 + 60_000;
        while (true)
        {
            try { return new FileStream(lockFile, FileMode.OpenOrCreate, System.IO.FileAccess.ReadWrite, FileShare.None); }
            catch (IOException) when (File.Exists(lockFile) && Environment.TickCount64 < deadline) { Thread.Sleep(50); }
            catch (IOException e)
            {
                throw new CommandException(ExitCodes.Failed,
                    $"cannot lock {lockFile}, another vsmp up or down may hang: {e.Message}");
            }
        }
    }

    /// <summary>With a user's last cluster goes what they are all in; the system's stays, as others' folders in /run do.</summary>
    private void RemoveUserBase()
    {
        string parent = System.IO.Path.GetDirectoryName(Path)!;
        if (parent == SystemBase) return;
        try { Directory.Delete(parent); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { } // it has other clusters in it, or is not ours
    }

    private static string UserBase()
    {
        uint user = Libc.GetEffectiveUserId();
        if (user == 0) return SystemBase;
        string? runtime = Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR");
        return string.IsNullOrEmpty(runtime) ? $"/tmp/vsmp-{user}" : System.IO.Path.Combine(runtime, "vsmp");
    }

    private static void CheckOwner(string folder)
    {
        // In /tmp somebody else could have made the folder, or a link, before us, and would then own our sockets.
        const uint TypeMask = 0xF000, DirectoryType = 0x4000, OthersMayWrite = 0x12;
        var look = UnixFile.Look(folder, followLink: false);
        if (look is not { } found || (found.Mode & TypeMask) != DirectoryType
            || (found.UserId != Libc.GetEffectiveUserId() && found.UserId != 0) || (found.Mode & OthersMayWrite) != 0)
        {
            throw new CommandException(ExitCodes.Refused,
                $"{folder} belongs to another user, or others may write to it: remove it, or set XDG_RUNTIME_DIR");
        }
    }
}
