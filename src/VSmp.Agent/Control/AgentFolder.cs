// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Control;

/// <summary>
/// What one agent keeps in its run directory: its sockets, its log, who it is and who its guests are, and the mount point of its
/// frames. While it runs it holds the lock on the file <c>lock</c>, which the kernel lets go of when it
/// dies, however it dies.
/// </summary>
internal sealed class AgentFolder
{
    private const int ExitTimeoutMilliseconds = 5_000;

    /// <summary>A keeper whose agent was killed waits for its guests' end for 5 s at most, then ends itself.</summary>
    private const int KeeperEndMilliseconds = 6_000;

    /// <summary>The folder of an agent of this name.</summary>
    public AgentFolder(RunDirectory directory, string name)
    {
        Name = name;
        RunDirectory = directory;
        Path = System.IO.Path.Combine(directory.Path, name);
    }

    /// <summary>The agent's name.</summary>
    public string Name { get; }

    /// <summary>The cluster's folder.</summary>
    public RunDirectory RunDirectory { get; }

    /// <summary>The agent's folder.</summary>
    public string Path { get; }

    /// <summary>The socket of <see cref="ControlServer"/>.</summary>
    public string ControlSocket => File("control.sock");

    /// <summary>The socket of the guests.</summary>
    public string GuestSocket => File("guest.sock");

    /// <summary><c>pid starttime</c> of the agent.</summary>
    public string PidFile => File("agent.pid");

    /// <summary><c>pid starttime</c> of the keeper that started the agent; not there if none has.</summary>
    public string KeeperFile => File("keeper.pid");

    /// <summary>What the agent and its keeper print, if <c>vsmp up</c> started them.</summary>
    public string LogFile => File("agent.log");

    /// <summary>Mount point of the agent's tmpfs.</summary>
    public string Frames => File("frames");

    /// <summary>A line <c>pid starttime</c> for each attached guest, kept by the agent: who is to be ended if it dies.</summary>
    public string GuestsFile => File("guests");

    /// <summary>Is there if the agent is of a development cluster: faults may be injected, and the agent be killed and paused.</summary>
    public string DevelopmentFile => File("development");

    /// <summary>Which member of the cluster the agent is (<see cref="Membership.MemberIdentity"/>), for one that is started after it.</summary>
    public string MemberFile => File("member");

    /// <summary>What runs there are (<see cref="Guests.RunRecord"/>), for an agent that is started after this one.</summary>
    public string RunsFolder => File("runs");

    /// <summary>What jobs it leads (<see cref="Jobs.JobJournal"/>), for an agent that is started after this one.</summary>
    public string JobsFolder => File("jobs");

    /// <summary>Whether the folder is there.</summary>
    public bool Exists => Directory.Exists(Path);

    /// <summary>The agent, if it runs: who can be asked.</summary>
    public ProcessIdentity? Running() => Alive(PidFile);

    /// <summary>The keeper that started the agent, if it runs.</summary>
    public ProcessIdentity? Keeper() => Alive(KeeperFile);

    /// <summary>Who lives as long as the node does: its keeper or, if it has none, its agent. Null: the node is dead.</summary>
    public ProcessIdentity? Node() => Keeper() ?? Running();

    /// <summary>Records the guests that the agent has attached, for whoever cleans up behind it, should it die.</summary>
    /// <exception cref="IOException">The file cannot be written; it is as it was.</exception>
    public void WriteGuests(IEnumerable<ProcessIdentity> guests) => Replace(GuestsFile, string.Concat(guests.Select(guest => $"{guest}\n")));

    /// <summary>The guests that the agent had attached, and that live.</summary>
    public IReadOnlyList<ProcessIdentity> Guests()
    {
        try
        {
            return [.. System.IO.File.ReadAllLines(GuestsFile)
                .Select(line => ProcessIdentity.Parse(line))
                .OfType<ProcessIdentity>()
                .Where(guest => guest.IsAlive)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    /// <summary>Whether the node is dead; one whose agent is dead while its keeper lives gets the time that such a keeper takes to end.</summary>
    public bool IsDead()
    {
        if (Running() is not null) return false;
        return Keeper() is not { } keeper || ProcessControl.WaitForExit(keeper, KeeperEndMilliseconds);
    }

    /// <summary>
    /// Makes the folder and takes it for this process, for as long as the result is not disposed of. What an agent of that name
    /// left behind when it crashed is cleaned up first, unless this one takes it over.
    /// </summary>
    /// <param name="groupId">A group whose members may use the agent, or null.</param>
    /// <param name="cleaned">What was found and done, in words for the user.</param>
    /// <param name="keeper">Who has started this process and holds what must outlive it, or null.</param>
    /// <param name="takesOver">Whether this agent goes on with the frames and the guests that are there.</param>
    /// <exception cref="CommandException">Another agent of that name runs, or a path is too long for a socket.</exception>
    public IDisposable Claim(uint? groupId, out IReadOnlyList<string> cleaned, ProcessIdentity? keeper = null, bool takesOver = false)
    {
        if (Encoding.UTF8.GetByteCount(ControlSocket) > UnixSocket.MaxPathBytes)
        {
            throw new CommandException(ExitCodes.Usage,
                $"the socket path {ControlSocket} would be longer than the {UnixSocket.MaxPathBytes} bytes that "
                + "the kernel allows: use a shorter cluster or agent name");
        }
        RunDirectory.Create(groupId);
        FileStream? claim = null;
        try
        {
            Directory.CreateDirectory(Path);
            UnixFile.Restrict(Path, groupId, isDirectory: true);
            claim = new FileStream(File("lock"), FileMode.OpenOrCreate, System.IO.FileAccess.ReadWrite, FileShare.None);
            if (Keeper() is { } other && other != keeper && !ProcessControl.WaitForExit(other, KeeperEndMilliseconds)) throw Taken();
            cleaned = takesOver ? [] : Sweep();
            DeleteRuntimeFiles();
            if (keeper is not null) Replace(KeeperFile, $"{keeper}\n");
            Replace(PidFile, $"{ProcessIdentity.Of(Environment.ProcessId)}\n");
            return claim;
        }
        catch (IOException) when (claim is null && Exists)
        {
            throw Taken();
        }
        catch (Exception e)
        {
            claim?.Dispose();
            if (e is IOException or UnauthorizedAccessException)
            {
                throw new CommandException(ExitCodes.Failed, $"cannot set up {Path}: {e.Message}");
            }
            throw;
        }
    }

    /// <summary>
    /// Cleans up behind an agent that does not run (or is about to end): ends the guests that it left, unmounts its frames,
    /// removes its files.
    /// </summary>
    /// <param name="keepLog">Whether to leave the folder, with the log in it.</param>
    /// <returns>What was found and done, in words for the user; empty when there was nothing but files.</returns>
    public IReadOnlyList<string> CleanUp(bool keepLog)
    {
        try
        {
            IReadOnlyList<string> done = Sweep();
            if (!keepLog && Exists) Directory.Delete(Path, recursive: true);
            return done;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException(ExitCodes.Failed, $"cannot remove {Path}: {e.Message}");
        }
    }

    /// <summary>Everything but the folder itself and the log.</summary>
    private List<string> Sweep()
    {
        List<string> done = [];
        int guests = EndGuests();
        if (guests > 0) done.Add($"ended {guests} leftover {(guests == 1 ? "guest" : "guests")} of agent {Name}");
        bool wasMounted = false;
        while (UnixFile.IsMounted(Frames))
        {
            if (Libc.Unmount(Frames, Libc.MNT_DETACH) < 0)
            {
                throw new CommandException(ExitCodes.Failed,
                    $"cannot unmount {Frames}: {Errno.Text(Errno.Last)}; unmount it as root");
            }
            wasMounted = true;
        }
        if (wasMounted) done.Add($"unmounted the frames of agent {Name}");
        if (!Exists) return done;
        DeleteRuntimeFiles();
        foreach (string file in new[] { ControlSocket, GuestSocket, GuestsFile, DevelopmentFile, MemberFile, PidFile, KeeperFile }) System.IO.File.Delete(file);
        if (Directory.Exists(Frames)) Directory.Delete(Frames, recursive: true);
        foreach (string folder in new[] { RunsFolder, JobsFolder })
        {
            if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
        }
        return done;
    }

    /// <summary>An agent that was killed has left them.</summary>
    private void DeleteRuntimeFiles()
    {
        if (Read(PidFile) is { IsAlive: false } former) RuntimeFiles.Delete(former);
    }

    /// <summary>Whoever reads it meanwhile finds the one or the other: where an agent takes over, nobody is to find the node dead.</summary>
    private static void Replace(string path, string text) => WholeFile.Replace(path, Encoding.UTF8.GetBytes(text));

    private string File(string name) => System.IO.Path.Combine(Path, name);

    private CommandException Taken() => new(ExitCodes.Taken,
        $"the name {Name} is taken: an agent of that name runs already in cluster {RunDirectory.Cluster} on this host");

    private static ProcessIdentity? Alive(string file) => Read(file) is { IsAlive: true } process ? process : null;

    private static ProcessIdentity? Read(string file)
    {
        try
        {
            return ProcessIdentity.Parse(System.IO.File.ReadAllText(file));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private int EndGuests()
    {
        int ended = 0;
        foreach (ProcessIdentity guest in Guests())
        {
            if (!ProcessControl.Signal(guest, Signals.SIGKILL)) continue;
            _ = ProcessControl.WaitForExit(guest, ExitTimeoutMilliseconds);
            ended++;
        }
        return ended;
    }
}
