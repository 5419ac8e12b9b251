// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp doctor</c>: what is there, what is missing, what to do about it.</summary>
internal sealed class DoctorCommand
{
    private const int CAP_SYS_ADMIN = 21, ENOSYS = 38;
    private const ulong UsualMapCount = 65530;
    private const ulong LeastOpenFiles = 4096;
    private const ulong LeastMemoryBytes = 1ul << 30;
    private const int ErrorsShown = 3;

    private readonly Table _table = new(new("check"), new("result"), new("found"), new("what to do"));
    private bool _hasFailed;

    private enum Result
    {
        Ok,
        Note,
        Warn,
        Fail,
    }

    /// <summary>The command.</summary>
    public static Command New()
    {
        Command command = CommandLine.NewCommand("doctor",
            "Check kernel, permissions, limits, transports and the agents of the cluster. Exit code 1 if a check fails.",
            "vsmp doctor", "vsmp doctor --cluster test");
        command.SetAction(parsed => new DoctorCommand().Run(parsed.GetValue(CommandLine.ClusterOption)!));
        return command;
    }

    private int Run(string cluster)
    {
        CheckKernel();
        CheckUserfaultfd();
        CheckMounting();
        CheckLimits();
        CheckMemory();
        CheckLibrary();
        Add(Result.Ok, "transport TCP", "available", "");
        CheckRdma();
        CheckAgents(cluster);
        _table.Write();
        return _hasFailed ? ExitCodes.Failed : ExitCodes.Ok;
    }

    private void CheckKernel()
    {
        string release = ReadLine("/proc/sys/kernel/osrelease") ?? "unknown";
        string[] parts = release.Split('.', '-', '+');
        _ = Version.TryParse(string.Join('.', parts.Take(2)), out Version? version);
        const string Upgrade = "install a newer kernel; Debian 12: apt-get install -t bookworm-backports linux-image-amd64";
        if (version is null) Add(Result.Warn, "kernel", release, "6.4 or newer is needed");
        else if (version < new Version(6, 4)) Add(Result.Fail, "kernel", release, $"6.4 or newer is needed: {Upgrade}");
        else if (version < new Version(6, 6)) Add(Result.Warn, "kernel", $"{release}: lost pages cannot be poisoned", Upgrade);
        else Add(Result.Ok, "kernel", release, "");
    }

    private void CheckUserfaultfd()
    {
        var (deviceFeatures, deviceError) = UserfaultfdProbe.TryDevice();
        var (callFeatures, callError) = UserfaultfdProbe.TrySystemCall();
        bool isRoot = Libc.GetEffectiveUserId() == 0;
        bool isAllowed = ReadLine("/proc/sys/vm/unprivileged_userfaultfd") == "1";
        if (deviceError == 0) Add(Result.Ok, "/dev/userfaultfd", "usable", "");
        else
        {
            const string Rule = "install the udev rule (make install) and join the group vsmp, or run as root";
            string found = deviceError == Errno.ENOENT ? "not there" : Errno.Text(deviceError);
            // An agent hands its own to the guests of other users.
            bool isFatal = callError != 0 && isRoot;
            Add(isFatal ? Result.Fail : Result.Warn, "/dev/userfaultfd",
                isRoot ? found : $"{found}: guests depend on the agent's", Rule);
        }
        Add(Result.Ok, "vm.unprivileged_userfaultfd", isAllowed ? "1: every user may delay the kernel" : "0", "");

        UserfaultfdFeatures features = deviceError == 0 ? deviceFeatures : callFeatures;
        if (deviceError != 0 && callError != 0)
        {
            string why = callError == ENOSYS ? "the kernel is built without it (CONFIG_USERFAULTFD)" : Errno.Text(callError);
            Add(isRoot || callError == ENOSYS ? Result.Fail : Result.Warn, "userfaultfd features", $"cannot be told: {why}",
                "run vsmp doctor as root");
            return;
        }
        const UserfaultfdFeatures Needed = UserfaultfdFeatures.WriteProtect | UserfaultfdFeatures.MissingShared
            | UserfaultfdFeatures.ThreadId | UserfaultfdFeatures.MinorShared | UserfaultfdFeatures.WriteProtectShared;
        UserfaultfdFeatures missing = Needed & ~features;
        if (missing != 0) Add(Result.Fail, "userfaultfd features", $"missing: {missing}", "a kernel of 6.4 or newer has them");
        else if ((features & UserfaultfdFeatures.Poison) == 0)
        {
            Add(Result.Warn, "userfaultfd features", "no poison: programs are ended where a page is lost",
                "a kernel of 6.6 or newer has it");
        }
        else Add(Result.Ok, "userfaultfd features", "write-protect, missing, minor, thread id, poison", "");
    }

    private void CheckMounting()
    {
        string? line = File.ReadLines("/proc/self/status").FirstOrDefault(l => l.StartsWith("CapEff:", StringComparison.Ordinal));
        _ = ulong.TryParse(line?["CapEff:".Length..].Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture,
            out ulong capabilities);
        bool mayMount = (capabilities & (1ul << CAP_SYS_ADMIN)) != 0;
        if (mayMount) Add(Result.Ok, "mounting tmpfs", "permitted", "");
        else
        {
            Add(Result.Warn, "mounting tmpfs", "not permitted (no CAP_SYS_ADMIN)",
                "start agents as root; programs do not need it");
        }
    }

    private void CheckLimits()
    {
        _ = ulong.TryParse(ReadLine("/proc/sys/vm/max_map_count"), out ulong maps);
        if (maps < UsualMapCount)
        {
            Add(Result.Warn, "vm.max_map_count", $"{maps}",
                $"large programs need more: sysctl vm.max_map_count={UsualMapCount * 4}");
        }
        else Add(Result.Ok, "vm.max_map_count", $"{maps}", "");

        ulong files = ProcessControl.OpenFileLimit.Hard;
        if (files < LeastOpenFiles)
        {
            Add(Result.Warn, "open files (hard limit)", $"{files}",
                $"raise it for agents with many guests: ulimit -Hn {LeastOpenFiles * 4}");
        }
        else Add(Result.Ok, "open files (hard limit)", files > 1ul << 40 ? "unlimited" : $"{files}", "");

        if (RunFirst.IsPermitted) Add(Result.Ok, "real-time priority", "permitted", "");
        else
        {
            Add(Result.Note, "real-time priority", "not permitted: agents wait for programs that compute",
                "run agents as root, with CAP_SYS_NICE, or with ulimit -r 1 (systemd: LimitRTPRIO=1)");
        }
    }

    private void CheckMemory()
    {
        ulong available = HostMemory.AvailableBytes;
        string found = $"{Sizes.Format(available)} available of {Sizes.Format(HostMemory.TotalBytes)}";
        if (available < LeastMemoryBytes)
        {
            Add(Result.Warn, "memory", found,
                "little to contribute: an agent's --memory comes out of it");
        }
        else Add(Result.Ok, "memory", found, "");

        string mode = ReadLine("/proc/sys/vm/overcommit_memory") ?? "?";
        if (mode == "2")
        {
            Add(Result.Warn, "vm.overcommit_memory", "2: strict",
                "regions are large mappings: set 0 or 1 if programs fail to attach");
        }
        else Add(Result.Ok, "vm.overcommit_memory", mode, "");
    }

    private void CheckLibrary()
    {
        if (RunCommand.FindLibrary() is { } library) Add(Result.Ok, "guest library", library, "");
        else
        {
            Add(Result.Fail, "guest library", "libvsmp-guest.so is not beside the vsmp command",
                "run make build, or install again");
        }
    }

    private void CheckRdma()
    {
        const string What = "transport RDMA";
        const string SoftRoce = "needed for --transport verbs only; on Ethernet: vsmp up --transport rxe:INTERFACE";
        if (Interop.Verbs.Load() is { } why)
        {
            Add(Result.Note, What, why, "needed for --transport verbs only");
            return;
        }
        VerbsPort[] ports;
        try { ports = Interop.Verbs.Ports(); }
        catch (IOException e)
        {
            Add(Result.Warn, What, e.Message, SoftRoce);
            return;
        }
        if (ports.Length == 0)
        {
            bool hasRdma = Directory.Exists("/sys/class/infiniband");
            Add(Result.Note, What, hasRdma ? "no RDMA device" : "no RDMA device, and the kernel has no RDMA (modules ib_core, rdma_rxe)", SoftRoce);
            return;
        }
        foreach (VerbsPort port in ports) CheckPort(port);
        if (!File.Exists("/dev/infiniband/rdma_cm")) Add(Result.Warn, "RDMA connections", "/dev/infiniband/rdma_cm is not there", "modprobe rdma_ucm");
        ulong locked = ProcessControl.LockedMemoryLimit;
        const ulong LeastLocked = 64ul << 20;
        if (Libc.GetEffectiveUserId() != 0 && locked < LeastLocked)
        {
            Add(Result.Warn, "locked memory", Sizes.Format(locked), $"each peer takes about {Sizes.Format(Fabric.Verbs.VerbsLink.LockedBytes)}: ulimit -l unlimited");
        }
    }

    private void CheckPort(VerbsPort port)
    {
        string what = $"RDMA {port.Device} port {port.Port}";
        if (port.Errno != 0)
        {
            string advice = port.Errno is Errno.EACCES or Errno.EPERM ? "the user needs /dev/infiniband/uverbs*: join the group that owns it, or run as root" : "";
            Add(Result.Warn, what, Errno.Text(port.Errno), advice);
            return;
        }
        string kind = port.IsEthernet ? "RoCE" : "InfiniBand";
        string address = RdmaHost.AddressOf(port)?.ToString() ?? "no IP address";
        string gids = port.IsEthernet ? string.Concat(RdmaHost.AddressesByGid(port).Select(g => $", GID {g.Gid} {g.Address}")) : "";
        string found = $"{kind}, MTU {port.MtuBytes}, {(port.Netdev.Length > 0 ? port.Netdev : "no interface")}, {address}{gids}, link {(port.IsActive ? "up" : "down")}";
        if (!port.IsActive) Add(Result.Warn, what, found, $"ip link set {port.Netdev} up");
        else if (RdmaHost.AddressOf(port) is null) Add(Result.Warn, what, found, $"connections are made by IP address: ip address add … dev {port.Netdev}");
        else if (Fabric.Verbs.VerbsLink.Shortfall(port) is { } shortfall) Add(Result.Warn, what, found, shortfall);
        else Add(Result.Ok, what, found, "");
    }

    private void CheckAgents(string cluster)
    {
        AgentFolder[] agents = [.. RunDirectory.Candidates(cluster).SelectMany(directory => directory.Agents())];
        if (agents.Length == 0)
        {
            Add(Result.Note, $"cluster {cluster}", "no agent runs on this host", "vsmp up starts some");
            return;
        }
        foreach (AgentFolder agent in agents)
        {
            CheckAgent(agent);
            CheckLog(agent);
        }
    }

    private void CheckAgent(AgentFolder agent)
    {
        string what = $"agent {agent.Name}";
        if (agent.Running() is null && agent.Keeper() is not null)
        {
            Add(Result.Warn, what, "was killed, and is being started again by its keeper", $"ask again in a moment; see {agent.LogFile}");
            return;
        }
        if (agent.Running() is null)
        {
            Add(Result.Fail, what, "does not run, but its folder is there: it failed or was killed",
                "vsmp up or vsmp down cleans up behind it");
            return;
        }
        try
        {
            using ControlClient client = ControlClient.Connect(agent);
            ClusterStatus status = client.GetStatus();
            NodeStatus[] away = [.. status.Nodes.Where(node => node.State != "up")];
            if (away.Length == 0) Add(Result.Ok, what, $"answers; {status.Nodes.Count} nodes up", "");
            foreach (NodeStatus node in away)
            {
                Add(Result.Fail, what, $"node {node.Name} at {node.Address} is {node.State}",
                    "check that node's agent, and the network between");
            }
        }
        catch (CommandException e)
        {
            Add(Result.Fail, what, e.Message, e.ExitCode == ExitCodes.Refused ? "" : $"see {agent.LogFile}");
        }
    }

    private void CheckLog(AgentFolder agent)
    {
        try
        {
            if (!File.Exists(agent.LogFile)) return; // an agent under systemd logs to the journal
            string[] errors = [.. File.ReadLines(agent.LogFile)
                .Where(line => Log.MessageOf(line, Log.ErrorLevel) is not null
                    || line.StartsWith("vsmp: ", StringComparison.Ordinal))];
            if (errors.Length == 0)
            {
                Add(Result.Ok, $"log of {agent.Name}", "no errors", "");
                return;
            }
            foreach (string line in errors.TakeLast(ErrorsShown))
            {
                Add(Result.Fail, $"log of {agent.Name}", line, $"{errors.Length} in {agent.LogFile}");
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Add(Result.Warn, $"log of {agent.Name}", e.Message, "");
        }
    }

    private void Add(Result result, string check, string found, string advice)
    {
        _hasFailed |= result == Result.Fail;
        (string word, string style) = result switch
        {
            Result.Ok => ("ok", "green"),
            Result.Note => ("note", "grey"),
            Result.Warn => ("warn", "yellow"),
            _ => ("FAIL", "bold red"),
        };
        _table.AddStyled((check, null), (word, style), (found, null), (advice, null));
    }

    private static string? ReadLine(string file)
    {
        try { return File.ReadAllText(file).Trim(); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return null; }
    }
}
