// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Interop;

/// <summary>What the kernel says of a process's memory.</summary>
public sealed class ProcessControlTests
{
    [Fact]
    public void Anonymous_memory_is_what_is_resident_and_mapped_to_no_file()
    {
        ulong page = (ulong)Environment.SystemPageSize;
        Assert.Equal(300 * page, ProcessControl.AnonymousBytes("5000 1000 700 50 0 400 0\n"u8));
        Assert.Equal(0ul, ProcessControl.AnonymousBytes("0 0 0 0 0 0 0\n"u8)); // it has ended, and waits to be reaped
        Assert.Equal(0ul, ProcessControl.AnonymousBytes(""u8));
        Assert.InRange(ProcessControl.AnonymousBytes(Environment.ProcessId), 1ul << 20, 1ul << 40);
        Assert.Equal(0ul, ProcessControl.AnonymousBytes(int.MaxValue));
    }
}
