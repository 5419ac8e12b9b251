// SPDX-License-Identifier: Apache-2.0
using System.Text.Json.Nodes;
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using Xunit;
using static VSmp.Agent.Tests.Membership.Etcd.EtcdStores;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>Nodes that are announced as alive.</summary>
public sealed class EtcdPresenceTests(EtcdServer etcd) : IClassFixture<EtcdServer>
{
    private readonly string _cluster = NewCluster();

    [Fact]
    public async Task Nodes_are_present_until_they_take_it_back()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster), other = Open(etcd.Address, _cluster + "0");
        Assert.Empty(await store.PresentAsync(CancellationToken.None));
        IPresence beta = await store.AnnounceAsync("beta", 60);
        await using IPresence alpha = await store.AnnounceAsync("alpha", 60), gamma = await other.AnnounceAsync("gamma", 60);
        Assert.Equal("beta", beta.Name);
        Assert.Equal(TimeSpan.FromSeconds(60), beta.TimeToLive);
        Assert.Equal(["alpha", "beta"], await store.PresentAsync(CancellationToken.None));
        await beta.DisposeAsync();
        await beta.DisposeAsync();
        Assert.Equal(["alpha"], await store.PresentAsync(CancellationToken.None));
        Assert.Equal(["gamma"], await other.PresentAsync(CancellationToken.None));
    }

    [Fact]
    public async Task A_node_that_cannot_reach_etcd_vanishes_after_its_time_to_live_and_comes_back_when_it_can()
    {
        bool isCut = false;
        await using FakeEtcd line = new(request => isCut ? Task.CompletedTask : request.PassOnAsync(etcd));
        TaskCompletionSource<string> said = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using EtcdViewStore store = Open(line.Address, _cluster, Impatient, line => said.TrySetResult(line)), direct = Open(etcd.Address, _cluster);
        await using IPresence alpha = await store.AnnounceAsync("alpha", 1);
        await direct.UntilPresentAsync("alpha");
        isCut = true;
        await direct.UntilPresentAsync();
        string complaint = await said.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Contains("cannot renew alpha's presence", complaint, StringComparison.Ordinal);
        isCut = false;
        await direct.UntilPresentAsync("alpha");
    }

    [Fact]
    public async Task A_node_whose_lease_or_key_was_taken_away_announces_itself_anew()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster);
        await using IPresence alpha = await store.AnnounceAsync("alpha", 1);
        string key = $"/vsmp/{_cluster}/present/alpha";
        await etcd.DeleteAsync(key);
        await store.UntilPresentAsync("alpha");
        await etcd.RevokeAllLeasesAsync();
        await store.UntilPresentAsync("alpha");
        await alpha.DisposeAsync();
        // What is there without a lease would stay for ever.
        await etcd.PutAsync(key, "by hand");
        await using (await store.AnnounceAsync("alpha", 1)) await store.UntilPresentAsync("alpha");
        await store.UntilPresentAsync();
    }

    [Fact]
    public async Task A_node_that_is_started_again_takes_over_from_its_former_self()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster);
        IPresence former = await store.AnnounceAsync("alpha", 60);
        await using IPresence now = await store.AnnounceAsync("alpha", 60);
        await former.DisposeAsync();
        Assert.Equal(["alpha"], await store.PresentAsync(CancellationToken.None));
    }

    [Fact]
    public async Task Etcd_makes_a_very_short_time_to_live_longer()
    {
        // With its usual election timeout (1 s) at least 1.5 times that, rounded up: two seconds.
        await using EtcdServer usual = new(["--heartbeat-interval", "100", "--election-timeout", "1000"]);
        await usual.StartAsync();
        using EtcdViewStore store = Open(usual.Address, _cluster);
        await using IPresence alpha = await store.AnnounceAsync("alpha", 1), beta = await store.AnnounceAsync("beta", 3);
        Assert.Equal(TimeSpan.FromSeconds(2), alpha.TimeToLive);
        Assert.Equal(TimeSpan.FromSeconds(3), beta.TimeToLive);
        JsonNode reply = await usual.PostAsync("lease/leases", new { });
        Assert.Equal(2, reply["leases"]!.AsArray().Count);
    }

    [Fact]
    public async Task Disposing_of_a_presence_does_not_wait_for_an_etcd_that_is_away()
    {
        bool isSilent = false;
        await using FakeEtcd line = new(request => isSilent ? request.KeepSilentAsync() : request.PassOnAsync(etcd));
        using EtcdViewStore store = Open(line.Address, _cluster);
        IPresence alpha = await store.AnnounceAsync("alpha", 1);
        isSilent = true;
        await alpha.DisposeAsync().AsTask().WaitAsync(Patience, TestContext.Current.CancellationToken);
        using EtcdViewStore direct = Open(etcd.Address, _cluster);
        await direct.UntilPresentAsync();
    }

    [Fact]
    public async Task What_cannot_be_announced_is_refused()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster);
        foreach (string name in new[] { "", "a/b", "../view", "é", "a b" })
            _ = await Assert.ThrowsAnyAsync<ArgumentException>(() => store.AnnounceAsync(name, 1));
        _ = await Assert.ThrowsAnyAsync<ArgumentException>(() => store.AnnounceAsync("alpha", 0));
        _ = Assert.ThrowsAny<ArgumentException>(() => Open(etcd.Address, "a/b"));
    }
}
