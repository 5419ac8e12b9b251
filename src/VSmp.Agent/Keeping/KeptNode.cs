// SPDX-License-Identifier: Apache-2.0
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Keeping;

/// <summary>What a keeper holds of a node, for an agent that is started after another. Its descriptors go with it when it is disposed.</summary>
/// <param name="Sockets">Where the node listens; null: nothing is held of that.</param>
/// <param name="Guests">Attached processes, dead or alive.</param>
/// <param name="Mappings">Their memory.</param>
internal sealed record KeptNode(KeptSockets? Sockets, IReadOnlyList<KeptGuest> Guests, IReadOnlyList<KeptMapping> Mappings) : IDisposable
{
    /// <summary>The hold of the sockets.</summary>
    public static readonly HoldKey SocketsKey = new(1);

    /// <summary>The first key that guests and mappings may have; those below are for what a node has one of.</summary>
    public static readonly HoldKey FirstKey = new(0x100);

    /// <summary>The first key that is free, and so are all above.</summary>
    public HoldKey NextKey => new(Guests.Select(g => g.Key.Value).Concat(Mappings.Select(m => m.Key.Value)).Append(FirstKey.Value - 1).Max() + 1);

    /// <summary>Makes sense of what the keeper has listed, and owns it from then on.</summary>
    /// <exception cref="InvalidDataException">It is of an agent of another build, or makes no sense; nothing is owned then.</exception>
    public static KeptNode Of(IReadOnlyCollection<KeptHold> holds)
    {
        try
        {
            KeptHold? sockets = holds.FirstOrDefault(h => h.Key == SocketsKey);
            if (sockets is not null && (sockets.Kind != HoldKind.Other || sockets.Descriptors.Count != 2)) throw Strange(sockets);
            if (holds.FirstOrDefault(h => h.Kind == HoldKind.Other && h != sockets) is { } unknown) throw Strange(unknown);
            KeptGuest[] guests = [.. holds.Where(h => h.Kind == HoldKind.Guest).Select(h =>
                new KeptGuest(h.Key, GuestRecord.TryRead(h.Data) ?? throw Strange(h), h.IsGone, h.Descriptors[0]))];
            KeptMapping[] mappings = [.. holds.Where(h => h.Kind == HoldKind.Mapping).Select(h =>
                new KeptMapping(h.Key, MappingRecord.TryRead(h.Data) ?? throw Strange(h), h.Descriptors[0]))];
            foreach (KeptHold mapping in holds.Where(h => h.Kind == HoldKind.Mapping))
            {
                // What the keeper says, and what the agent said, is one thing.
                if (Array.Find(mappings, m => m.Key == mapping.Key)!.Range.Guest != mapping.Guest || !Array.Exists(guests, g => g.Key == mapping.Guest))
                    throw Strange(mapping);
            }
            return new KeptNode(sockets is null ? null : new KeptSockets(sockets.Descriptors[0], sockets.Descriptors[1]), guests, mappings);
        }
        catch
        {
            foreach (KeptHold hold in holds) hold.Dispose();
            throw;
        }
    }

    /// <summary>The memory of one of the processes.</summary>
    public IEnumerable<KeptMapping> MappingsOf(KeptGuest guest) => Mappings.Where(mapping => mapping.Range.Guest == guest.Key);

    /// <inheritdoc/>
    public void Dispose()
    {
        Sockets?.Dispose();
        foreach (KeptGuest guest in Guests) guest.Process.Dispose();
        foreach (KeptMapping mapping in Mappings) mapping.Userfaultfd.Dispose();
    }

    private static InvalidDataException Strange(KeptHold hold) =>
        new($"the keeper holds what this build cannot make sense of: {hold.Key}, {hold.Kind}, {hold.Data.Length} bytes");
}

/// <summary>Where a node listens for peers.</summary>
/// <param name="Listener">For connections.</param>
/// <param name="Datagrams">For heartbeats, on the same port.</param>
internal sealed record KeptSockets(SafeFileHandle Listener, SafeFileHandle Datagrams) : IDisposable
{
    /// <inheritdoc/>
    public void Dispose()
    {
        Listener.Dispose();
        Datagrams.Dispose();
    }
}

/// <summary>An attached process.</summary>
/// <param name="Key">What it is held under.</param>
/// <param name="Who">Who it is.</param>
/// <param name="IsGone">It is dead.</param>
/// <param name="Process">Its pidfd.</param>
internal sealed record KeptGuest(HoldKey Key, GuestRecord Who, bool IsGone, SafeFileHandle Process)
{
    /// <summary>The pidfd, which is the caller's from now on.</summary>
    public SafeFileHandle TakeProcess()
    {
        var taken = new SafeFileHandle(Process.DangerousGetHandle(), ownsHandle: true);
        Process.SetHandleAsInvalid();
        return taken;
    }
}

/// <summary>Memory of an attached process.</summary>
/// <param name="Key">What it is held under.</param>
/// <param name="Range">Whose, of what, and where.</param>
/// <param name="Userfaultfd">What tells of its faults.</param>
internal sealed record KeptMapping(HoldKey Key, MappingRecord Range, SafeFileHandle Userfaultfd)
{
    /// <summary>The userfaultfd, which is the caller's from now on.</summary>
    public int TakeUserfaultfd()
    {
        int taken = (int)Userfaultfd.DangerousGetHandle();
        Userfaultfd.SetHandleAsInvalid();
        return taken;
    }
}
