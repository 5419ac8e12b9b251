// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace VSmp.Agent.Interop;

/// <summary>
/// A native object of libvsmp-verbs.so. Each keeps the one that it lives in (memory its endpoint, an endpoint its id, an id its channel):
/// in whatever order they are disposed, or finalised after an exception, the native ones go children first.
/// </summary>
internal abstract class VerbsHandle : SafeHandleZeroOrMinusOneIsInvalid
{
    private readonly VerbsHandle? _parent;

    /// <summary>Takes over a native object.</summary>
    /// <param name="raw">The object.</param>
    /// <param name="parent">What must outlive it; not disposed yet.</param>
    protected VerbsHandle(ulong raw, VerbsHandle? parent)
        : base(ownsHandle: true)
    {
        bool isKept = false;
        parent?.DangerousAddRef(ref isKept);
        _parent = parent;
        SetHandle((nint)raw);
    }

    /// <summary>
    /// The native object, for the path of frames, where counting references would cost more than posting: for who holds the handle,
    /// and is the thread that disposes it.
    /// </summary>
    public ulong Raw => (ulong)handle;

    /// <inheritdoc/>
    protected sealed override bool ReleaseHandle()
    {
        Destroy((ulong)handle);
        _parent?.DangerousRelease();
        return true;
    }

    /// <summary>Destroys the native object; nothing lives in it any more.</summary>
    protected abstract void Destroy(ulong raw);
}

/// <summary>Where the events of connections come from.</summary>
internal sealed unsafe class VerbsChannel : VerbsHandle
{
    private VerbsChannel(ulong raw)
        : base(raw, parent: null)
    {
    }

    /// <summary>Opens one.</summary>
    /// <param name="channel">The channel, if the result is 0.</param>
    /// <param name="fd">Readable when there is an event; the channel's.</param>
    /// <returns>0 or a negative errno, as everything here.</returns>
    public static int Open(out VerbsChannel? channel, out int fd)
    {
        int error = Verbs.OpenChannel(out ulong raw, out fd);
        channel = error == 0 ? new VerbsChannel(raw) : null;
        return error;
    }

    /// <summary>Listens at an address (as <see cref="Sockets.Encode"/> makes it).</summary>
    public int Listen(byte* address, uint addressBytes, uint backlog, out VerbsId? id)
    {
        int error = Verbs.Listen(this, address, addressBytes, backlog, out ulong raw);
        id = error == 0 ? new VerbsId(raw, this) : null;
        return error;
    }

    /// <summary>Begins a connection, from a given address or from any: finds the device.</summary>
    public int Resolve(byte* source, byte* address, uint addressBytes, uint timeoutMilliseconds, out VerbsId? id)
    {
        int error = Verbs.Resolve(this, source, address, addressBytes, timeoutMilliseconds, out ulong raw);
        id = error == 0 ? new VerbsId(raw, this) : null;
        return error;
    }

    /// <summary>Takes over the id of a request that an event brought.</summary>
    public VerbsId Adopt(ulong requested) => new(requested, this);

    /// <inheritdoc/>
    protected override void Destroy(ulong raw) => Verbs.CloseChannel(raw);
}

/// <summary>A listener, or a connection.</summary>
internal sealed unsafe class VerbsId : VerbsHandle
{
    internal VerbsId(ulong raw, VerbsChannel channel)
        : base(raw, channel)
    {
    }

    /// <summary>Makes the queues.</summary>
    /// <param name="limits">What they are to have; says afterwards what they have.</param>
    /// <param name="receiveMemory">The slots. Until the endpoint and all memory registered with it are disposed the device may write there.</param>
    /// <param name="endpoint">The queues, if the result is 0.</param>
    /// <param name="fd">Readable when there are completions; the endpoint's.</param>
    public int Open(VerbsLimits* limits, void* receiveMemory, out VerbsEndpoint? endpoint, out int fd)
    {
        int error = Verbs.Open(this, limits, receiveMemory, out ulong raw, out fd);
        endpoint = error == 0 ? new VerbsEndpoint(raw, this) : null;
        return error;
    }

    /// <inheritdoc/>
    protected override void Destroy(ulong raw) => Verbs.CloseId(raw);
}

/// <summary>The queues of a connection. Disposing takes them down at once, the rest when the memory registered with it is disposed, too.</summary>
internal sealed unsafe class VerbsEndpoint : VerbsHandle
{
    internal VerbsEndpoint(ulong raw, VerbsId id)
        : base(raw, id)
    {
    }

    /// <summary>Lets the device read memory, to send from.</summary>
    public int Register(void* memory, ulong bytes, out VerbsMemory? registered)
    {
        int error = Verbs.Register(this, memory, bytes, out ulong raw, out uint key);
        registered = error == 0 ? new VerbsMemory(raw, this, key) : null;
        return error;
    }

    /// <summary>Disposes without a word to the peer, which gets that when the id is disposed.</summary>
    public void DisposeSilently()
    {
        if (!IsClosed) Verbs.Disconnect(Raw, tellsPeer: 0);
        Dispose();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && !IsClosed) Verbs.Disconnect(Raw, tellsPeer: 1);
        base.Dispose(disposing);
    }

    /// <inheritdoc/>
    protected override void Destroy(ulong raw) => Verbs.Close(raw);
}

/// <summary>Memory that the device may read, to send from.</summary>
internal sealed class VerbsMemory : VerbsHandle
{
    internal VerbsMemory(ulong raw, VerbsEndpoint endpoint, uint key)
        : base(raw, endpoint) => Key = key;

    /// <summary>Goes with a send.</summary>
    public uint Key { get; }

    /// <inheritdoc/>
    protected override void Destroy(ulong raw) => _ = Verbs.Deregister(raw);
}
