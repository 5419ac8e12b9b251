// SPDX-License-Identifier: Apache-2.0
using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>
/// Stands beside the ranks of a job: starts them, passes streams and signals on, tells the job's leader how each ended, and ends those
/// that are left when one has failed.
/// </summary>
internal sealed class SpmdSupervisor : IRunListener, IDisposable
{
    /// <summary>How long ranks have to end by themselves after one has failed; then SIGTERM, and as long again, SIGKILL.</summary>
    private const int GraceMilliseconds = 3_000;

    private readonly AgentFolder _leaderFolder;
    private readonly IReadOnlyList<AgentFolder> _agentsHere;
    private readonly ControlClient _leader;
    private readonly List<SpmdAgent> _agents = [];
    private readonly List<PosixSignalRegistration> _signals = [];
    private readonly Lock _lock = new();
    private readonly Dictionary<int, Rank> _ranks = []; // by process; under the lock
    private readonly Dictionary<int, Rank> _remote = []; // on other hosts, by number; under the lock
    private readonly BlockingCollection<(Rank Rank, ChildExit Exit)> _ended = [];
    private readonly ManualResetEventSlim _isOver = new();
    private readonly Dictionary<string, RunStatistics> _figures = []; // by node; of other hosts under the lock, and complete when their ranks have ended
    private JobTicket _ticket = null!;
    private SpmdInput? _input; // if rank 0 is on another host
    private Thread? _ender;
    private volatile bool _isAgentLost;
    private volatile bool _isJobLost; // its leader ends it, whichever way its ranks end then
    private volatile bool _isClosing;
    private volatile bool _haveAllEnded; // the ranks: what becomes of the leader is of no account
    private volatile int _passedSignal; // the last; 0: none
    private bool _isPerhapsConsequence; // of that signal: the end that the exit code is of
    private int _exitCode;

    /// <summary>Whether the job is begun again if a node is lost: then nothing that its ranks could still do is of any use.</summary>
    public bool IsRestartable { get; init; }

    /// <summary>Whether it could not go on because a node, or its agent, was lost.</summary>
    public bool HasLostNode => _isAgentLost || _isJobLost;

    /// <summary>The generation of its checkpoint that it has gone on from; 0: none.</summary>
    public uint Restored => _ticket.Restored;

    /// <summary>Connects to the agent that is to lead the job.</summary>
    public SpmdSupervisor(AgentFolder leader, IReadOnlyList<AgentFolder> agentsHere)
    {
        _leaderFolder = leader;
        _agentsHere = agentsHere;
        _leader = ControlClient.Connect(leader, this);
    }

    /// <summary>Begins the job, and its run at each agent of this host that has ranks of it.</summary>
    public void Begin(JobRequest request, ulong? localBytes)
    {
        _ticket = _leader.BeginJob(request);
        foreach (string node in _ticket.Placement.Distinct())
        {
            if (_agentsHere.FirstOrDefault(agent => agent.Name == node) is not { } folder) continue; // on another host
            SpmdAgent agent = new(folder, OnNodeLost);
            _agents.Add(agent);
            agent.Begin(new RunRequest(null, request.Program, localBytes, Environment.ProcessId, 0, new JobMembership(_ticket.Job, _ticket.Token)));
        }
    }

    /// <summary>Runs the ranks to their end.</summary>
    /// <returns>The exit code: the first that was not 0.</returns>
    public int Run(ProgramFile program, byte[][] words, EnvironmentBlock environment, ulong? localBytes, FileStream? statistics)
    {
        ProcessControl.AdoptDescendants();
        _signals.AddRange(PassedSignals.Register(OnSignal));
        byte[][] arguments = [words[0], .. program.LeadingArguments.Select(ProcessSpawn.Bytes), .. words.AsSpan(1)];
        var watch = Stopwatch.StartNew();
        StartElsewhere(words, environment, localBytes);
        StartHere(program, arguments, environment);
        new Thread(AwaitChildren) { Name = "children", IsBackground = true }.Start();
        for (int left = _ticket.Placement.Count; left > 0; left--)
        {
            (Rank rank, ChildExit exit) = _ended.Take();
            OnEnded(rank, exit);
        }
        double wallSeconds = watch.Elapsed.TotalSeconds;
        _haveAllEnded = true;
        _isOver.Set();
        _ender?.Join();
        if (_isAgentLost)
        {
            foreach (SpmdAgent agent in _agents) agent.KillGuests();
        }
        try { _leader.EndJob(); }
        catch (CommandException) { } // lost, and told
        foreach (SpmdAgent agent in _agents)
        {
            if (agent.End() is { } figures) _figures[agent.Name] = figures;
        }
        if (statistics is not null && !(IsRestartable && HasLostNode)) Write(statistics, wallSeconds); // else the next attempt does
        return _isAgentLost || _isJobLost ? ExitCodes.AgentLost : _exitCode;
    }

    /// <inheritdoc/>
    public void OnMessage(string text) => CommandLine.Say($"{_leaderFolder.Name}: {text}");

    /// <inheritdoc/>
    public void OnJobLost()
    {
        _isJobLost = true;
        if (IsRestartable) EndTheOthers("the job has lost a node");
    }

    /// <inheritdoc/>
    public void OnGuestAttached(int processId, int userfaultfd) => _ = Libc.Close(userfaultfd); // not on this connection

    /// <inheritdoc/>
    public void OnGuestDetached(int processId) { }

    /// <inheritdoc/>
    public void OnRankOutput(int rank, int stream, byte[] data)
    {
        if (stream != RankStream.Figures)
        {
            Output.Pass(stream, data);
            return;
        }
        RunStatistics? figures;
        try { figures = JsonSerializer.Deserialize(data, ControlJson.Default.RunStatistics); }
        catch (JsonException) { figures = null; }
        lock (_lock)
        {
            if (figures is not null && _remote.TryGetValue(rank, out Rank? told)) _figures[told.Node] = figures;
        }
    }

    /// <inheritdoc/>
    public void OnRankInputTaken(int rank) => _input?.OnTaken();

    /// <inheritdoc/>
    public void OnRankEnded(int rank, bool isSignaled, int status, string text)
    {
        Rank? ended;
        lock (_lock)
        {
            if (!_remote.Remove(rank, out ended)) return;
        }
        _ended.Add((ended with { How = text }, new ChildExit(0, isSignaled, status)));
    }

    /// <inheritdoc/>
    public void OnAgentLost()
    {
        // Nobody will tell how ranks on other hosts end; their agents lose the leader too, and end them.
        Rank[] unknown;
        lock (_lock)
        {
            unknown = [.. _remote.Values];
            _remote.Clear();
        }
        string text = $"agent {_leaderFolder.Name} was lost";
        foreach (Rank rank in unknown) _ended.Add((rank with { How = text }, new ChildExit(0, false, ExitCodes.AgentLost)));
        // Where the leader has ranks, its other connection says so as well.
        if (!_isClosing && !_haveAllEnded) OnLost(_leaderFolder.Name);
    }

    /// <inheritdoc/>
    public void OnResumed(TimeSpan away)
    {
        // Where the leader has ranks, its other connection says so.
        if (!_agents.Exists(agent => agent.Name == _leaderFolder.Name)) CommandLine.Say(CommandLine.AgentIsBack(_leaderFolder.Name, away));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isClosing) return;
        _isClosing = true;
        _isOver.Set();
        foreach (PosixSignalRegistration registration in _signals) registration.Dispose();
        foreach (SpmdAgent agent in _agents) agent.Dispose();
        _leader.Dispose();
    }

    private void Write(FileStream file, double wallSeconds)
    {
        lock (_lock)
        {
            JobStatistics statistics = new(wallSeconds, _ticket.Protocol, _ticket.Placement,
                _ticket.Placement.Distinct().Where(_figures.ContainsKey).ToDictionary(node => node, node => _figures[node]));
            RunCommand.WriteStatistics(file, statistics, ReportJson.Default.JobStatistics);
        }
    }

    private void StartElsewhere(byte[][] words, EnvironmentBlock environment, ulong? localBytes)
    {
        int[] remote = [.. Enumerable.Range(0, _ticket.Placement.Count).Where(rank => _agents.TrueForAll(agent => agent.Name != _ticket.Placement[rank]))];
        if (remote.Length == 0) return;
        lock (_lock)
        {
            foreach (int rank in remote) _remote.Add(rank, new Rank(rank, 0, _ticket.Placement[rank], null));
        }
        _leader.StartRanks(new RankProgram(remote, words, environment.Entries, Environment.CurrentDirectory, localBytes,
            Path.GetFileName(System.Text.Encoding.UTF8.GetString(words[0].AsSpan().TrimEnd((byte)0)))));
        if (!remote.Contains(0)) return;
        _input = new SpmdInput(_leader, 0);
        _input.Start();
    }

    private void AwaitChildren()
    {
        while (true)
        {
            lock (_lock)
            {
                if (_ranks.Count == 0) return;
            }
            if (ProcessControl.WaitForAnyChild() is not { } exit) return;
            Rank? ended;
            lock (_lock)
            {
                if (!_ranks.Remove(exit.ProcessId, out ended)) continue;
                ended.Process?.Dispose();
            }
            _ended.Add((ended, exit));
        }
    }

    private void StartHere(ProgramFile program, byte[][] arguments, EnvironmentBlock environment)
    {
        RankEnvironment.AddLibrary(environment);
        RankEnvironment.AddJob(environment, _ticket.Token, _ticket.Placement.Count);
        byte[] path = ProcessSpawn.Bytes(program.Path);
        using ProgramLimits limits = ProgramLimits.Inherited();
        lock (_lock)
        {
            for (int number = 0; number < _ticket.Placement.Count; number++)
            {
                if (_agents.Find(a => a.Name == _ticket.Placement[number]) is not { } agent) continue;
                byte[][] entries = RankEnvironment.OfRank(environment, number, agent.GuestSocket);
                int pid = number == 0 ? ProcessSpawn.Foreground(path, arguments, entries) : ProcessSpawn.WithoutInput(path, arguments, entries);
                if (pid < 0)
                {
                    foreach (Rank started in _ranks.Values) Signal(started, Signals.SIGKILL);
                    throw new CommandException(ExitCodes.CannotExecute, $"cannot run {program.Path}: {Errno.Text(-pid)}");
                }
                _ranks.Add(pid, new Rank(number, pid, agent.Name, ProcessControl.Open(pid)));
            }
        }
    }

    private void SignalAll(int signal, bool here = true)
    {
        bool hasRemote;
        lock (_lock)
        {
            hasRemote = _remote.Count > 0;
            if (here)
            {
                foreach (Rank rank in _ranks.Values) Signal(rank, signal);
            }
        }
        if (!hasRemote) return;
        try { _leader.SignalRanks(signal); }
        catch (CommandException) { } // lost, and told
    }

    private static void Signal(Rank rank, int signal)
    {
        if (rank.Process is not null) _ = ProcessControl.Signal(rank.Process, signal);
    }

    private void OnEnded(Rank rank, ChildExit exit)
    {
        string how = rank.How ?? (exit.IsSignaled
            ? $"rank {rank.Number} (process {rank.ProcessId} on {rank.Node}) was killed by signal {exit.Status}"
            : $"rank {rank.Number} (process {rank.ProcessId} on {rank.Node}) ended with exit code {exit.Status}");
        // Whom its keeper has killed since the agent is dead, or who could not go on without it, may be seen to end first.
        if ((exit.IsSignaled || exit.Status != 0) && _agents.Exists(agent => agent.Name == rank.Node && agent.IsGone)) OnLost(rank.Node);
        try { _leader.ReportRank(rank.Number, how); }
        catch (CommandException) { } // lost, and told
        if (!exit.IsSignaled && exit.Status == 0) return;
        bool isFirst = _exitCode == 0, isByPassedSignal = exit.IsSignaled && exit.Status == _passedSignal;
        if (!isFirst && !(isByPassedSignal && _isPerhapsConsequence)) return;
        _exitCode = exit.IsSignaled ? ExitCodes.SignalBase + exit.Status : exit.Status;
        // Whom a signal ends that was passed on may be seen to end after others who cannot go on without it.
        _isPerhapsConsequence = !exit.IsSignaled && _passedSignal != 0;
        if (isFirst) EndTheOthers(how);
    }

    private void OnNodeLost(SpmdAgent agent) => OnLost(agent.Name);

    private void OnLost(string agent)
    {
        if (_isAgentLost) return;
        _isAgentLost = true;
        EndTheOthers($"agent {agent} was lost");
    }

    /// <summary>Gives the ranks that are left a moment to see it and to end by themselves; then ends them.</summary>
    private void EndTheOthers(string why)
    {
        lock (_lock)
        {
            if (_ender is not null) return;
            string others = (_ranks.Count + _remote.Count) switch
            {
                0 => "",
                1 => "; the job cannot go on, the other rank is ended",
                int count => $"; the job cannot go on, the other {count} ranks are ended",
            };
            CommandLine.Say(why + others);
            _ender = new Thread(() =>
            {
                if (IsRestartable && HasLostNode) SignalAll(Signals.SIGKILL);
                foreach (int signal in new[] { Signals.SIGTERM, Signals.SIGKILL })
                {
                    if (_isOver.Wait(GraceMilliseconds)) return;
                    SignalAll(signal);
                }
            })
            { Name = "ender", IsBackground = true };
            _ender.Start();
        }
    }

    private void OnSignal(PosixSignalContext context)
    {
        context.Cancel = true;
        int signal = PassedSignals.NumberOf(context.Signal);
        bool isFromTerminal = PassedSignals.IsFromTerminal(signal);
        _passedSignal = signal;
        SignalAll(signal, here: !isFromTerminal);
        // The shell waits for us to stop as well.
        if (signal == Signals.SIGTSTP) _ = Libc.Kill(Environment.ProcessId, Signals.SIGSTOP);
    }

    /// <summary>A rank: a child of ours, or (no process) one on another host.</summary>
    private sealed record Rank(int Number, int ProcessId, string Node, SafeFileHandle? Process)
    {
        /// <summary>How it ended, if somebody else knows.</summary>
        public string? How { get; init; }
    }
}
