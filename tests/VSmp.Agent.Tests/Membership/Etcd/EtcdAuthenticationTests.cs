// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using Xunit;
using static VSmp.Agent.Tests.Membership.Etcd.EtcdStores;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>An etcd that wants a user and a password.</summary>
public sealed class EtcdAuthenticationTests : IAsyncLifetime
{
    private const string Password = "päss wörd";

    private readonly EtcdServer _etcd = new();
    private readonly string _cluster = NewCluster();
    private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-etcd-user-").FullName;

    private string PasswordFile => Path.Combine(_folder, "password");

    private string Address => $"{_etcd.Address}?user=vsmp&password-file={PasswordFile}";

    public async ValueTask InitializeAsync()
    {
        WritePassword(Password + "\n");
        await _etcd.StartAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _etcd.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public async Task A_user_of_the_clusters_keys_alone_can_do_all_that_is_needed()
    {
        await _etcd.EnableAuthenticationAsync("vsmp", Password, _cluster);
        using EtcdViewStore store = Open(Address, _cluster);
        await using Watching watch = new(store, 0);
        await using IPresence alpha = await store.AnnounceAsync("alpha", 1);
        long revision = await store.WriteAsync(0, "one");
        Assert.Equal("one", await watch.NextAsync());
        Assert.False((await store.TryReplaceAsync(0, Bytes("two"), CancellationToken.None)).IsDone);
        Assert.Equal(revision, (await store.ReadAsync())!.Revision);
        Assert.Equal(["alpha"], await store.PresentAsync(CancellationToken.None));
        await _etcd.RevokeAllLeasesAsync();
        await store.UntilPresentAsync("alpha");
    }

    [Fact]
    public async Task Another_clusters_keys_are_refused_to_it()
    {
        await _etcd.EnableAuthenticationAsync("vsmp", Password, _cluster);
        using EtcdViewStore store = Open(Address, "another");
        await using Watching watch = new(store, 0);
        foreach (Func<Task> call in new Func<Task>[]
        {
            () => store.ReadAsync(),
            () => store.TryReplaceAsync(0, Bytes("x"), CancellationToken.None),
            () => store.PresentAsync(CancellationToken.None),
            () => store.AnnounceAsync("alpha", 1),
            () => watch.Ended,
        })
        {
            ViewStoreException failure = await FailureAsync(call);
            Assert.Equal(StoreFailure.Refused, failure.Failure);
            Assert.Contains("permission denied", failure.Message, StringComparison.Ordinal);
            Assert.Contains($"127.0.0.1:{_etcd.ClientPort}", failure.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_token_that_etcd_does_not_know_any_more_is_replaced()
    {
        await _etcd.EnableAuthenticationAsync("vsmp", Password, _cluster);
        using EtcdViewStore store = Open(Address, _cluster);
        await using Watching watch = new(store, 0);
        long revision = await store.WriteAsync(0, "one");
        Assert.Equal("one", await watch.NextAsync());
        await _etcd.RestartAsync(); // tokens are kept in memory
        revision = await store.WriteAsync(revision, "two");
        Assert.Equal("two", await watch.NextAsync());

        // A new password, first in the file, then in etcd, which forgets the user's tokens: the agent goes on.
        _etcd.Token = null; // which it does not know any more, and would complain of
        _etcd.Token = (string)(await _etcd.PostAsync("auth/authenticate", new { name = "root", password = "rootpw" }))["token"]!;
        WritePassword("another");
        _ = await _etcd.PostAsync("auth/user/changepw", new { name = "vsmp", password = "another" });
        revision = await store.WriteAsync(revision, "three");
        await _etcd.RestartAsync();
        _ = await store.WriteAsync(revision, "four");
        Assert.Equal("three", await watch.NextAsync());
        Assert.Equal("four", await watch.NextAsync());
    }

    [Fact]
    public async Task A_wrong_password_or_none_is_refused_with_what_to_do()
    {
        await _etcd.EnableAuthenticationAsync("vsmp", Password, _cluster);
        using (EtcdViewStore nobody = Open(_etcd.Address, _cluster))
            Assert.Contains("?user=NAME&password-file=PATH", await RefusalAsync(nobody), StringComparison.Ordinal);
        WritePassword("wrong");
        using EtcdViewStore store = Open(Address, _cluster);
        string message = await RefusalAsync(store);
        Assert.Contains("invalid user ID or password", message, StringComparison.Ordinal);
        Assert.Contains($"user vsmp, password from {PasswordFile}", message, StringComparison.Ordinal);
        Assert.DoesNotContain("wrong", message, StringComparison.Ordinal);
        Assert.Equal(StoreFailure.Refused, (await FailureAsync(() => store.WatchAsync(0, _ => { }, CancellationToken.None))).Failure);
    }

    [Fact]
    public async Task A_user_where_etcd_wants_none_is_refused_since_somebody_thinks_it_is_protected()
    {
        using EtcdViewStore store = Open(Address, _cluster);
        Assert.Contains("authentication is not enabled", await RefusalAsync(store), StringComparison.Ordinal);
    }

    [Fact]
    public void A_password_file_that_is_not_private_not_there_or_empty_is_refused_at_once()
    {
        File.SetUnixFileMode(PasswordFile, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead);
        Assert.Contains($"chmod 600 {PasswordFile}", Refusal(), StringComparison.Ordinal);
        WritePassword("\n");
        Assert.Contains("is empty", Refusal(), StringComparison.Ordinal);
        WritePassword(new string('x', 5000));
        Assert.Contains("longer than", Refusal(), StringComparison.Ordinal);
        File.Delete(PasswordFile);
        Assert.Contains("umask 077", Refusal(), StringComparison.Ordinal);

        string Refusal() => Assert.ThrowsAny<ViewStoreException>(() => Open(Address, _cluster)).Message;
    }

    private static async Task<string> RefusalAsync(EtcdViewStore store)
    {
        ViewStoreException failure = await FailureAsync(() => store.ReadAsync());
        Assert.Equal(StoreFailure.Refused, failure.Failure);
        return failure.Message;
    }

    private void WritePassword(string text)
    {
        File.WriteAllText(PasswordFile, text);
        File.SetUnixFileMode(PasswordFile, UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }
}
