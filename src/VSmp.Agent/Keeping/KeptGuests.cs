// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;

namespace VSmp.Agent.Keeping;

/// <summary>
/// Sees to it that the keeper holds this node's guests and their memory: whoever waits for a page when the agent dies waits on, and reads no
/// zeros, and every guest is stopped when the lease ends. Owned by the reactor.
/// </summary>
internal sealed class KeptGuests
{
    /// <summary>Programs are told of a stop only if it was long enough for somebody to notice.</summary>
    private static readonly TimeSpan WorthTelling = TimeSpan.FromSeconds(1);

    private readonly KeeperClient _keeper;
    private readonly Runs _runs;
    private readonly Dictionary<Guest, HoldKey> _guests = [];
    private readonly Dictionary<Mapping, HoldKey> _mappings = [];
    private ulong _nextKey;
    private BootTime? _fencedAt;

    /// <summary>Begins with nothing.</summary>
    /// <param name="keeper">The keeper.</param>
    /// <param name="runs">Whose guests they are.</param>
    /// <param name="nextKey">Keys from here on are free.</param>
    public KeptGuests(KeeperClient keeper, Runs runs, HoldKey nextKey)
    {
        _keeper = keeper;
        _runs = runs;
        _nextKey = nextKey.Value;
        keeper.Fenced += OnFenced;
        keeper.Resumed += OnResumed;
    }

    /// <summary>Ends guests that nobody takes over: a guest without its agent's knowledge must not live. Waits for their end. Before the keeper is watched.</summary>
    /// <param name="keeper">The keeper.</param>
    /// <param name="node">What it holds.</param>
    /// <param name="guests">Which; of those that are dead, and of the memory of all of them, nothing is held afterwards.</param>
    /// <param name="why">For the log and for messages.</param>
    /// <returns>How many were alive.</returns>
    /// <exception cref="IOException">One cannot be ended, or there is no keeper any more.</exception>
    public static int End(KeeperClient keeper, KeptNode node, IReadOnlyCollection<KeptGuest> guests, string why)
    {
        const int PatienceMilliseconds = 5_000;
        KeptGuest[] alive = [.. guests.Where(guest => !guest.IsGone)];
        foreach (KeptGuest guest in alive) _ = keeper.Kill(guest.Key, why);
        foreach (KeptGuest guest in alive)
        {
            // Who is not dead would read zeros when its memory is dropped.
            if (!ProcessControl.WaitForExit(guest.Process, PatienceMilliseconds))
                throw new IOException($"process {guest.Who.Process.ProcessId}, a guest of the agent that was here before, cannot be ended");
        }
        foreach (KeptGuest guest in guests) Drop(keeper, node, guest);
        return alive.Length;
    }

    /// <summary>A guest has nothing yet: its process may attach anew.</summary>
    public static void Drop(KeeperClient keeper, KeptNode node, KeptGuest guest)
    {
        foreach (KeptMapping mapping in node.MappingsOf(guest)) _ = keeper.Drop(mapping.Key);
        _ = keeper.Drop(guest.Key);
    }

    /// <summary>A process that is held already was taken over, with its mappings.</summary>
    public void Adopt(Guest guest, HoldKey key, IEnumerable<(Mapping Mapping, HoldKey Key)> mappings)
    {
        _guests.Add(guest, key);
        foreach ((Mapping mapping, HoldKey mappingKey) in mappings) _mappings.Add(mapping, mappingKey);
    }

    /// <summary>A process has attached.</summary>
    /// <param name="guest">The process.</param>
    /// <param name="rank">Its number, if it is a rank.</param>
    public void Add(Guest guest, int? rank)
    {
        // One that is dead already is about to be removed.
        if (guest.Identity is not { } process) return;
        var key = new HoldKey(_nextKey++);
        _guests.Add(guest, key);
        var who = new GuestRecord(process, rank is null ? guest.Region.Id : null, rank, guest.Run.Token,
            rank is null ? guest.Region.Layout.Name : Path.GetFileName(guest.Run.Request.Program));
        _keeper.HoldLater(key, HoldKind.Guest, [(int)guest.Process.DangerousGetHandle()], who.ToBytes(), default, error =>
        {
            // Without it none of its memory is held either, and it gets none.
            if (error is not (0 or Errno.ESRCH or Errno.EPIPE)) Log.Error($"the keeper does not hold process {process.ProcessId}: {Errno.Text(error)}");
        });
    }

    /// <summary>A process has mapped memory.</summary>
    /// <param name="mapping">The mapping.</param>
    /// <param name="address">Where the guest has it.</param>
    /// <param name="first">The region's page that is there.</param>
    /// <param name="pageCount">How many.</param>
    /// <param name="done">Is told 0 when the keeper holds it, or an errno value: then the guest must not use it.</param>
    public void Add(Mapping mapping, ulong address, PageNumber first, ulong pageCount, Action<int> done)
    {
        if (!_guests.TryGetValue(mapping.Guest, out HoldKey guest))
        {
            done(Errno.ESRCH);
            return;
        }
        var key = new HoldKey(_nextKey++);
        _mappings.Add(mapping, key);
        var range = new MappingRecord(guest, mapping.Region.Id, address, first, pageCount);
        _keeper.HoldLater(key, HoldKind.Mapping, [mapping.Userfaultfd], range.ToBytes(), guest, done);
    }

    /// <summary>A mapping is no more.</summary>
    public void Remove(Mapping mapping)
    {
        if (_mappings.Remove(mapping, out HoldKey key)) _keeper.DropLater(key);
    }

    /// <summary>A process is gone, and its mappings have been removed.</summary>
    public void Remove(Guest guest)
    {
        if (_guests.Remove(guest, out HoldKey key)) _keeper.DropLater(key);
    }

    private void OnFenced(FencedNotice notice) => _fencedAt ??= notice.At;

    private void OnResumed(ResumedNotice notice)
    {
        if (_fencedAt is not { } since) return;
        _fencedAt = null;
        TimeSpan stopped = notice.At - since;
        if (stopped < WorthTelling) return;
        foreach (Guest guest in _runs.Guests)
            guest.Tell($"process {guest.ProcessId} goes on: it was stopped for {stopped.TotalSeconds:0.0} s, since this node could not reach the others");
    }
}
