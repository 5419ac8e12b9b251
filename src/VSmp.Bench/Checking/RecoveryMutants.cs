// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;
using static VSmp.Bench.Checking.WorldBugs;
using static VSmp.Coherence.Protocols.DirectoryAction;
using static VSmp.Coherence.Protocols.NodeAction;
using static VSmp.Coherence.Protocols.NodeState;
using D = VSmp.Coherence.Protocols.DirectoryState;
using DE = VSmp.Coherence.Protocols.DirectoryEvent;
using NE = VSmp.Coherence.Protocols.NodeEvent;

namespace VSmp.Bench.Checking;

/// <summary>A bug that shows only where a node is lost, or an agent is killed.</summary>
internal sealed record RecoveryMutant(string Name, string Where, Protocol Protocol, WorldBugs Bugs) : Mutant(Name, Where, Finder.Checker)
{
    /// <inheritdoc/>
    public override string ProtocolName => Protocol.Name;

    /// <inheritdoc/>
    public override MutantResult Seek(int threads)
    {
        var bounds = new Scenario(Protocol, Nodes: 3, Pages: 1, Outstanding: 1) { Crashes = 1, Holds = false, Refusals = false };
        return CheckedMutant.Search(Name, Bugs >= RecordedLate
            ?
            [
                bounds with { Nodes = 2, Crashes = 0, Restarts = 1, Outstanding = 2 },
                bounds with { Nodes = 2, Crashes = 0, Restarts = 2 },
                bounds with { Crashes = 0, Restarts = 1, Mirror = 1, HomeUses = false },
            ]
            :
            [
                bounds with { Mirror = 1, HomeUses = false },
                bounds with { Mirror = 1, HomeUses = false, IsPrivate = true, Outstanding = 2 },
                bounds with { Mirror = 1 },
                bounds with { HomeUses = false },
                bounds with { Nodes = 4, Mirror = 1, HomeUses = false, UsersStay = true, HasBystander = true },
            ],
            Bugs, threads);
    }
}

/// <summary>Bugs in mirrors, in what a lost node makes of a page's state, and in how directories are rebuilt.</summary>
internal static class RecoveryMutants
{
    /// <summary>All of them.</summary>
    public static IReadOnlyList<Mutant> All { get; } =
    [
        Table("a writeback is acknowledged before it is mirrored", "home: M × PutM: acknowledges at once", new Protocol(Msi.Protocol.Name, Msi.Protocol.Node,
            Msi.Protocol.Directory.With(D.M, DE.PutM, D.I_W, WriteHome, ClearOwner, DirectoryAction.Mirror, SendPutAck).With(D.I_W, DE.Mirrored, D.I)
                .With(D.M_A, DE.PutM, D.I_AW, WriteHome, DirectoryAction.Mirror, SendPutAck).With(D.I_AW, DE.Mirrored, D.I_A))),
        Table("a writeback that was answered for is acknowledged before it is mirrored", "home: S_W × StalePutM: SendPutAck", new Protocol(Msi.Protocol.Name,
            Msi.Protocol.Node, Msi.Protocol.Directory.With(D.S_W, DE.StalePutM, D.S_W, SendPutAck))),
        Frozen("a copy that was being given up is dropped when a node is lost", MI_A, I, ReleaseKept, NodeAction.Complete),
        Frozen("a downgraded page is dropped when a node is lost, though the home may lack it", MS_K, I, Unmap, NodeAction.Complete),
        Frozen("a copy that was handed over counts as the new owner's", MI_K, F),
        Frozen("a page that was being thrown away comes back", ZI_A, I, NodeAction.Complete),
        Frozen("an upgrade is used though InvAcks were out when a node was lost", SM_A, M, NodeAction.MakeWritable, NodeAction.EndTransaction),
        Table("a copy stays kept when all go on", "F × Thaw: Complete → I", new Protocol(Msi.Protocol.Name,
            Msi.Protocol.Node.With(F, NE.Thaw, I, NodeAction.Complete), Msi.Protocol.Directory)),
        World("messages from before count after", "all: look at no generation", OldGenerationServed),
        World("a mirror becomes home though the home is left", "mirror: promotes itself", MirrorPromotesItself),
        World("a copy that was being given up counts more than a newer one at home", "home: looks at no version", KeptBelieved),
        World("a home copy counts though readers have a newer one", "home: looks at no version", HomeBelieved, Mesi.Protocol),
        World("what was on its way to the mirror is forgotten", "home: forgets MirrorLacks", MirrorGapForgotten),
        World("users say what they have before all are frozen", "leader: one round", ClaimsTooEarly),
        World("who waits while directories are rebuilt waits for ever", "pager: not tried again", NotRetriedAtThaw),
        World("a reader goes on before it knows that it is the owner", "home: does not wait for it", PromoteNotAwaited),
        World("a home that knows nothing believes what is left over", "home: version 0, not the highest", LeftoversBelieved),
        World("a page is recorded when it is mapped, or freed, already", "pager: records late", RecordedLate),
        World("a page is recorded before its data are there", "pager: records early", RecordedEarly),
        World("what others are told is recorded later", "pager: sends before it records", SentBeforeRecorded),
        World("an agent that adopts a page leaves its frame", "adoption: does not free", AdoptedFrames),
        World("an agent that adopts a region hears what the one before it was sent", "adoption: not deaf", AdoptedHears),
        World("an agent that adopts a region does not know what was frozen", "adoption: releases nothing", AdoptedStayFrozen),
        World("a home takes what it granted its own node for installed", "home: does not look", GrantToSelfBelieved),
        World("of several users only the leader says what it has", "leader: asks nobody else", OnlyLeaderClaims),
    ];

    private static RecoveryMutant Table(string name, string where, Protocol protocol) => new(name, where, protocol, WorldBugs.None);

    private static RecoveryMutant Frozen(string name, NodeState state, NodeState next, params NodeAction[] actions) =>
        Table(name, $"{state} × Freeze: {string.Join(", ", actions)}{(actions.Length > 0 ? " " : "")}→ {next}",
            new Protocol(Msi.Protocol.Name, Msi.Protocol.Node.With(state, NE.Freeze, next, actions), Msi.Protocol.Directory));

    private static RecoveryMutant World(string name, string where, WorldBugs bugs, Protocol? protocol = null) =>
        new(name, where, protocol ?? Msi.Protocol, bugs);
}
