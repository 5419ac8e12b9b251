// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;
using static VSmp.Coherence.Lazy.LazyAction;
using static VSmp.Coherence.Lazy.LazyState;
using A = VSmp.Coherence.Lazy.LazyEvent;

namespace VSmp.Coherence.Lazy;

/// <summary>
/// Home-based lazy release consistency, after Zhou, Iftode, Li (OSDI 1996): several nodes write a page at once, each against its own
/// twin; what changed goes to the home at a release and is merged there; write notices invalidate at the next acquire. For programs
/// without data races, and only where they synchronise by our calls. Differences: notices have one order, which the keeper of the locks
/// gives them (<see cref="NoticeLog"/>), instead of vector times, so that an acquire invalidates a few pages more than it must; a
/// release waits until the home has merged every diff, so that the home copy is never behind a notice and fetches need no version.
/// </summary>
public static class LazyRelease
{
    /// <summary>What users call it.</summary>
    public const string Name = "lazy";

    /// <summary>What a node does. A home needs no states: its copy is always there.</summary>
    public static ProtocolTable<LazyState, LazyEvent, LazyAction> Node { get; } = BuildNode();

    private static ProtocolTable<LazyState, LazyEvent, LazyAction> BuildNode()
    {
        var t = new ProtocolTable<LazyState, LazyEvent, LazyAction>(
            [I, R, W, IR_D, IR_D_I, IW_D, IW_D_I],
            [A.Load, A.Store, A.Evict, A.Notice, A.Release, A.Data]);

        t.On(I, A.Load, IR_D, SendGetS);
        t.On(I, A.Store, IW_D, SendGetS);
        t.On(I, A.Evict, I);
        t.On(I, A.Notice, I);
        t.On(I, A.Release, I); // its diff went when it was evicted or invalidated
        t.Impossible(I, A.Data);

        t.On(R, A.Load, R, Hit);
        t.On(R, A.Store, W, MakeTwin, MakeWritable); // nobody is asked
        t.On(R, A.Evict, I, Unmap);
        t.On(R, A.Notice, I, Unmap);
        t.On(R, A.Release, R); // was dirty, went, and came back
        t.Impossible(R, A.Data);

        t.On(W, A.Load, W, Hit);
        t.On(W, A.Store, W, Hit);
        t.On(W, A.Evict, I, WriteProtect, SendDiff, Unmap); // a later GetS travels behind the diff
        t.On(W, A.Notice, I, WriteProtect, SendDiff, Unmap); // others wrote other parts of it
        t.On(W, A.Release, R, WriteProtect, SendDiff);
        t.Impossible(W, A.Data);

        t.Stall(IR_D, A.Load, A.Store, A.Evict);
        t.On(IR_D, A.Notice, IR_D_I);
        t.On(IR_D, A.Release, IR_D);
        t.On(IR_D, A.Data, R, InstallReadable);

        t.Stall(IR_D_I, A.Load, A.Store, A.Evict);
        t.On(IR_D_I, A.Notice, IR_D_I);
        t.On(IR_D_I, A.Release, IR_D_I);
        t.On(IR_D_I, A.Data, IR_D, SendGetS);

        t.Stall(IW_D, A.Load, A.Store, A.Evict);
        t.On(IW_D, A.Notice, IW_D_I);
        t.On(IW_D, A.Release, IW_D);
        t.On(IW_D, A.Data, W, WriteFrame, MakeTwin, MakeWritable);

        t.Stall(IW_D_I, A.Load, A.Store, A.Evict);
        t.On(IW_D_I, A.Notice, IW_D_I);
        t.On(IW_D_I, A.Release, IW_D_I);
        t.On(IW_D_I, A.Data, IW_D, SendGetS);

        return t.Complete();
    }
}
