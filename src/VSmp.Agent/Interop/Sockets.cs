// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary>
/// Sockets as the kernel has them. The fabric uses these and not <see cref="Socket"/>: its descriptors belong to a reactor's
/// epoll set, move between reactors, and are read and written without a pool hop or an allocation.
/// </summary>
internal static unsafe partial class Sockets
{
    private const string Name = "libc";
    private const int AF_INET = 2, AF_INET6 = 10, SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_NONBLOCK = 0x800, SOCK_CLOEXEC = 0x80000;
    private const int SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_ERROR = 4, SO_KEEPALIVE = 9;
    private const int IPPROTO_TCP = 6, TCP_NODELAY = 1, TCP_KEEPIDLE = 4, TCP_KEEPINTVL = 5, TCP_KEEPCNT = 6,
        TCP_USER_TIMEOUT = 18;
    /// <summary>Room for an address as the kernel has it: <c>struct sockaddr_in6</c>, the larger of the two.</summary>
    public const int AddressBytes = 28;

    public const int MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000, SHUT_WR = 1;

    [LibraryImport(Name, SetLastError = true, EntryPoint = "socket")]
    private static partial int SocketRaw(int family, int type, int protocol);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "bind")]
    private static partial int BindRaw(int fd, byte* address, uint addressBytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "listen")]
    private static partial int ListenRaw(int fd, int backlog);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "accept4")]
    private static partial int AcceptRaw(int fd, byte* address, uint* addressBytes, int flags);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "connect")]
    private static partial int ConnectRaw(int fd, byte* address, uint addressBytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "getsockname")]
    private static partial int GetNameRaw(int fd, byte* address, uint* addressBytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "setsockopt")]
    private static partial int SetOptionRaw(int fd, int level, int option, int* value, uint valueBytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "getsockopt")]
    private static partial int GetOptionRaw(int fd, int level, int option, int* value, uint* valueBytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "recv")]
    public static partial nint Receive(int fd, void* buffer, nuint bytes, int flags);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "send")]
    public static partial nint Send(int fd, void* buffer, nuint bytes, int flags);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "sendmsg")]
    public static partial nint SendMessage(int fd, MessageVector* message, int flags);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "sendto")]
    public static partial nint SendTo(int fd, void* buffer, nuint bytes, int flags, void* address, uint addressBytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "shutdown")]
    public static partial int Shutdown(int fd, int how);

    /// <summary>A listening socket on exactly that address.</summary>
    /// <exception cref="IOException">The address cannot be had; the message says why and what to do.</exception>
    public static int Listen(IPEndPoint address, int backlog)
    {
        int fd = Create(address);
        int one = 1;
        // SAFETY: the option's value outlives the call; so does the address buffer.
        unsafe
        {
            _ = SetOptionRaw(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(int));
            byte* raw = stackalloc byte[AddressBytes];
            uint rawBytes = Encode(address, raw);
            if (BindRaw(fd, raw, rawBytes) == 0 && ListenRaw(fd, backlog) == 0) return fd;
        }
        int error = Errno.Last;
        _ = Libc.Close(fd);
        string advice = error switch
        {
            Errno.EADDRINUSE => "; another program listens there: choose another port, or 0 for any",
            Errno.EADDRNOTAVAIL => "; this host has no such address",
            Errno.EACCES => "; ports below 1024 need privilege",
            _ => "",
        };
        throw new IOException($"cannot listen on {address}: {Errno.Text(error)}{advice}", error);
    }

    /// <summary>A datagram socket on exactly that address.</summary>
    /// <exception cref="IOException">The address cannot be had; the message says why and what to do.</exception>
    public static int BindDatagrams(IPEndPoint address)
    {
        int fd = Create(address, SOCK_DGRAM);
        // SAFETY: the address buffer outlives the call.
        unsafe
        {
            byte* raw = stackalloc byte[AddressBytes];
            uint rawBytes = Encode(address, raw);
            if (BindRaw(fd, raw, rawBytes) == 0) return fd;
        }
        int error = Errno.Last;
        _ = Libc.Close(fd);
        string advice = error == Errno.EADDRINUSE ? "; another program uses that UDP port, which heartbeats need: choose another port, or 0 for any" : "";
        throw new IOException($"cannot bind UDP {address}: {Errno.Text(error)}{advice}", error);
    }

    /// <summary>A datagram socket to send from, of an address's family.</summary>
    public static int OpenDatagrams(IPEndPoint address) => Create(address, SOCK_DGRAM);

    /// <summary>The next waiting connection, non-blocking; negative if there is none, or on an error (see errno).</summary>
    public static int Accept(int listener, out IPEndPoint? peer)
    {
        // SAFETY: the buffer is as large as the length that goes with it.
        unsafe
        {
            byte* raw = stackalloc byte[AddressBytes];
            uint rawBytes = AddressBytes;
            int fd = AcceptRaw(listener, raw, &rawBytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
            peer = fd < 0 ? null : Decode(raw);
            return fd;
        }
    }

    /// <summary>
    /// Starts to connect. The descriptor becomes writable when it is done; <see cref="TakeError"/> says how it went.
    /// </summary>
    /// <returns>The descriptor, or −errno if it failed at once.</returns>
    public static int BeginConnect(IPEndPoint address)
    {
        int fd = Create(address);
        // SAFETY: the buffer outlives the call.
        unsafe
        {
            byte* raw = stackalloc byte[AddressBytes];
            uint rawBytes = Encode(address, raw);
            if (ConnectRaw(fd, raw, rawBytes) == 0) return fd;
        }
        int error = Errno.Last;
        if (error == Errno.EINPROGRESS) return fd;
        _ = Libc.Close(fd);
        return -error;
    }

    /// <summary>The descriptor's pending error, which is cleared; 0 for none.</summary>
    public static int TakeError(int fd)
    {
        int error = 0;
        uint bytes = sizeof(int);
        // SAFETY: both outlive the call.
        unsafe
        {
            return GetOptionRaw(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0 ? Errno.Last : error;
        }
    }

    /// <summary>The address that the descriptor is bound to.</summary>
    public static IPEndPoint LocalAddress(int fd)
    {
        // SAFETY: the buffer is as large as the length that goes with it.
        unsafe
        {
            byte* raw = stackalloc byte[AddressBytes];
            uint rawBytes = AddressBytes;
            if (GetNameRaw(fd, raw, &rawBytes) < 0) throw Errno.Exception("cannot tell a socket's address");
            return Decode(raw) ?? throw new IOException("a socket has an address that is neither IPv4 nor IPv6");
        }
    }

    /// <summary>
    /// Settings of a connection between agents: small frames leave at once, and a peer whose host is gone shows as an error
    /// within about four seconds, with traffic (TCP_USER_TIMEOUT) or without (keep-alive probes).
    /// </summary>
    public static void SetUpConnection(int fd)
    {
        SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
        SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
        SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
        SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 4000);
    }

    private static void SetOption(int fd, int level, int option, int value)
    {
        // SAFETY: the value outlives the call. A refused option costs speed or a later detection, never correctness.
        unsafe
        {
            _ = SetOptionRaw(fd, level, option, &value, sizeof(int));
        }
    }

    private static int Create(IPEndPoint address, int type = SOCK_STREAM)
    {
        int family = address.AddressFamily == AddressFamily.InterNetworkV6 ? AF_INET6 : AF_INET;
        int fd = SocketRaw(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        return fd >= 0 ? fd : throw Errno.Exception("cannot create a socket");
    }

    /// <summary>Writes <c>struct sockaddr_in</c> or <c>struct sockaddr_in6</c>.</summary>
    public static uint Encode(IPEndPoint address, byte* raw)
    {
        var span = new Span<byte>(raw, AddressBytes);
        span.Clear();
        bool v6 = address.AddressFamily == AddressFamily.InterNetworkV6;
        BinaryPrimitives.WriteUInt16LittleEndian(span, (ushort)(v6 ? AF_INET6 : AF_INET));
        BinaryPrimitives.WriteUInt16BigEndian(span[2..], (ushort)address.Port);
        address.Address.TryWriteBytes(v6 ? span[8..24] : span[4..8], out _);
        if (v6) BinaryPrimitives.WriteUInt32LittleEndian(span[24..], (uint)address.Address.ScopeId);
        return v6 ? 28u : 16u;
    }

    /// <summary>A socket on the IPv6 wildcard shows IPv4 peers as ::ffff:a.b.c.d.</summary>
    private static IPAddress Unmap(IPAddress address) => address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;

    private static IPEndPoint? Decode(byte* raw)
    {
        var span = new ReadOnlySpan<byte>(raw, AddressBytes);
        int port = BinaryPrimitives.ReadUInt16BigEndian(span[2..]);
        return BinaryPrimitives.ReadUInt16LittleEndian(span) switch
        {
            AF_INET => new IPEndPoint(new IPAddress(span[4..8]), port),
            AF_INET6 => new IPEndPoint(
                Unmap(new IPAddress(span[8..24], BinaryPrimitives.ReadUInt32LittleEndian(span[24..]))), port),
            _ => null,
        };
    }
}

/// <summary><c>struct iovec</c>.</summary>
internal unsafe struct IoVector
{
    public byte* Base;
    public nuint Bytes;
}

/// <summary><c>struct msghdr</c> of 64-bit Linux.</summary>
internal unsafe struct MessageVector
{
    public void* Name;
    public uint NameBytes;
    public IoVector* Vectors;
    public nuint VectorCount;
    public void* Control;
    public nuint ControlBytes;
    public int Flags;
}
