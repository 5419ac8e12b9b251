// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using System.Net;
using System.Runtime.InteropServices;
using System.Text;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Interop;
using VSmp.Agent.Membership.Etcd;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp up</c>: a cluster of agents on this host, in the background.</summary>
internal sealed class UpCommand
{
    private const int MaxAgents = 64;
    private const string SoftRocePrefix = "rxe:";
    private const int DefaultAgents = 2;
    private const int StartTimeoutMilliseconds = 60_000;
    private const ulong MinDefaultBytes = 64ul << 20;

    private readonly RunDirectory _directory;
    private readonly ulong _memoryBytes;
    private readonly TransportChoice _transport;
    private readonly IPAddress _address;
    private readonly Redundancy? _redundancy;
    private readonly string? _checkpoints;
    private readonly string? _membership;
    private readonly Dictionary<string, (AgentFolder Folder, ProcessIdentity Process)> _starting = [];
    private readonly List<(AgentFolder Folder, ProcessIdentity Process)> _started = [];
    private volatile bool _isInterrupted;

    private UpCommand(RunDirectory directory, ulong memoryBytes, TransportChoice transport, IPAddress address, Redundancy? redundancy, string? membership, string? checkpoints)
    {
        _checkpoints = checkpoints;
        _redundancy = redundancy;
        _membership = membership;
        _transport = transport;
        _address = address;
        _directory = directory;
        _memoryBytes = memoryBytes;
    }

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<int> agents = new("--agents")
        {
            Description = "How many agents",
            HelpName = "N",
            DefaultValueFactory = _ => DefaultAgents,
            CustomParser = result =>
            {
                string text = result.Tokens[0].Value;
                if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int count)
                    && count is >= 1 and <= MaxAgents)
                {
                    return count;
                }
                result.AddError($"--agents: '{text}' is no number from 1 to {MaxAgents}");
                return 0;
            },
        };
        Option<ulong?> memory = CommandLine.NewSizeOption("--memory",
            "What each contributes (default: a quarter of the available memory, divided among them)");
        Command command = CommandLine.NewCommand("up", "Start a cluster of agents on this host.",
            "vsmp up", "vsmp up --agents 4 --memory 512M", "vsmp up --agents 4 --redundancy mirror", "vsmp up --transport rxe:eth0", "vsmp up --cluster test --agents 1",
            "vsmp up --agents 3 --membership etcd://127.0.0.1:2379");
        command.Options.Add(agents);
        command.Options.Add(memory);
        Option<string?> transport = CommandLine.NewTransportOption(
            "What carries frames between agents; rxe: RDMA in software on that interface, set up if need be, and taken down by vsmp down", "tcp|verbs[:DEVICE[:GID]]|rxe:INTERFACE");
        command.Options.Add(transport);
        Option<Redundancy?> redundancy = CommandLine.NewRedundancyOption("none; programs may say otherwise");
        command.Options.Add(redundancy);
        Option<string?> checkpoints = CommandLine.NewCheckpointsOption();
        command.Options.Add(checkpoints);
        Option<string?> membership = CommandLine.NewMembershipOption();
        command.Options.Add(membership);
        command.SetAction(parsed => Run(
            RunDirectory.OfCurrentUser(parsed.GetValue(CommandLine.ClusterOption)!), parsed.GetValue(agents),
            parsed.GetValue(memory), parsed.GetValue(transport) ?? "tcp", parsed.GetValue(redundancy), parsed.GetValue(membership), parsed.GetValue(checkpoints)));
        return command;
    }

    private static int Run(RunDirectory directory, int count, ulong? memory, string transportText, Redundancy? redundancy, string? membership, string? checkpoints)
    {
        if (membership is not null) _ = EtcdAddress.Parse(membership);
        string? softRoceOn = transportText.StartsWith(SoftRocePrefix, StringComparison.Ordinal) ? transportText[SoftRocePrefix.Length..] : null;
        TransportChoice? transport = softRoceOn is null ? TransportChoice.Parse(transportText) : null;
        if (transport is null && !RunDirectory.IsValidName(softRoceOn ?? ""))
        {
            throw new CommandException(ExitCodes.Usage, $"--transport: '{transportText}' is none: tcp, verbs, verbs:DEVICE, verbs:DEVICE:GID or rxe:INTERFACE");
        }
        ulong memoryBytes = memory ?? DefaultMemory(count);
        HostMemory.CheckFits(memoryBytes * (ulong)count);
        directory.Create(groupId: null);
        using IDisposable one = directory.Lock();
        CleanUpAfterCrash(directory);
        directory.CreateSecret();
        if (softRoceOn is not null) transport = SetUpSoftRoce(directory, softRoceOn);
        IPAddress address = transport!.Kind == TransportKind.Tcp ? IPAddress.Loopback : RdmaHost.AddressOf(transport);
        UpCommand up = new(directory, memoryBytes, transport, address, redundancy, membership, checkpoints is null ? null : Path.GetFullPath(checkpoints));
        using PosixSignalRegistration onInterrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, up.OnSignal);
        using PosixSignalRegistration onTerminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, up.OnSignal);
        try { up.Start(count); }
        catch
        {
            up.StopAll();
            DownCommand.UndoSoftRoce(directory);
            throw;
        }
        Output.Line($"cluster {directory.Cluster} is up: {(count == 1 ? "1 agent" : $"{count} agents, each")}"
            + $" of {Sizes.Format(memoryBytes)}. "
            + "Next: vsmp run -- PROGRAM, vsmp status, vsmp down");
        if (membership is not null && count == 2) Output.Line("Two agents that decide by majority survive the loss of neither; three survive that of any one");
        return ExitCodes.Ok;
    }

    private static TransportChoice SetUpSoftRoce(RunDirectory directory, string netdev)
    {
        (string device, bool isNew) = RdmaHost.SetUpSoftRoce(netdev);
        if (isNew)
        {
            File.WriteAllText(directory.SoftRoceFile, device);
            Output.Line($"set up soft-RoCE: RDMA device {device} on {netdev}; vsmp down removes it");
        }
        else
        {
            Output.Line($"{netdev} has the RDMA device {device} already: using it");
        }
        return new TransportChoice(TransportKind.Verbs, device, null);
    }

    private static ulong DefaultMemory(int count)
    {
        const ulong Rounding = 64ul << 20;
        ulong share = HostMemory.AvailableBytes / 4 / (ulong)count;
        return Math.Max(share / Rounding * Rounding, MinDefaultBytes);
    }

    private static void CleanUpAfterCrash(RunDirectory directory)
    {
        IReadOnlyList<AgentFolder> found = directory.Agents();
        AgentFolder[] running = [.. found.Where(agent => !agent.IsDead())];
        if (running.Length > 0)
        {
            throw new CommandException(ExitCodes.AlreadyUp,
                $"cluster {directory.Cluster} is up already ({string.Join(", ", running.Select(agent => agent.Name))}): "
                + "vsmp down stops it, --cluster NAME starts another");
        }
        foreach (AgentFolder agent in found)
        {
            bool crashed = File.Exists(agent.PidFile);
            IReadOnlyList<string> done = agent.CleanUp(keepLog: false);
            foreach (string what in done) CommandLine.Say($"a crashed run left things behind: {what}");
            if (crashed && done.Count == 0)
            {
                CommandLine.Say($"a crashed run left things behind: removed the files of agent {agent.Name}");
            }
        }
    }

    private void Start(int count)
    {
        string notifyPath = Path.Combine(_directory.Path, "up.sock");
        File.Delete(notifyPath);
        using UnixSocket notify = UnixSocket.BindDatagram(notifyPath);
        try
        {
            StartAgent(0, notifyPath, join: null);
            string first = AwaitReady(notify)!;
            for (int i = 1; i < count; i++)
            {
                StartAgent(i, notifyPath, first);
                if (_membership is not null) _ = AwaitReady(notify); // members that agree take one at a time anyway: in the order of their names
            }
            while (_starting.Count > 0) _ = AwaitReady(notify);
        }
        finally
        {
            File.Delete(notifyPath);
        }
    }

    private void StartAgent(int number, string notifyPath, string? join)
    {
        AgentFolder folder = _directory.Agent($"n{number}");
        List<string> arguments =
        [
            "--cluster", _directory.Cluster, "--name", folder.Name, "--listen", new IPEndPoint(_address, 0).ToString(), "--secret", _directory.SecretFile,
            "--memory", (_memoryBytes / ExtentNumber.Bytes * ExtentNumber.Bytes).ToString(CultureInfo.InvariantCulture),
            "--development",
        ];
        if (_transport.Kind != TransportKind.Tcp) arguments.AddRange(["--transport", _transport.ToString()]);
        if (_redundancy == Redundancy.Mirror) arguments.AddRange(["--redundancy", "mirror"]);
        if (_checkpoints is not null) arguments.AddRange(["--checkpoints", _checkpoints]);
        if (_membership is not null) arguments.AddRange(["--membership", _membership]);
        else if (join is not null) arguments.AddRange(["--join", join]);
        ProcessIdentity process = Daemons.StartAgent(folder, notifyPath, [.. arguments]);
        _starting[folder.Name] = (folder, process);
    }

    /// <summary>Waits until one of those that are starting is ready.</summary>
    /// <returns>Where it listens.</returns>
    private string AwaitReady(UnixSocket notify)
    {
        const int LookAroundMilliseconds = 100;
        long deadline = Environment.TickCount64 + StartTimeoutMilliseconds;
        byte[] datagram = new byte[4096];
        while (true)
        {
            if (_isInterrupted)
            {
                throw new CommandException(ExitCodes.SignalBase + Signals.SIGINT, "interrupted: what was started is stopped");
            }
            if (notify.WaitReadable(LookAroundMilliseconds))
            {
                int bytes = notify.Receive(datagram, null);
                if (ReadNotification(Encoding.UTF8.GetString(datagram, 0, Math.Max(bytes, 0))) is not { } ready) continue;
                if (!_starting.Remove(ready.Name, out var agent)) continue;
                _started.Add(agent);
                Output.Line($"{ready.Name} is up at {ready.Listen}");
                return ready.Listen;
            }
            foreach (var (folder, process) in _starting.Values)
            {
                if (ProcessControl.Reap(process.ProcessId) is { } exit) throw Failed(folder, exit);
            }
            if (Environment.TickCount64 > deadline)
            {
                throw new CommandException(ExitCodes.Failed,
                    $"agent {_starting.Values.First().Folder.Name} is not ready after {StartTimeoutMilliseconds / 1000} s");
            }
        }
    }

    private static (string Name, string Listen)? ReadNotification(string text)
    {
        Dictionary<string, string> fields = [];
        foreach (string line in text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] parts = line.Split('=', 2);
            if (parts.Length == 2) fields[parts[0]] = parts[1];
        }
        return fields.GetValueOrDefault("READY") == "1" && fields.TryGetValue("X_VSMP_NAME", out string? name)
            && fields.TryGetValue("X_VSMP_LISTEN", out string? listen)
            ? (name, listen)
            : null;
    }

    private static CommandException Failed(AgentFolder folder, ChildExit exit)
    {
        string why = exit.IsSignaled ? $"it was killed by signal {exit.Status}" : $"exit code {exit.Status}";
        if (LastError(folder.LogFile) is { } error)
        {
            string prefix = $"agent {folder.Name}: ";
            why = error.StartsWith(prefix, StringComparison.Ordinal) ? error[prefix.Length..] : error;
        }
        return new CommandException(exit.IsSignaled || exit.Status is 0 or KeptAgents.GivenUp ? ExitCodes.Failed : exit.Status,
            $"agent {folder.Name} did not start: {why}");
    }

    /// <summary>The last error in an agent's log: of its own, or of the command before the log began.</summary>
    private static string? LastError(string logFile)
    {
        try
        {
            string? last = null, lastLine = null;
            foreach (string line in File.ReadLines(logFile))
            {
                if (line.StartsWith("vsmp: ", StringComparison.Ordinal)) last = line["vsmp: ".Length..];
                else last = Log.MessageOf(line, Log.ErrorLevel) ?? last;
                if (line.Trim().Length > 0) lastLine = line.Trim();
            }
            return last ?? lastLine;
        }
        catch (IOException)
        {
            return null;
        }
    }

    private void StopAll()
    {
        foreach (var (folder, process) in _started.Concat(_starting.Values))
        {
            if (ProcessControl.Signal(process, Signals.SIGTERM) && !ProcessControl.WaitForExit(process, 5_000))
            {
                _ = NodeProcesses.Kill(folder);
                _ = ProcessControl.Signal(process, Signals.SIGKILL); // one that has not said yet who it is
                _ = ProcessControl.WaitForExit(process, 5_000);
            }
            _ = ProcessControl.Reap(process.ProcessId);
            _ = folder.CleanUp(keepLog: false);
        }
        _directory.RemoveIfEmpty();
    }

    private void OnSignal(PosixSignalContext context)
    {
        context.Cancel = true;
        _isInterrupted = true;
    }
}
