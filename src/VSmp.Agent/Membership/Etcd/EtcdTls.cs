// SPDX-License-Identifier: Apache-2.0
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Membership.Etcd;

/// <summary>Whom we trust to be etcd, and what we show of ourselves.</summary>
internal static class EtcdTls
{
    /// <summary>The settings of TLS connections to an address.</summary>
    /// <exception cref="EtcdException">A file is not there, not private, or not what it should be.</exception>
    public static SslClientAuthenticationOptions Options(EtcdAddress address)
    {
        SslClientAuthenticationOptions options = new();
        if (address.CaFile is not null)
        {
            // The host's name is checked besides; certificates are not looked for elsewhere.
            options.CertificateChainPolicy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                RevocationMode = X509RevocationMode.NoCheck,
                DisableCertificateDownloads = true,
            };
            options.CertificateChainPolicy.CustomTrustStore.AddRange(Read(address.CaFile, "the CA file"));
        }
        if (address.CertificateFile is not null)
        {
            X509Certificate2Collection chain = Read(address.CertificateFile, "the client certificate");
            options.ClientCertificateContext = SslStreamCertificateContext.Create(WithKey(address), chain, offline: true);
        }
        return options;
    }

    private static X509Certificate2Collection Read(string path, string what)
    {
        X509Certificate2Collection certificates = [];
        try
        {
            certificates.ImportFromPemFile(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CryptographicException)
        {
            throw new EtcdException(StoreFailure.Refused, $"cannot read {what} {path}: {e.Message}");
        }
        return certificates.Count > 0
            ? certificates
            : throw new EtcdException(StoreFailure.Refused,
                $"{what} {path} has no certificate in it: it should have lines 'BEGIN CERTIFICATE' (PEM)");
    }

    private static X509Certificate2 WithKey(EtcdAddress address)
    {
        try
        {
            string key = PrivateFile.ReadText(address.KeyFile!, "the client key", PrivateFile.MaximumBytes, "name the right file as key=");
            return X509Certificate2.CreateFromPem(File.ReadAllText(address.CertificateFile!), key);
        }
        catch (PrivateFileException e)
        {
            throw new EtcdException(StoreFailure.Refused, e.Message);
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            throw new EtcdException(StoreFailure.Refused, $"the client key {address.KeyFile} is not the key (PEM, not encrypted) to the "
                + $"certificate {address.CertificateFile}: {e.Message}");
        }
    }
}
