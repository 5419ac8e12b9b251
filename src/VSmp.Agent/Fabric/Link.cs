// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric;

/// <summary>How links are made. Values are on the wire, in a handshake's hello: both sides must mean the same.</summary>
internal enum TransportKind : byte
{
    /// <summary>The connection that was authenticated carries the frames.</summary>
    Tcp = 0,
    /// <summary>RDMA: a reliable connected queue pair carries them; the connection that was authenticated shows whether the peer lives.</summary>
    Verbs = 1,
}

/// <summary>Makes what carries sessions. Owned by the reactor.</summary>
internal interface ITransport : IDisposable
{
    /// <summary>Which.</summary>
    TransportKind Kind { get; }

    /// <summary>Makes a link out of a connection on which both sides have proved who they are.</summary>
    /// <param name="session">Whom it is to carry.</param>
    /// <param name="fd">The connection; the link's from now on.</param>
    /// <param name="key">A key that only the two sides know, different each time.</param>
    Link Create(Session session, int fd, ReadOnlySpan<byte> key);
}

/// <summary>
/// What carries a session at the moment: takes what is in the outbox to the peer, and hands what comes to <see cref="Session.OnFrame"/>,
/// in order, without gap. It never comes back: when it fails it says so (<see cref="Session.Drop"/>), and the session makes another.
/// Owned by the reactor.
/// </summary>
internal abstract unsafe class Link(Session session) : IDisposable
{
    /// <summary>Whom it carries.</summary>
    protected Session Session => session;

    /// <summary>What is injected between here and the peer; null where nothing may be: anywhere but in a development cluster.</summary>
    protected LinkFaults? Faults { get; } = session.Fabric.Faults is { } plan ? new LinkFaults(plan, session) : null;

    /// <summary>Whether it carries frames yet; it says so once, by <see cref="Session.OnUp"/>.</summary>
    public bool IsUp { get; protected set; }

    /// <summary>Whether it can take nothing just now; it goes on by itself.</summary>
    public abstract bool IsBlocked { get; }

    /// <summary>Whether an acknowledgement can go, even if nothing else can: or two sides without credit would wait for each other.</summary>
    public virtual bool CanAck => !IsBlocked;

    /// <summary>Whether the peer needs an acknowledgement soon to be able to go on.</summary>
    public abstract bool OwesAckNow { get; }

    /// <summary>Begins; may call the session at once.</summary>
    public abstract void Begin();

    /// <summary>Takes what is to be sent, as far as it goes.</summary>
    public abstract void Send();

    /// <summary>Sends an acknowledgement alone, unless frames that carry it are about to go.</summary>
    public abstract void SendAck();

    /// <summary>Memory of an outbox is given back to the system.</summary>
    public virtual void Forget(byte* chunk)
    {
    }

    /// <inheritdoc/>
    public abstract void Dispose();
}
