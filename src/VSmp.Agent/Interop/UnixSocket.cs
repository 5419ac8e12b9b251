// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using System.Text;

namespace VSmp.Agent.Interop;

/// <summary>How a Unix socket carries data (unix(7)).</summary>
internal enum UnixSocketType
{
    /// <summary>A stream of bytes.</summary>
    Stream = 1,

    /// <summary>Datagrams, unconnected.</summary>
    Datagram = 2,

    /// <summary>A connection that keeps the messages' borders.</summary>
    SequencedPacket = 5,
}

/// <summary>Who is at the other end of a Unix socket, as the kernel tells (SO_PEERCRED).</summary>
internal readonly record struct PeerCredentials(int ProcessId, uint UserId, uint GroupId);

/// <summary>A Unix socket that can carry descriptors (SCM_RIGHTS) and knows its peer (SO_PEERCRED).</summary>
internal sealed unsafe partial class UnixSocket : SafeHandle
{
    /// <summary>The longest path that a socket's address holds, without its terminating zero.</summary>
    public const int MaxPathBytes = 107;

    /// <summary>Descriptors that one message may carry; the kernel closes what would not fit.</summary>
    public const int MaxDescriptors = 16;

    private const int AF_UNIX = 1, SOCK_NONBLOCK = 0x800, SOCK_CLOEXEC = 0x80000;
    private const int SOL_SOCKET = 1, SO_TYPE = 3, SO_PEERCRED = 17, SO_PEERGROUPS = 59, SCM_RIGHTS = 1;
    private const int MSG_CTRUNC = 0x8, MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000, MSG_CMSG_CLOEXEC = 0x40000000;
    private const int SHUT_RDWR = 2;
    private const int F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, FD_CLOEXEC = 1;
    private const int ControlHeaderBytes = 16;
    private const int Backlog = 64;

    private UnixSocket(int fd)
        : base(-1, ownsHandle: true) => SetHandle(fd);

    /// <inheritdoc/>
    public override bool IsInvalid => handle == -1;

    /// <summary>The descriptor, for a reactor; it stays this object's.</summary>
    public int Descriptor => (int)handle;

    /// <summary>Listens at a path, without blocking. An old socket there is replaced, at once: the caller knows that nobody uses it. Who tries to
    /// connect meanwhile is refused as long as nobody listens, and never for want of a right that the socket is about to give.</summary>
    /// <param name="path">Where.</param>
    /// <param name="type">How it carries data.</param>
    /// <param name="groupId">A group whose members may connect, or null for the owner alone.</param>
    public static UnixSocket Listen(string path, UnixSocketType type, uint? groupId)
    {
        UnixSocket socket = Create(type, SOCK_NONBLOCK);
        try
        {
            string next = path[..^1] + '~'; // as long: what fits the address fits
            _ = Libc.Unlink(next);
            socket.Bind(next);
            UnixFile.Restrict(next, groupId, isDirectory: false);
            if (ListenFor(socket.Descriptor, Backlog) < 0) throw Errno.Exception($"cannot listen at {path}");
            File.Move(next, path, overwrite: true);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>A datagram socket bound to a path, blocking.</summary>
    public static UnixSocket BindDatagram(string path)
    {
        UnixSocket socket = Create(UnixSocketType.Datagram, 0);
        try { socket.Bind(path); }
        catch
        {
            socket.Dispose();
            throw;
        }
        return socket;
    }

    /// <summary>Sends one datagram to a path, or to an abstract address that begins with <c>@</c>; whether anybody hears it or
    /// not.</summary>
    public static void SendDatagram(string address, string text)
    {
        using UnixSocket socket = Create(UnixSocketType.Datagram, 0);
        byte[] data = Encoding.UTF8.GetBytes(text);
        Span<byte> to = stackalloc byte[Address.Bytes];
        int bytes = Address.Write(address, to);
        if (to[2] == (byte)'@')
        {
            to[2] = 0;
            bytes--; // an abstract name has no terminating zero
        }
        // SAFETY: both lie still for the call.
        fixed (byte* toStart = to, start = data)
        {
            _ = SendTo(socket.Descriptor, start, (nuint)data.Length, MSG_NOSIGNAL, toStart, bytes);
        }
    }

    /// <summary>Connects to a path, blocking.</summary>
    /// <exception cref="IOException">Nobody listens there, or we may not; its <see cref="Exception.HResult"/> is the errno
    /// value.</exception>
    public static UnixSocket Connect(string path, UnixSocketType type)
    {
        UnixSocket socket = Create(type, 0);
        Span<byte> address = stackalloc byte[Address.Bytes];
        int bytes = Address.Write(path, address);
        // SAFETY: the address lies on this stack.
        fixed (byte* start = address)
        {
            if (ConnectTo(socket.Descriptor, start, bytes) == 0) return socket;
        }
        int error = Errno.Last;
        socket.Dispose();
        throw Errno.Exception($"cannot connect to {path}", error);
    }

    /// <summary>Takes over a connected socket that this process was started with: from now on non-blocking, and closed on exec.</summary>
    /// <exception cref="IOException">The descriptor is no socket of that type.</exception>
    public static UnixSocket Adopt(int fd, UnixSocketType type)
    {
        int found, bytes = sizeof(int);
        // SAFETY: written by the kernel, on this stack.
        if (GetOption(fd, SOL_SOCKET, SO_TYPE, &found, &bytes) < 0) throw Errno.Exception($"descriptor {fd} is no socket");
        if (found != (int)type) throw new IOException($"descriptor {fd} is a socket of another type");
        if (FileControl(fd, F_SETFD, FD_CLOEXEC) < 0 || FileControl(fd, F_SETFL, FileControl(fd, F_GETFL, 0) | SOCK_NONBLOCK) < 0)
        {
            throw Errno.Exception($"cannot take over descriptor {fd}");
        }
        return new UnixSocket(fd);
    }

    /// <summary>Takes the next connection, non-blocking; null if none waits.</summary>
    public UnixSocket? Accept()
    {
        int fd = AcceptFrom(Descriptor, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
        return fd < 0 ? null : new UnixSocket(fd);
    }

    /// <summary>Who connected; the kernel's word, taken when they did.</summary>
    public PeerCredentials Peer
    {
        get
        {
            (int ProcessId, uint UserId, uint GroupId) credentials;
            int bytes = sizeof(int) * 3;
            // SAFETY: struct ucred is three 32-bit numbers in this order.
            if (GetOption(Descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) < 0)
            {
                throw Errno.Exception("cannot tell who connected");
            }
            return new(credentials.ProcessId, credentials.UserId, credentials.GroupId);
        }
    }

    /// <summary>Whether who connected is a member of the group, by its main group or by one of its others.</summary>
    public bool PeerIsInGroup(uint groupId)
    {
        if (Peer.GroupId == groupId) return true;
        int bytes = 4096;
        while (true)
        {
            var groups = new uint[bytes / sizeof(uint)];
            // SAFETY: pinned for the call; the kernel is told its size.
            fixed (uint* start = groups)
            {
                if (GetOption(Descriptor, SOL_SOCKET, SO_PEERGROUPS, start, &bytes) == 0)
                {
                    return groups.AsSpan(0, bytes / sizeof(uint)).Contains(groupId);
                }
            }
            // ERANGE: `bytes` now says how many there are.
            if (bytes <= groups.Length * sizeof(uint)) return false;
        }
    }

    /// <summary>Sends bytes, and with them a descriptor (−1 for none), which stays the caller's.</summary>
    /// <param name="data">What to send; not empty.</param>
    /// <param name="descriptor">Goes with the first byte.</param>
    /// <param name="wait">Whether to block until there is room.</param>
    /// <returns>Bytes sent, or minus an errno value (EAGAIN when there is no room).</returns>
    public int Send(ReadOnlySpan<byte> data, int descriptor, bool wait) =>
        Send(data, descriptor >= 0 ? [descriptor] : default(ReadOnlySpan<int>), wait);

    /// <summary>Sends bytes, and with the first of them descriptors, which stay the caller's.</summary>
    /// <returns>Bytes sent, or minus an errno value (EAGAIN when there is no room).</returns>
    public int Send(ReadOnlySpan<byte> data, ReadOnlySpan<int> descriptors, bool wait)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, MaxDescriptors);
        const int ControlBytes = ControlHeaderBytes + (MaxDescriptors * sizeof(int));
        byte* control = stackalloc byte[ControlBytes];
        // SAFETY: data is pinned for the call; the control buffer holds one header and its descriptors, laid out as cmsg(3) says.
        fixed (byte* start = data)
        {
            Vector vector = new() { Start = start, Bytes = (nuint)data.Length };
            MessageHeader message = new() { Vectors = &vector, VectorCount = 1 };
            if (!descriptors.IsEmpty)
            {
                *(ulong*)control = (ulong)(ControlHeaderBytes + (descriptors.Length * sizeof(int)));
                *(int*)(control + 8) = SOL_SOCKET;
                *(int*)(control + 12) = SCM_RIGHTS;
                descriptors.CopyTo(new Span<int>(control + ControlHeaderBytes, MaxDescriptors));
                message.Control = control;
                message.ControlBytes = (nuint)(ControlHeaderBytes + ((descriptors.Length + 1) / 2 * 2 * sizeof(int)));
            }
            while (true)
            {
                nint sent = SendMessage(Descriptor, &message, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
                if (sent >= 0) return (int)sent;
                if (Errno.Last != Errno.EINTR) return -Errno.Last;
            }
        }
    }

    /// <summary>Receives bytes, and the descriptors that came with them, which become the caller's.</summary>
    /// <param name="buffer">Where to.</param>
    /// <param name="descriptors">Receives the descriptors; null closes what comes.</param>
    /// <returns>Bytes received, 0 at the end, or minus an errno value. EPROTO: more descriptors than fit; none was
    /// kept.</returns>
    public int Receive(Span<byte> buffer, ICollection<int>? descriptors)
    {
        const int ControlBytes = ControlHeaderBytes + (MaxDescriptors * sizeof(int));
        byte* control = stackalloc byte[ControlBytes];
        // SAFETY: the buffers outlive the call; the control buffer is walked within the length that the kernel reports.
        fixed (byte* start = buffer)
        {
            Vector vector = new() { Start = start, Bytes = (nuint)buffer.Length };
            MessageHeader message = new() { Vectors = &vector, VectorCount = 1, Control = control, ControlBytes = ControlBytes };
            nint received;
            while ((received = ReceiveMessage(Descriptor, &message, MSG_CMSG_CLOEXEC)) < 0)
            {
                if (Errno.Last != Errno.EINTR) return -Errno.Last;
            }
            bool isTruncated = (message.Flags & MSG_CTRUNC) != 0;
            if (message.ControlBytes >= ControlHeaderBytes
                && *(int*)(control + 8) == SOL_SOCKET && *(int*)(control + 12) == SCM_RIGHTS)
            {
                int count = (int)(*(ulong*)control - ControlHeaderBytes) / sizeof(int);
                for (int i = 0; i < count; i++)
                {
                    int fd = ((int*)(control + ControlHeaderBytes))[i];
                    if (descriptors is null || isTruncated) _ = Libc.Close(fd);
                    else descriptors.Add(fd);
                }
            }
            return isTruncated ? -Errno.EPROTO : (int)received;
        }
    }

    /// <summary>Ends the connection both ways: whoever waits in <see cref="Receive"/> sees its end.</summary>
    public void ShutDown() => _ = ShutDownSocket(Descriptor, SHUT_RDWR);

    /// <summary>A copy of a descriptor, closed on exec; the caller's.</summary>
    public static int Duplicate(int fd)
    {
        const int F_DUPFD_CLOEXEC = 1030;
        int copy = FileControl(fd, F_DUPFD_CLOEXEC, 0);
        return copy >= 0 ? copy : throw Errno.Exception($"cannot duplicate descriptor {fd}");
    }

    /// <summary>Whether something can be received (or the peer is gone) within the time.</summary>
    public bool WaitReadable(int timeoutMilliseconds)
    {
        ProcessControl.PollEntry entry = new() { Descriptor = Descriptor, Events = 1 };
        // SAFETY: one entry, on this stack.
        return ProcessControl.Poll(&entry, 1, timeoutMilliseconds) > 0;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Libc.Close((int)handle) == 0;

    private static UnixSocket Create(UnixSocketType type, int flags)
    {
        int fd = NewSocket(AF_UNIX, (int)type | SOCK_CLOEXEC | flags, 0);
        return fd < 0 ? throw Errno.Exception("cannot create a Unix socket") : new UnixSocket(fd);
    }

    private void Bind(string path)
    {
        Span<byte> address = stackalloc byte[Address.Bytes];
        int bytes = Address.Write(path, address);
        // SAFETY: the address lies on this stack.
        fixed (byte* start = address)
        {
            if (BindTo(Descriptor, start, bytes) < 0) throw Errno.Exception($"cannot make the socket {path}");
        }
    }

    /// <summary><c>struct sockaddr_un</c>.</summary>
    private static class Address
    {
        public const int Bytes = 2 + MaxPathBytes + 1;

        public static int Write(string path, Span<byte> address)
        {
            address.Clear();
            address[0] = AF_UNIX;
            if (Encoding.UTF8.GetByteCount(path) > MaxPathBytes)
            {
                throw new IOException($"the socket path {path} is longer than {MaxPathBytes} bytes");
            }
            return 2 + Encoding.UTF8.GetBytes(path, address[2..]) + 1;
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Vector
    {
        public byte* Start;
        public nuint Bytes;
    }

    /// <summary><c>struct msghdr</c>, x86-64.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MessageHeader
    {
        public byte* Name;
        public uint NameBytes;
        public Vector* Vectors;
        public nuint VectorCount;
        public byte* Control;
        public nuint ControlBytes;
        public int Flags;
    }

    [LibraryImport("libc", EntryPoint = "socket", SetLastError = true)]
    private static partial int NewSocket(int domain, int type, int protocol);

    [LibraryImport("libc", EntryPoint = "bind", SetLastError = true)]
    private static partial int BindTo(int socket, byte* address, int addressBytes);

    [LibraryImport("libc", EntryPoint = "connect", SetLastError = true)]
    private static partial int ConnectTo(int socket, byte* address, int addressBytes);

    [LibraryImport("libc", EntryPoint = "listen", SetLastError = true)]
    private static partial int ListenFor(int socket, int backlog);

    [LibraryImport("libc", EntryPoint = "accept4", SetLastError = true)]
    private static partial int AcceptFrom(int socket, byte* address, int* addressBytes, int flags);

    [LibraryImport("libc", EntryPoint = "getsockopt", SetLastError = true)]
    private static partial int GetOption(int socket, int level, int option, void* value, int* valueBytes);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int FileControl(int fd, int command, nint argument);

    [LibraryImport("libc", EntryPoint = "shutdown", SetLastError = true)]
    private static partial int ShutDownSocket(int socket, int how);

    [LibraryImport("libc", EntryPoint = "sendmsg", SetLastError = true)]
    private static partial nint SendMessage(int socket, MessageHeader* message, int flags);

    [LibraryImport("libc", EntryPoint = "sendto", SetLastError = true)]
    private static partial nint SendTo(int socket, byte* data, nuint bytes, int flags, byte* address, int addressBytes);

    [LibraryImport("libc", EntryPoint = "recvmsg", SetLastError = true)]
    private static partial nint ReceiveMessage(int socket, MessageHeader* message, int flags);
}
