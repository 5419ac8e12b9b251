// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using System.Text;

namespace VSmp.Agent.Interop;

/// <summary>RDMA, through our library of fixed-width functions (native/verbs/verbs.h, which says what each does).</summary>
internal static unsafe partial class Verbs
{
    /// <summary>What this code was written for (VSMP_VERBS_VERSION).</summary>
    public const uint Version = 4;

    /// <summary>Bytes that travel with a connection request.</summary>
    public const int PrivateBytes = 56;

    /// <summary>Flags of <see cref="Send"/>.</summary>
    public const uint Signaled = 1, Inline = 2;

    private const string Name = "vsmp-verbs";

    /// <summary>Finds the libraries of rdma-core.</summary>
    /// <returns>Null, or why RDMA cannot be used on this host.</returns>
    public static string? Load()
    {
        const int Capacity = 512;
        byte* why = stackalloc byte[Capacity];
        try
        {
            uint version = GetVersion();
            if (version != Version) return $"libvsmp-verbs.so is of version {version}, this agent needs {Version}: install them together";
            int error = LoadLibraries(why, Capacity);
            return error == 0 ? null : Encoding.UTF8.GetString(MemoryMarshal.CreateReadOnlySpanFromNullTerminated(why));
        }
        catch (DllNotFoundException)
        {
            return "libvsmp-verbs.so is not beside the vsmp command: install it again";
        }
    }

    /// <summary>The ports of all RDMA devices of this host. After <see cref="Load"/>.</summary>
    /// <exception cref="IOException">They could not be listed.</exception>
    public static VerbsPort[] Ports()
    {
        VerbsPortRecord[] records = new VerbsPortRecord[64];
        int count;
        fixed (VerbsPortRecord* first = records) count = GetPorts(first, (uint)records.Length);
        // ENOSYS: the kernel has no RDMA at all.
        if (count == -Errno.ENOSYS) return [];
        if (count < 0) throw new IOException($"cannot list the RDMA devices: {Errno.Text(-count)}");
        var ports = new VerbsPort[Math.Min(count, records.Length)];
        for (int i = 0; i < ports.Length; i++) ports[i] = Describe(ref records[i]);
        return ports;
    }

    /// <summary>The port that an id is bound to; null if to none.</summary>
    public static VerbsPort? PortOf(VerbsId id)
    {
        VerbsPortRecord record;
        int error = GetPort(id, &record);
        if (error == -Errno.ENODEV) return null;
        record.Error = error;
        return Describe(ref record);
    }

    /// <summary>What a failed completion means.</summary>
    public static string TextOf(uint status) => Text(StatusText(status));

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_channel_open")]
    public static partial int OpenChannel(out ulong channel, out int fd);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_channel_close")]
    public static partial void CloseChannel(ulong channel);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_next_event")]
    public static partial int NextEvent(VerbsChannel channel, VerbsEvent* happened);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_listen")]
    public static partial int Listen(VerbsChannel channel, byte* address, uint addressBytes, uint backlog, out ulong id);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_resolve")]
    public static partial int Resolve(VerbsChannel channel, byte* source, byte* address, uint addressBytes, uint timeoutMilliseconds, out ulong id);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_resolve_route")]
    public static partial int ResolveRoute(VerbsId id, uint timeoutMilliseconds);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_id_close")]
    public static partial void CloseId(ulong id);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_open")]
    public static partial int Open(VerbsId id, VerbsLimits* limits, void* receiveMemory, out ulong endpoint, out int fd);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_connect")]
    public static partial int Connect(VerbsEndpoint endpoint, byte* privateData, uint privateBytes);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_accept")]
    public static partial int Accept(VerbsEndpoint endpoint, byte* privateData, uint privateBytes);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_reject")]
    public static partial int Reject(VerbsId id, byte* privateData, uint privateBytes);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_disconnect")]
    public static partial void Disconnect(ulong endpoint, uint tellsPeer);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_close")]
    public static partial void Close(ulong endpoint);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_register")]
    public static partial int Register(VerbsEndpoint endpoint, void* memory, ulong bytes, out ulong handle, out uint key);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_deregister")]
    public static partial int Deregister(ulong handle);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_send")]
    public static partial int Send(ulong endpoint, void* message, uint bytes, uint key, uint flags, uint number);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_post")]
    public static partial int Post(ulong endpoint, uint slot);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_poll")]
    public static partial int Poll(ulong endpoint, VerbsCompletion* completions, uint capacity);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_take_events")]
    public static partial void TakeEvents(ulong endpoint);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_arm")]
    public static partial int Arm(ulong endpoint);

    private static VerbsPort Describe(ref VerbsPortRecord r)
    {
        fixed (byte* device = r.Device, netdev = r.Netdev)
        {
            return new VerbsPort(Text(device), Text(netdev), (int)r.Port, r.IsActive != 0, (int)r.Mtu, r.IsEthernet != 0, -r.Error)
            {
                MaxQueueDepth = r.MaxQueueDepth,
                MaxCompletions = r.MaxCompletions,
                MaxSegments = r.MaxSegments,
                MaxMessageBytes = r.MaxMessageBytes,
                MaxRegisteredBytes = r.MaxRegisteredBytes,
            };
        }
    }

    private static string Text(byte* text) => Encoding.UTF8.GetString(MemoryMarshal.CreateReadOnlySpanFromNullTerminated(text));

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_version")]
    private static partial uint GetVersion();

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_load")]
    private static partial int LoadLibraries(byte* why, uint bytes);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_ports")]
    private static partial int GetPorts(VerbsPortRecord* ports, uint capacity);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_port_of")]
    private static partial int GetPort(VerbsId id, VerbsPortRecord* port);

    [LibraryImport(Name, EntryPoint = "vsmp_verbs_status_text")]
    private static partial byte* StatusText(uint status);

    [StructLayout(LayoutKind.Sequential)]
    private struct VerbsPortRecord
    {
        public fixed byte Device[64];
        public fixed byte Netdev[16];
        public uint Port;
        public uint IsActive;
        public uint Mtu;
        public uint IsEthernet;
        public uint MaxQueueDepth;
        public uint MaxCompletions;
        public uint MaxSegments;
        public int Error;
        public ulong MaxMessageBytes;
        public ulong MaxRegisteredBytes;
    }
}

/// <summary>A port of an RDMA device.</summary>
/// <param name="Device">The device.</param>
/// <param name="Netdev">The network interface behind it; empty if there is none, or it is not known.</param>
/// <param name="Port">From 1.</param>
/// <param name="IsActive">Whether its link is up.</param>
/// <param name="MtuBytes">Payload of a packet.</param>
/// <param name="IsEthernet">RoCE, not InfiniBand.</param>
/// <param name="Errno">0, or why it could not be looked at.</param>
internal sealed record VerbsPort(string Device, string Netdev, int Port, bool IsActive, int MtuBytes, bool IsEthernet, int Errno)
{
    /// <summary>Work requests in a queue of a queue pair (max_qp_wr).</summary>
    public uint MaxQueueDepth { get; init; }

    /// <summary>Completions in a completion queue (max_cqe).</summary>
    public uint MaxCompletions { get; init; }

    /// <summary>Pieces of memory in a work request (max_sge).</summary>
    public uint MaxSegments { get; init; }

    /// <summary>Longest message (max_msg_sz).</summary>
    public ulong MaxMessageBytes { get; init; }

    /// <summary>Most memory that is registered at once (max_mr_size).</summary>
    public ulong MaxRegisteredBytes { get; init; }
}

/// <summary>What can happen to connections (<c>enum vsmp_verbs_event_kind</c>).</summary>
internal enum VerbsEventKind : uint
{
    None = 0,
    AddressResolved = 1,
    RouteResolved = 2,
    Requested = 3,
    Established = 4,
    Refused = 5,
    Failed = 6,
    Disconnected = 7,
    DeviceGone = 8,
}

/// <summary><c>struct vsmp_verbs_event</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct VerbsEvent
{
    public VerbsEventKind Kind;
    public int Status;
    public ulong Id;
    public ulong Listener;
    public uint PrivateBytes;
    public fixed byte PrivateData[Verbs.PrivateBytes];
    public fixed byte Padding[4];
}

/// <summary><c>struct vsmp_verbs_limits</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VerbsLimits
{
    public uint ReceiveSlots;
    public uint SlotBytes;
    public uint SendDepth;
    public uint InlineBytes;
    public uint RnrRetries;
    public uint Retries;
    public uint AckTimeout;
    public uint Padding;
}

/// <summary><c>struct vsmp_verbs_completion</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VerbsCompletion
{
    public const uint Received = 1, Sent = 2, Foreign = 3;

    /// <summary>The status of what was posted when the queue pair broke (IBV_WC_WR_FLUSH_ERR).</summary>
    public const uint Flushed = 5;

    public uint Kind;
    public uint Status;
    public uint Slot;
    public uint Bytes;
}
