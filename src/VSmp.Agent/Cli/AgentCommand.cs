// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Net;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Interop;
using VSmp.Agent.Keeping;
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp agent</c>: one node of a cluster, in the foreground.</summary>
internal static class AgentCommand
{
    private const string DefaultSecretFile = "/etc/vsmp/secret";
    private const ulong MinMemoryBytes = 8 * (ulong)ExtentNumber.Bytes;

    /// <summary>The command.</summary>
    public static Command New(Func<AgentOptions, CancellationToken, Task<int>> agentMain)
    {
        Option<string?> config = new("--config")
        {
            Description = "A JSON file with the options below (comments allowed)",
            HelpName = "FILE",
        };
        Option<string?> name = CommandLine.NewNameOption("--name", "The node's name, unique in the cluster", "NAME");
        Option<ulong?> memory = CommandLine.NewSizeOption("--memory", "What the node contributes to the pool");
        Option<string?> listen = new("--listen") { Description = "Where peers connect", HelpName = "HOST[:PORT]" };
        Option<string?> join = new("--join")
        {
            Description = "An agent of the cluster to join; without it, a cluster is founded",
            HelpName = "HOST[:PORT]",
        };
        Option<string?> membership = CommandLine.NewMembershipOption();
        Option<string?> secret = new("--secret")
        {
            Description = $"The cluster's secret, the same on every node (default {DefaultSecretFile})",
            HelpName = "FILE",
        };
        Option<string?> transport = CommandLine.NewTransportOption("What carries frames between agents, the same on every node", "tcp|verbs[:DEVICE[:GID]]");
        Option<string?> group = new("--group")
        {
            Description = "A group whose members may run programs here",
            HelpName = "GROUP",
        };
        Option<Redundancy?> redundancy = CommandLine.NewRedundancyOption("none; programs that are run here may say otherwise");
        Option<string?> checkpoints = CommandLine.NewCheckpointsOption();
        Option<bool> development = new("--development") { Description = "Faults may be injected here (vsmp inject); vsmp up starts its agents so" };
        Command command = CommandLine.NewCommand("agent", "One node of a cluster; in the foreground, until SIGTERM or SIGINT.",
            "vsmp agent --name node1 --memory 64G --listen 10.0.0.1",
            "vsmp agent --name node2 --memory 64G --listen 10.0.0.2 --join 10.0.0.1",
            "vsmp agent --name node3 --memory 64G --listen 10.0.0.3 --membership etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379",
            "vsmp agent --config /etc/vsmp/agent.json");
        foreach (Option option in new Option[] { config, name, memory, listen, join, membership, secret, transport, group, redundancy, checkpoints, development }) command.Options.Add(option);
        command.SetAction(parsed =>
        {
            AgentConfiguration given = parsed.GetValue(config) is { } file ? Read(file) : new();
            string? cluster = parsed.GetResult(CommandLine.ClusterOption) is { Implicit: false } ? null : given.Cluster;
            given = given with
            {
                Cluster = cluster ?? parsed.GetValue(CommandLine.ClusterOption),
                Name = parsed.GetValue(name) ?? given.Name,
                Listen = parsed.GetValue(listen) ?? given.Listen,
                Join = parsed.GetValue(join) ?? given.Join,
                Membership = parsed.GetValue(membership) ?? given.Membership,
                SecretFile = parsed.GetValue(secret) ?? given.SecretFile,
                Transport = parsed.GetValue(transport) ?? given.Transport,
                Group = parsed.GetValue(group) ?? given.Group,
                Redundancy = parsed.GetValue(redundancy) is { } r ? (r == Redundancy.Mirror ? "mirror" : "none") : given.Redundancy,
                Checkpoints = parsed.GetValue(checkpoints) ?? given.Checkpoints,
                Development = parsed.GetValue(development) || given.Development,
            };
            return Run(given, parsed.GetValue(memory), agentMain);
        });
        return command;
    }

    private static int Run(AgentConfiguration given, ulong? memoryBytes,
        Func<AgentOptions, CancellationToken, Task<int>> agentMain)
    {
        string cluster = CheckName(given.Cluster, "cluster"), name = CheckName(given.Name, "name");
        ulong memory = CheckMemory(memoryBytes, given.Memory);
        IPEndPoint listen = Addresses.Parse(given.Listen ?? throw Missing("listen"), "--listen");
        IPEndPoint? join = given.Join is null ? null : Addresses.Parse(given.Join, "--join");
        EtcdAddress? membership = given.Membership is null ? null : EtcdAddress.Parse(given.Membership);
        if (membership is not null && join is not null)
            throw new CommandException(ExitCodes.Usage, "--join and --membership exclude each other: with etcd, its record says where the members are");
        TransportChoice transport = given.Transport is null ? TransportChoice.Tcp : TransportChoice.Parse(given.Transport)
            ?? throw new CommandException(ExitCodes.Usage, $"--transport: '{given.Transport}' is none: tcp, verbs, verbs:DEVICE or verbs:DEVICE:GID");
        CheckGid(transport, listen);
        Redundancy redundancy = given.Redundancy is null ? Redundancy.None : CommandLine.ParseRedundancy(given.Redundancy)
            ?? throw new CommandException(ExitCodes.Usage, $"redundancy: '{given.Redundancy}' is neither none nor mirror");
        string secretFile = Path.GetFullPath(given.SecretFile ?? DefaultSecretFile);
        CheckSecret(secretFile);
        uint? groupId = given.Group is null
            ? null
            : UnixFile.GroupId(given.Group)
                ?? throw new CommandException(ExitCodes.Usage, $"--group: there is no group '{given.Group}'");

        using KeeperClient? keeper = ConnectToKeeper();
        AgentFolder folder = RunDirectory.OfCurrentUser(cluster).Agent(name);
        MemberIdentity? predecessor = keeper is { IsRestarted: true } ? ReadPredecessor(folder) : null;
        if (predecessor is null) HostMemory.CheckFits(memory); // else it is in use already
        using IDisposable claim = folder.Claim(groupId, out IReadOnlyList<string> cleaned, keeper?.Process, takesOver: predecessor is not null);
        foreach (string what in cleaned) Log.Warn($"a crash left things behind: {what}");
        if (given.Development) File.WriteAllText(folder.DevelopmentFile, "");
        using CancellationTokenSource stop = new();
        void OnSignal(PosixSignalContext context)
        {
            context.Cancel = true;
            stop.Cancel();
        }
        using PosixSignalRegistration onTerminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
        using PosixSignalRegistration onInterrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
        bool isReady = false;
        int exitCode = ExitCodes.Failed;
        try
        {
            exitCode = agentMain(new AgentOptions
            {
                Cluster = cluster,
                Name = name,
                MemoryBytes = predecessor?.Member.ContributedBytes ?? memory, // the others go by what the node has said once
                Predecessor = predecessor,
                Listen = listen,
                Transport = transport,
                Join = join,
                Membership = membership,
                Redundancy = redundancy,
                SecretFile = secretFile,
                Folder = folder,
                Keeper = keeper,
                GroupId = groupId,
                CheckpointsFolder = given.Checkpoints is null ? CheckpointFolder.DefaultRoot : Path.GetFullPath(given.Checkpoints),
                IsDevelopment = given.Development,
                OnReady = endPoint =>
                {
                    isReady = true;
                    OnReady(name, memory, endPoint);
                },
            }, stop.Token).GetAwaiter().GetResult();
        }
        catch (CommandException e)
        {
            // Whoever starts an agent is told as by every other command; later on, the log is where they look.
            if (isReady) Log.Error(e.Message);
            else CommandLine.Say($"agent {name}: {e.Message}");
            exitCode = e.ExitCode;
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            exitCode = ExitCodes.Ok;
        }
        catch (Exception e)
        {
            // Nothing is left to go on with; the log is where an administrator and `vsmp doctor` look.
            Log.Error($"the agent failed: {e}");
        }
        foreach (string what in folder.CleanUp(keepLog: exitCode != ExitCodes.Ok && File.Exists(folder.LogFile))) Log.Info(what);
        folder.RunDirectory.RemoveIfUnused();
        return exitCode;
    }

    private static KeeperClient? ConnectToKeeper()
    {
        try { return KeeperClient.Connect(); }
        catch (IOException e) { throw new CommandException(ExitCodes.Usage, $"this agent was not started by a keeper, though it looks so: {e.Message}"); }
    }

    /// <summary>Who was a member takes its place again; who was none yet, or none any more, begins as the first one did.</summary>
    private static MemberIdentity? ReadPredecessor(AgentFolder folder)
    {
        try { return MemberIdentity.Read(folder.MemberFile); }
        catch (Exception e) when (e is InvalidDataException or IOException or UnauthorizedAccessException)
        {
            throw new CommandException(ExitCodes.AgentLost, e.Message);
        }
    }

    private static void CheckGid(TransportChoice transport, IPEndPoint listen)
    {
        if (transport.Gid is null || RdmaHost.AddressOf(transport) is var address && address.Equals(listen.Address)) return;
        throw new CommandException(ExitCodes.Usage, $"--transport {transport}: that GID has the address {address}, and --listen says {listen.Address}");
    }

    private static void OnReady(string name, ulong memoryBytes, IPEndPoint endPoint)
    {
        Log.Info($"agent {name} is ready: {Sizes.Format(memoryBytes)} for the pool, listening on {endPoint}");
        // sd_notify(3), for systemd and for `vsmp up`, which wants to know who is ready and where the first one listens.
        if (Environment.GetEnvironmentVariable("NOTIFY_SOCKET") is { Length: > 0 } socket)
        {
            UnixSocket.SendDatagram(socket,
                $"READY=1\nSTATUS=listening on {endPoint}\nX_VSMP_NAME={name}\nX_VSMP_LISTEN={endPoint}\n");
        }
    }

    private static AgentConfiguration Read(string file)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllText(file), AgentConfigurationJson.Default.AgentConfiguration) ?? new();
        }
        catch (JsonException e)
        {
            throw new CommandException(ExitCodes.Usage, $"{file} line {e.LineNumber + 1}: {e.Message}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException(ExitCodes.Usage, $"cannot read the configuration: {e.Message}");
        }
    }

    private static string CheckName(string? name, string what)
    {
        if (name is null) throw Missing(what);
        return RunDirectory.IsValidName(name)
            ? name
            : throw new CommandException(ExitCodes.Usage, $"'{name}' is no valid {what}");
    }

    private static ulong CheckMemory(ulong? bytes, string? text)
    {
        if (bytes is null)
        {
            if (text is null) throw Missing("memory");
            if (!Sizes.TryParse(text, out ulong parsed, out string? error))
            {
                throw new CommandException(ExitCodes.Usage, $"memory: {error}");
            }
            bytes = parsed;
        }
        if (bytes < MinMemoryBytes)
        {
            throw new CommandException(ExitCodes.Usage,
                $"--memory: {Sizes.Format(bytes.Value)} is too little to be of use: {Sizes.Format(MinMemoryBytes)} at least");
        }
        return bytes.Value / ExtentNumber.Bytes * ExtentNumber.Bytes;
    }

    /// <summary>A secret that cannot be used is said here, before anything is mounted or listened on.</summary>
    private static void CheckSecret(string file)
    {
        try { _ = ClusterSecret.Load(file); }
        catch (ClusterSecretException e) { throw new CommandException(ExitCodes.Refused, e.Message); }
    }

    private static CommandException Missing(string what) =>
        new(ExitCodes.Usage, $"the agent's {what} is missing: give --{what}, or \"{what}\" in the file of --config");
}

/// <summary>The file of <c>vsmp agent --config</c>; the members are the options of the same name.</summary>
internal sealed record AgentConfiguration
{
    public string? Cluster { get; init; }

    public string? Name { get; init; }

    /// <summary>A size, like <c>64G</c>.</summary>
    public string? Memory { get; init; }

    public string? Listen { get; init; }

    public string? Join { get; init; }

    /// <summary>Where etcd is, like <c>etcd://10.0.0.1:2379</c>.</summary>
    public string? Membership { get; init; }

    /// <summary>The file of <c>--secret</c>.</summary>
    public string? SecretFile { get; init; }

    public string? Transport { get; init; }

    /// <summary><c>none</c> or <c>mirror</c>.</summary>
    public string? Redundancy { get; init; }

    public string? Group { get; init; }

    /// <summary>The folder that checkpoints are in.</summary>
    public string? Checkpoints { get; init; }

    /// <summary>Whether faults may be injected.</summary>
    public bool Development { get; init; }
}

/// <summary>Reads <see cref="AgentConfiguration"/>; a member that is not known is an error, not a silent default.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, AllowTrailingCommas = true,
    ReadCommentHandling = JsonCommentHandling.Skip, UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow)]
[JsonSerializable(typeof(AgentConfiguration))]
internal sealed partial class AgentConfigurationJson : JsonSerializerContext;
