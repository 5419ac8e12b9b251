// SPDX-License-Identifier: Apache-2.0
using System.Reflection;
using System.Runtime.CompilerServices;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;

namespace VSmp.Coherence.Tests;

public sealed class LayoutTests
{
    [Fact]
    public void Entries_keep_their_size()
    {
        Assert.Equal(16, Unsafe.SizeOf<DirectoryEntry>());
        Assert.Equal(8, Unsafe.SizeOf<PageEntry>());
    }

    [Fact]
    public void Five_sharers_make_the_set_coarse_and_lose_nobody()
    {
        DirectoryEntry entry = DirectoryEntry.Zero;
        for (ushort n = 0; n < 200; n += 40)
        {
            Assert.False(entry.MayShare(new NodeId(n)) && !entry.IsCoarse);
            entry.AddSharer(new NodeId(n));
        }
        Assert.True(entry.IsCoarse);
        for (ushort n = 0; n < 200; n += 40) Assert.True(entry.MayShare(new NodeId(n)));
        entry.ClearSharers();
        Assert.False(entry.MayShare(new NodeId(0)));
    }

    [Fact]
    public void The_core_references_nothing_of_ours_and_no_world()
    {
        string[] references = typeof(Region).Assembly.GetReferencedAssemblies().Select(a => a.Name!).ToArray();
        Assert.DoesNotContain(references, r => r.StartsWith("VSmp", StringComparison.Ordinal));
        string[] world = ["System.Threading", "System.Net.Sockets", "System.IO.FileSystem", "System.Diagnostics.Process", "System.Console"];
        Assert.Empty(references.Intersect(world));
        Assert.DoesNotContain(typeof(Region).Assembly.GetTypes().SelectMany(t => t.GetMethods(BindingFlags.Static | BindingFlags.NonPublic | BindingFlags.Public)),
            m => (m.Attributes & MethodAttributes.PinvokeImpl) != 0);
    }
}
