// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary>
/// Stands beside a program that runs on pooled memory: hands it our streams, signals and terminal, holds copies of its guests'
/// userfaultfds so that none of them reads zeros if the agent dies, and ends them if it does and nobody starts it again.
/// </summary>
internal sealed class RunSupervisor : IRunListener, IDisposable
{
    private const int GraceMilliseconds = 5_000;

    private readonly AgentFolder _agent;
    private readonly ControlClient _client;
    private readonly bool _showsProgress;
    private readonly List<PosixSignalRegistration> _signals = [];
    private readonly Lock _lock = new();
    private readonly HeldGuests _guests = new();
    private readonly ManualResetEventSlim _isOver = new();
    private SafeFileHandle? _program; // under the lock
    private bool _programHasEnded; // under the lock
    private volatile bool _isAgentLost;
    private int _isLossTold;
    private volatile bool _isClosing;

    /// <summary>Connects to the agent.</summary>
    public RunSupervisor(AgentFolder agent, bool showsProgress)
    {
        _agent = agent;
        _showsProgress = showsProgress;
        _client = ControlClient.Connect(agent, this);
    }

    /// <summary>Begins the run.</summary>
    public RunTicket Begin(RunRequest request) => _client.BeginRun(request);

    /// <summary>Runs the program to its end.</summary>
    /// <returns>The exit code; a signal that killed the program is raised again, and this does not return then.</returns>
    public int Run(ProgramFile program, byte[][] words, EnvironmentBlock environment, FileStream? statistics)
    {
        ProcessControl.AdoptDescendants();
        _signals.AddRange(PassedSignals.Register(OnSignal));
        byte[][] arguments = [words[0], .. program.LeadingArguments.Select(ProcessSpawn.Bytes), .. words.AsSpan(1)];
        var watch = Stopwatch.StartNew();
        int pid = Start(program, arguments, environment);
        Thread progress = new(() => ShowProgress(watch)) { Name = "progress", IsBackground = true };
        if (_showsProgress) progress.Start();

        ChildExit exit;
        do
        {
            exit = ProcessControl.WaitForAnyChild()
                ?? throw new InvalidOperationException("the program is no child of ours any more");
        }
        while (exit.ProcessId != pid);
        double wallSeconds = watch.Elapsed.TotalSeconds;
        lock (_lock) _programHasEnded = true;
        _isOver.Set();
        if (_showsProgress) progress.Join();
        // What its keeper has killed since the agent is dead says so first.
        if (exit.IsSignaled && exit.Status == Signals.SIGKILL && _client.IsAgentGone)
        {
            _isAgentLost = true;
            SayLost();
        }
        bool isComplete = _isAgentLost ? EndLostRun() : EndRun(exit, wallSeconds, statistics);
        if (!isComplete) return ExitCodes.AgentLost;
        if (!exit.IsSignaled) return exit.Status;
        Dispose();
        Signals.RaiseDefault(exit.Status);
        return ExitCodes.SignalBase + exit.Status;
    }

    /// <inheritdoc/>
    public void OnMessage(string text) => Say($"{_agent.Name}: {text}");

    /// <inheritdoc/>
    public void OnGuestAttached(int processId, int userfaultfd) => _guests.Add(processId, userfaultfd);

    /// <inheritdoc/>
    public void OnGuestDetached(int processId) => _guests.Remove(processId);

    /// <inheritdoc/>
    public void OnResuming() => _guests.OnResuming();

    /// <inheritdoc/>
    public void OnResumed(TimeSpan away)
    {
        _guests.OnResumed();
        Say(CommandLine.AgentIsBack(_agent.Name, away));
    }

    /// <inheritdoc/>
    public void OnAgentLost()
    {
        if (_isClosing) return;
        _isAgentLost = true;
        _guests.Kill();
        lock (_lock)
        {
            if (_programHasEnded) return;
            if (_program is not null) _ = ProcessControl.Signal(_program, Signals.SIGTERM);
        }
        SayLost();
        if (_isOver.Wait(GraceMilliseconds)) return;
        lock (_lock)
        {
            if (_program is not null && !_programHasEnded) _ = ProcessControl.Signal(_program, Signals.SIGKILL);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isClosing) return;
        _isClosing = true;
        _isOver.Set();
        _client.Dispose();
        foreach (PosixSignalRegistration registration in _signals) registration.Dispose();
        _guests.Dispose();
        lock (_lock)
        {
            _program?.Dispose();
            _program = null;
        }
    }

    private void SayLost()
    {
        if (Interlocked.Exchange(ref _isLossTold, 1) == 0) Say($"agent {_agent.Name} was lost: the run is ended, its results are not to be used");
    }

    private int Start(ProgramFile program, byte[][] arguments, EnvironmentBlock environment)
    {
        int pid;
        lock (_lock)
        {
            if (_isAgentLost)
            {
                throw new CommandException(ExitCodes.AgentLost, $"agent {_agent.Name} was lost before the program started");
            }
            using (ProgramLimits.Inherited())
            {
                pid = ProcessSpawn.Foreground(ProcessSpawn.Bytes(program.Path), arguments, environment.Entries);
            }
            if (pid < 0) throw new CommandException(ExitCodes.CannotExecute, $"cannot run {program.Path}: {Errno.Text(-pid)}");
            _program = ProcessControl.Open(pid);
            return pid;
        }
    }

    private void OnSignal(PosixSignalContext context)
    {
        context.Cancel = true;
        int signal = PassedSignals.NumberOf(context.Signal);
        // The terminal's keys signal the whole foreground group: the program has got that one by itself.
        bool isFromTerminal = PassedSignals.IsFromTerminal(signal);
        lock (_lock)
        {
            if (!isFromTerminal && _program is not null && !_programHasEnded) _ = ProcessControl.Signal(_program, signal);
        }
        // The shell waits for us to stop as well.
        if (signal == Signals.SIGTSTP) _ = Libc.Kill(Environment.ProcessId, Signals.SIGSTOP);
    }

    /// <returns>Whether the program's own exit code says how the run went.</returns>
    private bool EndRun(ChildExit exit, double wallSeconds, FileStream? file)
    {
        RunStatistics? statistics;
        try { statistics = _client.EndRun(); }
        catch (CommandException e)
        {
            // A program that ended well did so on memory that was right.
            bool endedWell = !exit.IsSignaled && exit.Status == 0;
            Say(endedWell
                ? $"no statistics of the run: {e.Message}"
                : $"agent {_agent.Name} was lost during the run: {e.Message}");
            if (!endedWell) _ = EndLostRun();
            return endedWell;
        }
        if (file is null) return true;
        if (statistics is null) Say("no statistics of the run: the agent was killed when it had ended it");
        else RunCommand.WriteStatistics(file, statistics with { WallSeconds = wallSeconds }, ReportJson.Default.RunStatistics);
        return true;
    }

    private bool EndLostRun()
    {
        _guests.End(GraceMilliseconds);
        return false;
    }

    private void ShowProgress(Stopwatch watch)
    {
        bool isTerminal = Output.IsErrorTerminal;
        TimeSpan period = TimeSpan.FromSeconds(isTerminal ? 1 : 5);
        ulong lastFaults = 0;
        double lastSeconds = 0;
        while (!_isOver.Wait(period))
        {
            RunStatistics now;
            try { now = _client.GetRun(); }
            catch (CommandException) { break; }
            double seconds = watch.Elapsed.TotalSeconds;
            ulong faults = now.FaultsRead + now.FaultsWrite;
            if (faults < lastFaults) lastFaults = 0; // of an agent that was started again
            double perSecond = (faults - lastFaults) / Math.Max(seconds - lastSeconds, 0.001);
            (lastFaults, lastSeconds) = (faults, seconds);
            string line = string.Create(CultureInfo.InvariantCulture,
                $"{TimeSpan.FromSeconds(Math.Floor(seconds)):c}  pool {Sizes.Format(now.PeakPoolBytes)}"
                + $"  local {Sizes.Format(now.PeakLocalBytes)} at most"
                + $"  fetched {Sizes.Format(now.PagesFetched * PageNumber.Bytes)}"
                + $"  written back {Sizes.Format(now.PagesWrittenBack * PageNumber.Bytes)}  {perSecond:0} faults/s");
            if (isTerminal) Output.Error($"\r\x1b[Kvsmp: {line}");
            else CommandLine.Say(line);
        }
        if (isTerminal) Output.Error("\r\x1b[K");
    }

    private void Say(string text)
    {
        // A progress line that is being refreshed makes room.
        if (_showsProgress && Output.IsErrorTerminal) Output.Error("\r\x1b[K");
        CommandLine.Say(text);
    }
}
