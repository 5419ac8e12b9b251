// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using Xunit;
using static VSmp.Agent.Tests.Membership.Etcd.EtcdStores;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>An etcd behind TLS, with certificates of an authority of our own.</summary>
public sealed class EtcdTlsTests : IDisposable
{
    private const string ServerUse = "1.3.6.1.5.5.7.3.1", ClientUse = "1.3.6.1.5.5.7.3.2";

    private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-etcd-tls-").FullName;
    private readonly string _cluster = NewCluster();
    private readonly Authority _authority = new("ours");

    public void Dispose()
    {
        _authority.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public async Task A_server_is_trusted_by_the_authority_that_was_named_and_by_no_other()
    {
        await using EtcdServer etcd = await StartAsync("127.0.0.1");
        string ca = Write("ca.pem", _authority.Pem);
        using (EtcdViewStore store = Open($"{etcd.Address}?ca={ca}", _cluster))
        {
            await using Watching watch = new(store, 0);
            _ = await store.WriteAsync(0, "one");
            Assert.Equal("one", await watch.NextAsync());
            await using IPresence alpha = await store.AnnounceAsync("alpha", 1);
            await store.UntilPresentAsync("alpha");
        }
        using Authority stranger = new("ours"); // of the same name
        foreach (string address in new[] { etcd.Address, $"{etcd.Address}?ca={Write("stranger.pem", stranger.Pem)}" })
        {
            string message = await UntrustedAsync(address);
            Assert.Contains("certificate", message, StringComparison.Ordinal);
            Assert.Contains("ca=PATH", message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_server_with_another_hosts_certificate_is_refused()
    {
        await using EtcdServer etcd = await StartAsync("127.0.0.2");
        Assert.Contains("RemoteCertificateNameMismatch", await UntrustedAsync($"{etcd.Address}?ca={Write("ca.pem", _authority.Pem)}"),
            StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_wants_to_know_its_clients_gets_the_certificate()
    {
        string ca = Write("ca.pem", _authority.Pem);
        await using EtcdServer etcd = await StartAsync("127.0.0.1", "--client-cert-auth", "--trusted-ca-file", ca);
        (string certificate, string key) = _authority.Issue("client", null, ClientUse);
        string known = $"{etcd.Address}?ca={ca}&cert={Write("client.pem", certificate)}&key={Write("client.key", key)}";
        using (EtcdViewStore store = Open(known, _cluster)) _ = await store.WriteAsync(0, "one");

        using Authority stranger = new("stranger");
        (certificate, key) = stranger.Issue("client", null, ClientUse);
        foreach (string address in new[]
        {
            $"{etcd.Address}?ca={ca}",
            $"{etcd.Address}?ca={ca}&cert={Write("stranger.pem", certificate)}&key={Write("stranger.key", key)}",
        })
        {
            using EtcdViewStore store = Open(address, _cluster, Impatient);
            ViewStoreException failure = await FailureAsync(() => store.ReadAsync());
            Assert.Contains($"127.0.0.1:{etcd.ClientPort}:", failure.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task With_and_without_tls_do_not_go_together_and_the_message_says_so()
    {
        await using EtcdServer with = await StartAsync("127.0.0.1"), without = new();
        await without.StartAsync();
        using EtcdViewStore plain = Open($"etcd://127.0.0.1:{with.ClientPort}", _cluster, Impatient);
        Assert.Contains("etcds://", (await FailureAsync(() => plain.ReadAsync())).Message, StringComparison.Ordinal);
        using EtcdViewStore secret = Open($"etcds://127.0.0.1:{without.ClientPort}", _cluster, Impatient);
        Assert.Contains("etcd://", (await FailureAsync(() => secret.ReadAsync())).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Files_that_are_not_what_they_should_be_are_refused_at_once()
    {
        (string certificate, string key) = _authority.Issue("client", null, ClientUse);
        (_, string otherKey) = _authority.Issue("client", null, ClientUse);
        string cert = Write("cert.pem", certificate), good = Write("key.pem", key);
        Assert.Contains("/nowhere/ca.pem", Refusal("ca=/nowhere/ca.pem"), StringComparison.Ordinal);
        Assert.Contains("no certificate in it", Refusal($"ca={good}"), StringComparison.Ordinal);
        Assert.Contains("no certificate in it", Refusal($"cert={good}&key={good}"), StringComparison.Ordinal);
        Assert.Contains("cannot open the client key", Refusal($"cert={cert}&key=/nowhere/key.pem"), StringComparison.Ordinal);
        Assert.Contains("is not the key", Refusal($"cert={cert}&key={Write("other.pem", otherKey)}"), StringComparison.Ordinal);
        Assert.Contains("is not the key", Refusal($"cert={cert}&key={Write("garbage.pem", "garbage")}"), StringComparison.Ordinal);
        File.SetUnixFileMode(good, UnixFileMode.UserRead | UnixFileMode.OtherRead);
        Assert.Contains("chmod 600", Refusal($"cert={cert}&key={good}"), StringComparison.Ordinal);

        string Refusal(string options) =>
            Assert.ThrowsAny<ViewStoreException>(() => Open($"etcds://127.0.0.1:1?{options}", _cluster)).Message;
    }

    private async Task<string> UntrustedAsync(string address)
    {
        using EtcdViewStore store = Open(address, _cluster);
        ViewStoreException failure = await FailureAsync(() => store.TryReplaceAsync(0, Bytes("x"), CancellationToken.None));
        Assert.Equal(StoreFailure.NotAStore, failure.Failure); // and not unknown: nothing was sent
        return failure.Message;
    }

    private async Task<EtcdServer> StartAsync(string name, params string[] arguments)
    {
        // etcd's gateway is a client of etcd itself, with the same certificate.
        (string certificate, string key) = _authority.Issue("server", IPAddress.Parse(name), ServerUse, ClientUse);
        EtcdServer etcd = new(["--cert-file", Write("server.pem", certificate), "--key-file", Write("server.key", key), .. arguments], isTls: true);
        await etcd.StartAsync();
        return etcd;
    }

    private string Write(string name, string text)
    {
        string path = Path.Combine(_folder, name);
        File.WriteAllText(path, text);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        return path;
    }

    /// <summary>A certificate authority that lives as long as the test.</summary>
    private sealed class Authority : IDisposable
    {
        private readonly ECDsa _key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        private readonly X509Certificate2 _certificate;

        public Authority(string name)
        {
            CertificateRequest request = new($"CN={name}", _key, HashAlgorithmName.SHA256);
            request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
            request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign, true));
            _certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
        }

        public string Pem => _certificate.ExportCertificatePem();

        public (string Certificate, string Key) Issue(string name, IPAddress? host, params string[] uses)
        {
            using ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
            CertificateRequest request = new($"CN={name}", key, HashAlgorithmName.SHA256);
            OidCollection oids = [];
            foreach (string use in uses) _ = oids.Add(new Oid(use));
            request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension(oids, false));
            if (host is not null)
            {
                SubjectAlternativeNameBuilder names = new();
                names.AddIpAddress(host);
                request.CertificateExtensions.Add(names.Build());
            }
            using X509Certificate2 issued = request.Create(_certificate, DateTimeOffset.UtcNow.AddHours(-1), DateTimeOffset.UtcNow.AddHours(1),
                RandomNumberGenerator.GetBytes(8));
            return (issued.ExportCertificatePem(), key.ExportPkcs8PrivateKeyPem());
        }

        public void Dispose()
        {
            _certificate.Dispose();
            _key.Dispose();
        }
    }
}
