// SPDX-License-Identifier: Apache-2.0
using System.Text.Json.Serialization;
using VSmp.Agent.Auditing;
using VSmp.Agent.Cli;
using VSmp.Agent.Elasticity;

namespace VSmp.Agent.Control;

/// <summary>What a request on the control socket asks for.</summary>
internal enum ControlOperation
{
    Unknown = 0,
    Status = 1,
    Guests = 2,
    Regions = 3,
    StopGuest = 4,
    BeginRun = 5,
    GetRun = 6,
    EndRun = 7,
    Shutdown = 8,
    BeginJob = 9,
    ReportRank = 10,
    EndJob = 11,
    StartRanks = 12,
    SignalRanks = 13,
    TakeRanks = 14,
    RankOutput = 15,
    RankEnded = 16,
    RankInput = 17,
    RankInputTaken = 18,
    Inject = 19,
    Faults = 20,
    Losses = 21,
    AskNode = 22,
    ResumeRun = 23,
    ResumeJob = 24,
}

/// <summary>What a line from the agent tells without having been asked, on a connection that has begun or resumed a run.</summary>
internal enum ControlEvent
{
    Unknown = 0,
    Message = 1,
    GuestAttached = 2,
    GuestDetached = 3,
    RankOutput = 4,
    RankEnded = 5,
    SignalRanks = 6,
    RankInput = 7,
    RankInputTaken = 8,
    JobLost = 9,
}

/// <summary>One line to the agent. Which members count depends on <see cref="Operation"/>.</summary>
internal sealed record ControlRequest
{
    /// <summary>The version of this conversation.</summary>
    public const int CurrentVersion = 1;

    public int Version { get; init; } = CurrentVersion;

    /// <summary>Repeated in the reply.</summary>
    public int Id { get; init; }

    public ControlOperation Operation { get; init; }

    /// <summary>StopGuest: which.</summary>
    public int? ProcessId { get; init; }

    /// <summary>BeginRun: what the run wants. Process and user are filled in by the server, from the socket.</summary>
    public RunRequest? Run { get; init; }

    /// <summary>ResumeRun, ResumeJob: which.</summary>
    public string? Token { get; init; }

    /// <summary>BeginJob: what the job wants.</summary>
    public JobRequest? Job { get; init; }

    /// <summary>ReportRank, RankOutput, RankEnded, RankInput, RankInputTaken: which.</summary>
    public int? Rank { get; init; }

    /// <summary>StartRanks: what.</summary>
    public RankProgram? Program { get; init; }

    /// <summary>SignalRanks: the signal. RankOutput: a <see cref="RankStream"/>. RankEnded: exit code or signal.</summary>
    public int? Number { get; init; }

    /// <summary>RankEnded: whether <see cref="Number"/> is a signal.</summary>
    public bool? IsSignaled { get; init; }

    /// <summary>RankOutput: what it printed. RankInput: what it is to read; empty: nothing more. AskNode: the question's details.</summary>
    public byte[]? Data { get; init; }

    /// <summary>AskNode: which node.</summary>
    public string? Node { get; init; }

    /// <summary>AskNode: what.</summary>
    public NodeQuestion? Question { get; init; }

    /// <summary>Inject: what.</summary>
    public FaultOrder? Fault { get; init; }

    /// <summary>Shutdown: why. ReportRank, RankEnded: how it ended.</summary>
    public string? Reason { get; init; }
}

/// <summary>One line from the agent: a reply (Id is set) or an event.</summary>
internal sealed record ControlReply
{
    public int? Id { get; init; }

    /// <summary>Why the request could not be met, for a user's eyes.</summary>
    public string? Error { get; init; }

    /// <summary>With <see cref="Error"/>: one of <see cref="ExitCodes"/>.</summary>
    public int? ExitCode { get; init; }

    public ClusterStatus? Status { get; init; }

    public IReadOnlyList<GuestStatus>? Guests { get; init; }

    public IReadOnlyList<RegionStatus>? Regions { get; init; }

    public IReadOnlyList<LossStatus>? Losses { get; init; }

    /// <summary>StopGuest: whether there was such a guest. ResumeRun, ResumeJob: false, with <see cref="Error"/>, if there is no such run or job.</summary>
    public bool? Found { get; init; }

    public IReadOnlyList<FaultStatus>? Faults { get; init; }

    public RunTicket? Ticket { get; init; }

    public JobTicket? Job { get; init; }

    /// <summary>TakeRanks: what to start.</summary>
    public RankOrders? Orders { get; init; }

    /// <summary>RankOutput, RankEnded, RankInput, RankInputTaken: which.</summary>
    public int? Rank { get; init; }

    /// <inheritdoc cref="ControlRequest.Number"/>
    public int? Number { get; init; }

    /// <inheritdoc cref="ControlRequest.IsSignaled"/>
    public bool? IsSignaled { get; init; }

    /// <inheritdoc cref="ControlRequest.Data"/>
    public byte[]? Data { get; init; }

    public RunStatistics? Statistics { get; init; }

    public ControlEvent? Event { get; init; }

    /// <summary>Message, RankEnded: for the user's eyes.</summary>
    public string? Text { get; init; }

    /// <summary>GuestAttached (a copy of its userfaultfd comes along), GuestDetached.</summary>
    public int? ProcessId { get; init; }
}

/// <summary>The control socket's messages as JSON, and what <c>--json</c> and <c>--stats</c> write.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(ControlRequest))]
[JsonSerializable(typeof(ControlReply))]
[JsonSerializable(typeof(RankOrders))]
[JsonSerializable(typeof(DrainStatus))]
[JsonSerializable(typeof(RebalanceStatus))]
[JsonSerializable(typeof(NodeAudit))]
internal sealed partial class ControlJson : JsonSerializerContext;

/// <summary>The same, for people: indented, nothing left out.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(ClusterStatus))]
[JsonSerializable(typeof(RunStatistics))]
[JsonSerializable(typeof(JobStatistics))]
[JsonSerializable(typeof(AuditReport))]
internal sealed partial class ReportJson : JsonSerializerContext;
