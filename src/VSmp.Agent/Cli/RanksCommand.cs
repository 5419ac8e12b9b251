// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Text;
using System.Text.Json;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>
/// What an agent starts when a <c>vsmp spmd</c> on another host wants ranks here; not for people. It becomes the user who runs that, takes
/// its orders from the agent, starts the ranks, passes on what they print and how they end, and ends with them.
/// </summary>
internal sealed class RanksCommand : IRunListener
{
    /// <summary>The command's name.</summary>
    public const string Name = "spmd-ranks";

    private const int ChunkBytes = 16 * 1024;
    private const int DrainMilliseconds = 2_000;

    private readonly Lock _lock = new();
    private readonly Dictionary<int, StartedRank> _ranks = []; // by process; under the lock
    private readonly RankInput _input = new(0);
    private readonly List<int> _earlySignals = []; // under the lock: for ranks that are not started yet
    private bool _isKilled; // under the lock: no rank is to be started any more
    private ControlClient _client = null!;

    private RanksCommand()
    {
    }

    /// <summary>The command.</summary>
    public static Command New()
    {
        Argument<string> folder = new("FOLDER"), agent = new("AGENT");
        Argument<uint> user = new("USER"), group = new("GROUP");
        Command command = CommandLine.NewCommand(Name, "Start ranks for vsmp spmd on another host (agents run this).");
        command.Hidden = true;
        foreach (Argument argument in new Argument[] { folder, agent, user, group }) command.Arguments.Add(argument);
        command.SetAction(parsed =>
        {
            BecomeUser(parsed.GetValue(user), parsed.GetValue(group));
            RunDirectory directory = new(parsed.GetValue(folder)!, parsed.GetValue(CommandLine.ClusterOption)!);
            return new RanksCommand().Run(directory.Agent(parsed.GetValue(agent)!));
        });
        return command;
    }

    /// <inheritdoc/>
    public void OnMessage(string text) => CommandLine.Say(text);

    /// <inheritdoc/>
    public void OnGuestAttached(int processId, int userfaultfd) => _ = Libc.Close(userfaultfd); // not on this connection

    /// <inheritdoc/>
    public void OnGuestDetached(int processId)
    {
    }

    /// <inheritdoc/>
    public void OnSignalRanks(int signal)
    {
        lock (_lock)
        {
            foreach (int processId in _ranks.Keys) _ = Libc.Kill(processId, signal); // children that we have not reaped
            if (signal == Signals.SIGKILL) _isKilled = true;
            else if (!_earlySignals.Contains(signal)) _earlySignals.Add(signal);
        }
    }

    /// <inheritdoc/>
    public void OnRankInput(int rank, byte[] data)
    {
        if (rank == 0) _input.Add(data); // no other has any
    }

    /// <inheritdoc/>
    public void OnAgentLost() => OnSignalRanks(Signals.SIGKILL);

    /// <summary>Gives up every right that the user has not: the only group is the one that he came with.</summary>
    private static unsafe void BecomeUser(uint userId, uint groupId)
    {
        if (Libc.GetEffectiveUserId() != 0)
        {
            if (Libc.GetEffectiveUserId() != userId) throw new CommandException(ExitCodes.NotPermitted, $"cannot start ranks as user {userId}");
            return;
        }
        // SAFETY: one group, on this stack. The C library does this for all threads of the process.
        if (Libc.SetGroups(1, &groupId) < 0 || Libc.SetGroupId(groupId) < 0 || Libc.SetUserId(userId) < 0)
        {
            throw new CommandException(ExitCodes.NotPermitted, $"cannot become user {userId}: {Errno.Text(Errno.Last)}");
        }
        // It must not come back: then nothing of what follows runs with root's rights.
        if (userId != 0 && Libc.SetUserId(0) == 0) throw new CommandException(ExitCodes.NotPermitted, $"user {userId} could become root again");
    }

    private int Run(AgentFolder agent)
    {
        _client = ControlClient.Connect(agent, this);
        RankOrders orders = _client.TakeRanks();
        HashSet<int> toEnd = [.. orders.Program.Ranks];
        using SpmdAgent run = new(agent, _ => { });
        try
        {
            run.Begin(new RunRequest(null, orders.Program.Name, orders.Program.LocalBytes, Environment.ProcessId, 0, new JobMembership(orders.Job, orders.Token)));
            StartAll(orders, run);
        }
        catch (CommandException e)
        {
            OnSignalRanks(Signals.SIGKILL);
            CommandLine.Say(e.Message);
            lock (_lock)
            {
                foreach (StartedRank started in _ranks.Values) _ = toEnd.Remove(started.Number); // they end like others
            }
            foreach (int rank in toEnd) _client.RankEnded(rank, isSignaled: false, e.ExitCode, $"rank {rank} could not be started on {agent.Name}: {e.Message}");
        }
        AwaitAll(agent.Name, run);
        _ = run.End();
        return ExitCodes.Ok;
    }

    private void StartAll(RankOrders orders, SpmdAgent run)
    {
        try { Environment.CurrentDirectory = orders.Program.Directory; }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException(ExitCodes.RunFailed, $"there is no such directory for the user there: {orders.Program.Directory}");
        }
        EnvironmentBlock environment = EnvironmentBlock.Of(orders.Program.Environment);
        byte[][] words = orders.Program.Arguments;
        ProgramFile program = ProgramFile.FindAny(Encoding.UTF8.GetString(words[0].AsSpan().TrimEnd((byte)0)), environment.Get("PATH"));
        byte[][] arguments = [words[0], .. program.LeadingArguments.Select(ProcessSpawn.Bytes), .. words.AsSpan(1)];
        RankEnvironment.AddLibrary(environment);
        RankEnvironment.AddJob(environment, orders.Token, orders.Size);
        using ProgramLimits limits = ProgramLimits.Inherited();
        foreach (int number in orders.Program.Ranks)
        {
            (int outputEnd, int output) = NewPipe();
            (int errorEnd, int error) = NewPipe();
            (int input, int inputEnd) = number == 0 ? NewPipe() : (-1, -1);
            int pid;
            lock (_lock)
            {
                pid = _isKilled ? -Errno.EINTR
                    : ProcessSpawn.WithStreams(ProcessSpawn.Bytes(program.Path), arguments,
                        RankEnvironment.OfRank(environment, number, run.GuestSocket), input, output, error);
                _ = Libc.Close(output);
                _ = Libc.Close(error);
                if (input >= 0) _ = Libc.Close(input);
                if (pid > 0)
                {
                    _ranks.Add(pid, new StartedRank(number, [Pass(number, RankStream.Output, outputEnd), Pass(number, RankStream.Error, errorEnd)]));
                    foreach (int signal in _earlySignals) _ = Libc.Kill(pid, signal);
                }
            }
            if (pid > 0)
            {
                if (number == 0) _input.Start(_client, inputEnd);
                continue;
            }
            if (inputEnd >= 0) _ = Libc.Close(inputEnd);
            _ = Libc.Close(outputEnd);
            _ = Libc.Close(errorEnd);
            throw new CommandException(ExitCodes.CannotExecute, $"cannot run {program.Path}: {Errno.Text(-pid)}");
        }
    }

    private static unsafe (int ReadEnd, int WriteEnd) NewPipe()
    {
        int* ends = stackalloc int[2];
        // SAFETY: the kernel writes two numbers, on this stack.
        return Libc.Pipe(ends, Libc.O_CLOEXEC) == 0 ? (ends[0], ends[1]) : throw new CommandException(ExitCodes.RunFailed, $"cannot make a pipe: {Errno.Text(Errno.Last)}");
    }

    private Thread Pass(int rank, int stream, int fd)
    {
        Thread thread = new(() => PassAll(rank, stream, fd)) { Name = $"rank {rank}", IsBackground = true };
        thread.Start();
        return thread;
    }

    private unsafe void PassAll(int rank, int stream, int fd)
    {
        byte[] chunk = new byte[ChunkBytes];
        while (true)
        {
            nint got;
            // SAFETY: pinned for the call, which writes no more than the array holds.
            fixed (byte* start = chunk) got = Libc.Read(fd, start, (nuint)chunk.Length);
            if (got < 0 && Errno.Last == Errno.EINTR) continue;
            if (got <= 0) break;
            try { _client.PassOutput(rank, stream, chunk[..(int)got]); }
            catch (CommandException) { break; } // the agent is lost; so are the ranks
        }
        _ = Libc.Close(fd);
    }

    private void AwaitAll(string node, SpmdAgent run)
    {
        while (true)
        {
            lock (_lock)
            {
                if (_ranks.Count == 0) return;
            }
            if (ProcessControl.WaitForAnyChild() is not { } exit) return;
            StartedRank? ended;
            bool isLast;
            lock (_lock)
            {
                if (!_ranks.Remove(exit.ProcessId, out ended)) continue;
                isLast = _ranks.Count == 0;
            }
            // What it has started may hold its streams open, and print on.
            foreach (Thread reader in ended.Readers) _ = reader.Join(DrainMilliseconds);
            string how = exit.IsSignaled
                ? $"rank {ended.Number} (process {exit.ProcessId} on {node}) was killed by signal {exit.Status}"
                : $"rank {ended.Number} (process {exit.ProcessId} on {node}) ended with exit code {exit.Status}";
            try
            {
                // Before its end, after which nobody would wait for anything; the run itself ends later, with the job's regions.
                if (isLast && run.GetFigures() is { } figures)
                {
                    _client.PassOutput(ended.Number, RankStream.Figures, JsonSerializer.SerializeToUtf8Bytes(figures, ControlJson.Default.RunStatistics));
                }
                _client.RankEnded(ended.Number, exit.IsSignaled, exit.Status, how);
            }
            catch (CommandException) { } // the agent is lost, and with it whoever would hear of it
        }
    }

    private sealed record StartedRank(int Number, Thread[] Readers);
}
