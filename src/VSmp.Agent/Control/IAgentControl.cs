// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;

namespace VSmp.Agent.Control;

/// <summary>
/// What the control socket can ask of an agent. Called from any thread; the agent answers from its reactor. A request that cannot
/// be met throws <see cref="ControlException"/>, whose message is fit for a user's eyes.
/// </summary>
internal interface IAgentControl
{
    /// <summary>This node, and what it last heard of the others.</summary>
    Task<ClusterStatus> GetStatusAsync();

    /// <summary>The guests of this node.</summary>
    Task<IReadOnlyList<GuestStatus>> GetGuestsAsync();

    /// <summary>The regions that this node made or is home to.</summary>
    Task<IReadOnlyList<RegionStatus>> GetRegionsAsync();

    /// <summary>What was lost with nodes, of memory that processes of this node had.</summary>
    Task<IReadOnlyList<LossStatus>> GetLossesAsync();

    /// <summary>Ends a guest (SIGKILL) by its process id; false if this node has none such.</summary>
    Task<bool> StopGuestAsync(int processId);

    /// <summary>
    /// Opens a run: a process tree with one budget. Its guests attach with the ticket's token. Messages for the user, and the
    /// userfaultfds of the guests (to be held so that no guest reads zeros when the agent dies), go to <paramref name="observer"/>.
    /// </summary>
    Task<RunTicket> BeginRunAsync(RunRequest request, IRunObserver observer);

    /// <summary>
    /// Goes on with a run that was begun at an agent of this node which was killed. The observer is told of all guests that are attached, and with the
    /// userfaultfds that they have, as when they attached, before the task ends. Null: there is no such run.
    /// </summary>
    /// <param name="token">The run's token.</param>
    /// <param name="userId">Who asks: the run's user, or root.</param>
    /// <param name="observer">As for <see cref="BeginRunAsync"/>.</param>
    Task<RunTicket?> ResumeRunAsync(string token, uint userId, IRunObserver observer);

    /// <summary>
    /// Opens a job that this node leads: ranks on several nodes that share regions. Each node of the placement gets a run of its own for
    /// its ranks. Messages go to <paramref name="observer"/>.
    /// </summary>
    /// <param name="request">What it wants.</param>
    /// <param name="userId">Who asks.</param>
    /// <param name="processId">With which process.</param>
    /// <param name="observer">Hears of it.</param>
    Task<JobTicket> BeginJobAsync(JobRequest request, uint userId, int processId, IRunObserver observer);

    /// <summary>Goes on with a job that was begun at an agent of this node which was killed. Null: there is no such job.</summary>
    /// <param name="token">The job's token.</param>
    /// <param name="userId">Who asks: who has begun it, or root.</param>
    /// <param name="observer">Hears of it, and of what there was to tell meanwhile.</param>
    Task<JobTicket?> ResumeJobAsync(string token, uint userId, IRunObserver observer);

    /// <summary>Says that a rank has ended, and how: only who started it knows.</summary>
    Task ReportRankAsync(ulong job, int rank, string how);

    /// <summary>Has the nodes of ranks on other hosts start them, with the asking user's rights and no more.</summary>
    Task StartRanksAsync(ulong job, uint userId, uint groupId, RankProgram program);

    /// <summary>Sends a signal to the ranks that nodes of other hosts have started.</summary>
    Task SignalRanksAsync(ulong job, int signal);

    /// <summary>Passes a piece of standard input on to a rank on another host. One piece may be on the way.</summary>
    Task PassInputAsync(ulong job, int rank, byte[] data);

    /// <summary>From the process that this agent has started to start ranks: a rank has taken a piece of its input.</summary>
    Task InputTakenAsync(int processId, int rank);

    /// <summary>For the process that this agent has started to start ranks: what it is to do. <paramref name="observer"/> hears signals.</summary>
    Task<RankOrders> TakeRanksAsync(int processId, IRunObserver observer);

    /// <summary>From that process: what a rank printed. Ends when it has been passed on.</summary>
    Task PassOutputAsync(int processId, int rank, int stream, byte[] data);

    /// <summary>From that process: how a rank ended.</summary>
    Task RankEndedAsync(int processId, int rank, bool isSignaled, int status, string text);

    /// <summary>Closes a job: what is left of it is ended.</summary>
    Task EndJobAsync(ulong job);

    /// <summary>Closes a run: guests that are left are ended. Gives the run's statistics.</summary>
    Task<RunStatistics> EndRunAsync(string token);

    /// <summary>The run's figures so far, for <c>--progress</c>.</summary>
    Task<RunStatistics> GetRunAsync(string token);

    /// <summary>Injects a fault into what this node sends, or ends some; refused outside development clusters.</summary>
    Task InjectAsync(FaultOrder order);

    /// <summary>The faults in force on what this node sends.</summary>
    Task<IReadOnlyList<FaultStatus>> GetFaultsAsync();

    /// <summary>Asks a node of the cluster, by its name, something, or has it do something; <paramref name="data"/> and the answer are JSON.</summary>
    Task<byte[]> AskNodeAsync(string node, NodeQuestion question, byte[] data);

    /// <summary>Ends guests, leaves the cluster, and stops the agent. <paramref name="reason"/> goes to the log and to the guests' users.</summary>
    Task ShutdownAsync(string reason);
}

/// <summary>Hears what happens to a run. Called on the reactor's thread: must not block.</summary>
internal interface IRunObserver
{
    /// <summary>A line for the user's eyes: a guest was ended, the pool is exhausted.</summary>
    void OnMessage(string text);

    /// <summary>A process of the run attached. The descriptor is the caller's: duplicate it to keep it.</summary>
    void OnGuestAttached(int processId, int userfaultfd);

    /// <summary>A process of the run detached or died.</summary>
    void OnGuestDetached(int processId);

    /// <summary>A rank on another host has printed something; <paramref name="passedOn"/> is called, on any thread, when the observer has taken it.</summary>
    void OnRankOutput(int rank, int stream, byte[] data, Action passedOn) => passedOn();

    /// <summary>A rank on another host has ended.</summary>
    void OnRankEnded(int rank, bool isSignaled, int status, string text)
    {
    }

    /// <summary>A rank that the observer has started, or is to start, is to read this; empty: nothing more.</summary>
    void OnRankInput(int rank, byte[] data)
    {
    }

    /// <summary>A rank on another host has taken a piece of its input.</summary>
    void OnRankInputTaken(int rank)
    {
    }

    /// <summary>The job that it has begun cannot go on without a node, or an agent, that is lost; what is left of it is being ended.</summary>
    void OnJobLost()
    {
    }

    /// <summary>The ranks that the observer has started are to get a signal.</summary>
    void OnSignalRanks(int signal)
    {
    }
}

/// <summary>What a run wants.</summary>
/// <param name="Name">Name of its region, or null for one made from the program's name.</param>
/// <param name="Program">The program, for listings and messages.</param>
/// <param name="LocalBytes">Budget of local frames, or null for the default (half of what the node contributes).</param>
/// <param name="ProcessId">The supervisor, <c>vsmp run</c>.</param>
/// <param name="UserId">Who runs it, from the socket's credentials.</param>
/// <param name="Job">The job that its processes are ranks of, or null.</param>
/// <param name="Redundancy">What its memory survives, or null for what is usual in the cluster.</param>
internal sealed record RunRequest(string? Name, string Program, ulong? LocalBytes, int ProcessId, uint UserId, JobMembership? Job = null,
    Redundancy? Redundancy = null);

/// <summary>What memory survives.</summary>
internal enum Redundancy
{
    /// <summary>Nothing: what a lost node was home to, and nobody has a copy of, is lost.</summary>
    None = 0,
    /// <summary>The loss of any one node other than the guest's own, or those of the ranks: every page has a second home.</summary>
    Mirror = 1,
}

/// <summary>What makes a run part of a job.</summary>
/// <param name="Job">The job's number.</param>
/// <param name="Token">What its ranks show to join.</param>
internal sealed record JobMembership(ulong Job, string Token);

/// <summary>What a job wants.</summary>
/// <param name="Ranks">How many.</param>
/// <param name="Nodes">The nodes that ranks and homes are spread over; null: all that are up.</param>
/// <param name="Name">Name of a region that is attached without one, or null.</param>
/// <param name="Protocol">What keeps its regions coherent; null: the default.</param>
/// <param name="Program">The program, for listings and messages.</param>
/// <param name="Redundancy">What its regions survive, or null for what is usual in the cluster.</param>
/// <param name="Checkpoint">What it wants of checkpoints; null: none.</param>
/// <param name="Command">The program and its arguments, to be run again from a checkpoint; null: they cannot be kept.</param>
/// <param name="Directory">Where it is run.</param>
internal sealed record JobRequest(int Ranks, IReadOnlyList<string>? Nodes, string? Name, string? Protocol, string Program, Redundancy? Redundancy = null, CheckpointWish? Checkpoint = null,
    IReadOnlyList<string>? Command = null, string? Directory = null);

/// <summary>The program of ranks on other hosts, byte for byte as it was typed.</summary>
/// <param name="Ranks">Which ranks.</param>
/// <param name="Arguments">The program and its arguments, each with a terminating zero.</param>
/// <param name="Environment">NAME=value, each with a terminating zero.</param>
/// <param name="Directory">Where to start it.</param>
/// <param name="LocalBytes">Budget of each node, or null for the default.</param>
/// <param name="Name">The program's name, for listings.</param>
internal sealed record RankProgram(int[] Ranks, byte[][] Arguments, byte[][] Environment, string Directory, ulong? LocalBytes, string Name);

/// <summary>What a node is to start.</summary>
/// <param name="Job">The job's number.</param>
/// <param name="Token">What ranks show to join.</param>
/// <param name="UserId">As whom.</param>
/// <param name="GroupId">With which group, and no other.</param>
/// <param name="Size">Ranks of the job.</param>
/// <param name="Program">What.</param>
internal sealed record RankOrders(ulong Job, string Token, uint UserId, uint GroupId, int Size, RankProgram Program);

/// <summary>A job that has begun.</summary>
/// <param name="Job">Its number.</param>
/// <param name="Token">Goes into the ranks' environment as VSMP_JOB.</param>
/// <param name="Protocol">What keeps its regions coherent.</param>
/// <param name="Placement">The node of each rank.</param>
/// <param name="Restored">The generation of its checkpoint that it goes on from; 0: it begins.</param>
internal sealed record JobTicket(ulong Job, string Token, string Protocol, IReadOnlyList<string> Placement, uint Restored);

/// <summary>A run that has begun.</summary>
/// <param name="Token">Goes into the guests' environment as VSMP_RUN.</param>
/// <param name="GuestSocket">Goes into the guests' environment as VSMP_GUEST_SOCKET.</param>
/// <param name="LocalBytes">The budget that was set.</param>
internal sealed record RunTicket(string Token, string GuestSocket, ulong LocalBytes);

/// <summary>Figures of a run, as <c>--stats</c> writes them. Microseconds, bytes and counts.</summary>
internal sealed record RunStatistics
{
    public double WallSeconds { get; init; }
    /// <summary>How often the agent was killed and started again; all other figures but the time count from the last start.</summary>
    public int AgentRestarts { get; init; }
    public ulong FaultsRead { get; init; }
    public ulong FaultsWrite { get; init; }
    public ulong PagesFetched { get; init; }
    public ulong PagesForeseen { get; init; }
    public ulong PagesEvicted { get; init; }
    public ulong PagesWrittenBack { get; init; }
    public ulong BytesSent { get; init; }
    public ulong BytesReceived { get; init; }
    public ulong PeakLocalBytes { get; init; }
    public ulong PeakPoolBytes { get; init; }
    public ulong PeakPrivateBytes { get; init; }
    public FaultMicroseconds FaultMicroseconds { get; init; } = new(0, 0, 0);
    /// <summary>Peak of home bytes of the run's regions, by node name.</summary>
    public Dictionary<string, ulong> PeakHomeBytes { get; init; } = [];
    /// <summary>Of the node while the run lasted, whoever caused it.</summary>
    public FabricStatistics Fabric { get; init; } = new();
}

/// <summary>Figures of a job, as <c>vsmp spmd --stats</c> writes them.</summary>
/// <param name="WallSeconds">From the start of the first rank to the end of the last.</param>
/// <param name="Protocol">What kept its regions coherent.</param>
/// <param name="RankNodes">The node of each rank.</param>
/// <param name="Nodes">The figures of each node that had ranks; a node that was lost is not there.</param>
internal sealed record JobStatistics(double WallSeconds, string Protocol, IReadOnlyList<string> RankNodes, Dictionary<string, RunStatistics> Nodes);

/// <summary>Time from the arrival of a fault at the agent to its resolution.</summary>
internal sealed record FaultMicroseconds(double P50, double P99, double Max);

/// <summary>A cluster as one agent sees it, and what that agent has sent, received and done since it started.</summary>
internal sealed record ClusterStatus(string Cluster, uint View, uint Epoch, string Self, IReadOnlyList<NodeStatus> Nodes, FabricStatistics Fabric,
    AgentStatistics Agent)
{
    /// <summary>Faults that are injected at nodes of this host; the command that shows the status asks each.</summary>
    public IReadOnlyList<InjectedFault> Injected { get; init; } = [];

    /// <summary>How it is decided who is a member: "by node NAME, the coordinator" or "by majority, with the record in etcd://…".</summary>
    public string Membership { get; init; } = "";

    /// <summary>Why nobody can join, leave or be excluded at the moment, as far as that agent knows; null: nothing is in the way.</summary>
    public string? MembershipProblem { get; init; }
}

/// <summary>What an agent has done since it started.</summary>
/// <param name="Faults">Faults of its guests that it has served.</param>
/// <param name="ReactorAllocatedBytes">Managed memory that its reactor has allocated; serving a fault takes none.</param>
internal sealed record AgentStatistics(ulong Faults, ulong ReactorAllocatedBytes);

/// <summary>A node's memory: <c>Contributed = Home + Cache + Free</c>; private memory of its guests beside them.</summary>
/// <param name="Name">The node's name.</param>
/// <param name="Id">Its number.</param>
/// <param name="Address">Where it listens.</param>
/// <param name="State">"up", "draining" (being emptied, to leave) or "unreachable".</param>
/// <param name="ContributedBytes">What it gives to the pool.</param>
/// <param name="HomeBytes">Reserved for pages whose home it is.</param>
/// <param name="CacheBytes">Set aside for its own guests' copies of remote pages.</param>
/// <param name="FreeBytes">The rest.</param>
/// <param name="PrivateBytes">Memory of its guests outside the pool.</param>
/// <param name="UsedBytes">What its frame files hold right now.</param>
/// <param name="Guests">Attached processes.</param>
/// <param name="FaultsPerSecond">Over the last second or so.</param>
internal sealed record NodeStatus(string Name, ushort Id, string Address, string State, ulong ContributedBytes, ulong HomeBytes,
    ulong CacheBytes, ulong FreeBytes, ulong PrivateBytes, ulong UsedBytes, uint Guests, double FaultsPerSecond);

/// <summary>An attached process.</summary>
internal sealed record GuestStatus(int ProcessId, string Program, string Region, uint UserId, ulong PoolBytes, ulong LocalBytes,
    ulong PrivateBytes, ulong Faults, double AgeSeconds);

/// <summary>A region: where its pages' homes are, and what it survives.</summary>
internal sealed record RegionStatus(string Name, string Id, string Protocol, ulong ReservedBytes, string Creator, string Redundancy,
    Dictionary<string, ulong> HomeBytes);

/// <summary>Memory that was lost with nodes.</summary>
/// <param name="Region">Of which region.</param>
/// <param name="ProcessId">Whose it was.</param>
/// <param name="Program">What that runs.</param>
/// <param name="Nodes">With which nodes.</param>
/// <param name="Pages">First page and count of each piece, ascending.</param>
internal sealed record LossStatus(string Region, int ProcessId, string Program, string Nodes, IReadOnlyList<PageSpan> Pages);

/// <summary>Neighbouring pages of a region.</summary>
internal sealed record PageSpan(ulong First, ulong Count);

/// <summary>A request that could not be met; the message says what, where and what to do.</summary>
internal sealed class ControlException(string message, int exitCode = ExitCodes.Failed) : Exception(message)
{
    /// <summary>What the command that asked exits with: one of <see cref="ExitCodes"/>.</summary>
    public int ExitCode { get; } = exitCode;
}
