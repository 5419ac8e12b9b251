// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Adopting;
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using Xunit;

namespace VSmp.Agent.Tests.Adopting;

public sealed class RegionAdopterTests : IDisposable
{
    private const int Extents = 4;
    private static readonly NodeId Self = new(0), Home = new(1);
    private static readonly RegionId Id = RegionId.Create(Self, 7);
    private readonly string _folder = Path.Combine("/dev/shm", $"vsmp-adopter-{Environment.ProcessId}-{Guid.NewGuid():n}");
    private readonly Reactor _reactor = new(maxSpinMicroseconds: 0);

    public RegionAdopterTests() => Directory.CreateDirectory(_folder);

    public void Dispose()
    {
        _reactor.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    /// <summary>
    /// A guest is told that an extent is given back before its home is; an agent that is killed between the two leaves a home that has the old contents. If the
    /// extent were still placed there, nobody would tell that home, and the next that is given the extent would read them.
    /// </summary>
    [Fact]
    public void An_extent_that_a_guest_has_given_back_has_no_home_any_more()
    {
        ExtentNumber kept = new(0), givenBack = new(1), notGiven = new(2);
        Pager before = NewPager();
        Run run = NewRun();
        before.AddRun(run);
        PagedRegion region = before.Add(new Region(Id, "test", Extents, Msi.Protocol, new HomeMap(Extents), run.Budget), FrameFile.Create(_folder, Id, Extents * (ulong)ExtentNumber.Bytes), run);
        foreach (ExtentNumber extent in (ExtentNumber[])[kept, givenBack, notGiven]) region.Layout.Homes!.Place(extent, Home);
        region.Open(kept);
        region.Open(givenBack);
        before.RecordLayouts();
        region.Close(givenBack); // as Reservations does, and nothing else of the turn
        region.Records!.Close();
        region.Kept.Close();
        region.Frames.Close();

        Pager after = NewPager();
        run = NewRun();
        after.AddRun(run);
        PagedRegion adopted = new RegionAdopter(after, new Capacity(1 << 30), _folder).Adopt(Id, run);
        Assert.Equal((Home, NodeId.None, NodeId.None), (adopted.Layout.Homes!.HomeOf(kept), adopted.Layout.Homes.HomeOf(givenBack), adopted.Layout.Homes.HomeOf(notGiven)));
        Assert.True(adopted.Layout.IsOpen(kept) && !adopted.Layout.IsOpen(givenBack));
        after.Dispose();
    }

    private Pager NewPager() => new(Self, _reactor, new WireFabric(Self, (_, _) => { }), () => 2) { IsRecording = true };

    private static Run NewRun() => new("run", new RunRequest(null, "test", null, Environment.ProcessId, 0), 16 << 20, new Silent(), 0);

    private sealed class Silent : IRunObserver
    {
        public void OnMessage(string text)
        {
        }

        public void OnGuestAttached(int processId, int userfaultfd)
        {
        }

        public void OnGuestDetached(int processId)
        {
        }
    }
}
