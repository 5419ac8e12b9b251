// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Rdma.Tests;

/// <summary>Native objects are taken down children first, whatever becomes of their handles.</summary>
public sealed class VerbsHandleTests : IDisposable
{
    private const int SlotBytes = 4096, Slots = 4, SendBytes = 8192;

    private readonly nint _memory;

    public unsafe VerbsHandleTests()
    {
        Assert.Null(Verbs.Load());
        _memory = (nint)NativeMemory.AlignedAlloc((Slots * SlotBytes) + SendBytes, 4096);
    }

    [Fact]
    public async Task Disposed_in_any_order_nothing_is_left()
    {
        string before = Device.Resources();
        int[][] orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 1, 0, 3], [3, 0, 4, 2, 1]];
        foreach (int[] order in orders)
        {
            VerbsHandle[] handles = Open();
            Assert.NotEqual(before, Device.Resources());
            foreach (int i in order) handles[i].Dispose();
            await Device.HasAgainAsync(before);
        }
    }

    [Fact]
    public async Task Memory_that_is_still_registered_keeps_what_it_lives_in()
    {
        string before = Device.Resources();
        VerbsHandle[] handles = Open();
        string open = Device.Resources();
        foreach (VerbsHandle handle in handles[..^1]) handle.Dispose();
        // The queue pair is gone, so the device uses no memory of ours; the domain waits for the memory.
        string meanwhile = Device.Resources();
        Assert.Equal(Device.Count(before, "qp"), Device.Count(meanwhile, "qp"));
        Assert.Equal(Device.Count(open, "pd"), Device.Count(meanwhile, "pd"));
        handles[^1].Dispose();
        await Device.HasAgainAsync(before);
    }

    [Fact]
    public async Task Handles_that_are_lost_are_finalised_and_nothing_is_left()
    {
        string before = Device.Resources();
        Lose();
        for (int i = 0; i < 2; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        await Device.HasAgainAsync(before);
    }

    public unsafe void Dispose() => NativeMemory.AlignedFree((void*)_memory);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void Lose() => Assert.Equal(5, Open().Length);

    /// <summary>A channel, an id on it, its queues, and two pieces of memory registered with them.</summary>
    private unsafe VerbsHandle[] Open()
    {
        Assert.Equal(0, VerbsChannel.Open(out VerbsChannel? channel, out _));
        byte* address = stackalloc byte[Sockets.AddressBytes];
        uint bytes = Sockets.Encode(new IPEndPoint(Device.Address, 4791), address);
        Assert.Equal(0, channel!.Resolve(null, address, bytes, 2000, out VerbsId? id));
        VerbsEvent happened;
        int error;
        while ((error = Verbs.NextEvent(channel, &happened)) == -Errno.EAGAIN) Thread.Yield();
        Assert.Equal((0, VerbsEventKind.AddressResolved), (error, happened.Kind));
        VerbsLimits limits = new() { ReceiveSlots = Slots, SlotBytes = SlotBytes, SendDepth = 4, InlineBytes = 64, RnrRetries = 6, Retries = 6 };
        Assert.Equal(0, id!.Open(&limits, (void*)_memory, out VerbsEndpoint? endpoint, out _));
        byte* send = (byte*)_memory + (Slots * SlotBytes);
        Assert.Equal(0, endpoint!.Register(send, SendBytes / 2, out VerbsMemory? one));
        Assert.Equal(0, endpoint.Register(send + (SendBytes / 2), SendBytes / 2, out VerbsMemory? other));
        return [channel, id, endpoint, one!, other!];
    }
}
