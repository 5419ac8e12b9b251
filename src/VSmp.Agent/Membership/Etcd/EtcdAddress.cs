// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Membership.Etcd;

/// <summary>
/// Where etcd is and how to get in, as people write it: <c>etcd://HOST:PORT[,HOST:PORT…]</c>, or <c>etcds://…</c> over TLS, then
/// optionally <c>?user=NAME&amp;password-file=PATH&amp;ca=PATH&amp;cert=PATH&amp;key=PATH</c>. A password is never part of it: command lines
/// are visible to all users of a host.
/// </summary>
internal sealed class EtcdAddress
{
    private const string Plain = "etcd://", Tls = "etcds://";
    private const string Form = "write etcd://HOST:PORT[,HOST:PORT...] or etcds://..., like etcd://10.0.0.1:2379,10.0.0.2:2379 "
        + "or etcds://[fd00::1]:2379?ca=/etc/vsmp/etcd-ca.pem";
    private const string Options = "user, password-file, ca, cert and key";

    private EtcdAddress(IReadOnlyList<Uri> endpoints, Dictionary<string, string> options)
    {
        Endpoints = endpoints;
        User = options.GetValueOrDefault("user");
        PasswordFile = PathOf("password-file");
        CaFile = PathOf("ca");
        CertificateFile = PathOf("cert");
        KeyFile = PathOf("key");

        // The agent may go to another folder than the one in which the user wrote this.
        string? PathOf(string option) => options.TryGetValue(option, out string? path) ? Path.GetFullPath(path) : null;
    }

    /// <summary>The members of etcd, at least one: <c>http://HOST:PORT/</c>, or all <c>https</c>.</summary>
    public IReadOnlyList<Uri> Endpoints { get; }

    /// <summary>Whether connections are encrypted.</summary>
    public bool IsTls => Endpoints[0].Scheme == Uri.UriSchemeHttps;

    /// <summary>The user of etcd, or null if it has authentication switched off.</summary>
    public string? User { get; }

    /// <summary>The file (mode 0600) with the user's password; there if the user is.</summary>
    public string? PasswordFile { get; }

    /// <summary>The certificate authorities (PEM) that vouch for etcd; null: the system's.</summary>
    public string? CaFile { get; }

    /// <summary>The client's certificate (PEM), with those between it and the authority behind it; null: none.</summary>
    public string? CertificateFile { get; }

    /// <summary>The key (PEM, not encrypted, mode 0600) to the client's certificate; there if that is.</summary>
    public string? KeyFile { get; }

    /// <summary>Whether a text means etcd, right or wrong, and not an agent's address.</summary>
    public static bool IsMeant(string text) =>
        text.StartsWith(Plain, StringComparison.OrdinalIgnoreCase) || text.StartsWith(Tls, StringComparison.OrdinalIgnoreCase);

    /// <summary>Reads an address. Looks up no name and opens no file.</summary>
    /// <exception cref="CommandException">It is none; the message says what is wrong and what to write.</exception>
    public static EtcdAddress Parse(string text)
    {
        if (!IsMeant(text)) throw Wrong(text, "does not begin with etcd:// or etcds://");
        bool isTls = text.StartsWith(Tls, StringComparison.OrdinalIgnoreCase);
        string rest = text[(isTls ? Tls : Plain).Length..];
        int question = rest.IndexOf('?', StringComparison.Ordinal);
        string hosts = question < 0 ? rest : rest[..question];
        if (hosts.EndsWith('/')) hosts = hosts[..^1];
        List<Uri> endpoints = [];
        foreach (string host in hosts.Split(','))
        {
            Uri endpoint = ParseEndpoint(text, host, isTls);
            if (endpoints.Contains(endpoint)) throw Wrong(text, $"names {host} twice");
            endpoints.Add(endpoint);
        }
        return new EtcdAddress(endpoints, ParseOptions(text, question < 0 ? "" : rest[(question + 1)..], isTls));
    }

    /// <summary>The user's password, read anew so that it can be changed while an agent runs.</summary>
    /// <exception cref="EtcdException">The file is not there, not private, or no password.</exception>
    public string ReadPassword()
    {
        const int MaximumBytes = 1024;
        try
        {
            string password = PrivateFile.ReadText(PasswordFile!, "the password file", MaximumBytes,
                $"write it: (umask 077; cat > {PasswordFile})").TrimEnd('\r', '\n');
            return password.Length > 0 ? password : throw new PrivateFileException($"the password file {PasswordFile} is empty");
        }
        catch (PrivateFileException e)
        {
            throw new EtcdException(StoreFailure.Refused, e.Message);
        }
    }

    /// <summary>The members, as they are written: for messages.</summary>
    public override string ToString() => (IsTls ? Tls : Plain) + string.Join(',', Endpoints.Select(e => e.Authority));

    private static Uri ParseEndpoint(string text, string host, bool isTls)
    {
        if (host.Length == 0) throw Wrong(text, "lacks a host");
        if (host.Contains('@', StringComparison.Ordinal))
            throw Wrong(text, "has something before '@': a user is an option, ?user=NAME&password-file=PATH", showText: false);
        if (host.Contains('/', StringComparison.Ordinal)) throw Wrong(text, $"has a path in '{host}'");
        int colon = host.EndsWith(']') ? -1 : host.LastIndexOf(':'); // not one within brackets
        string name = colon < 0 ? host : host[..colon];
        if (name.Contains(':', StringComparison.Ordinal) && !(name.StartsWith('[') && name.EndsWith(']')))
            throw Wrong(text, $"has an IPv6 address without brackets, '{host}'");
        if (colon < 0) throw Wrong(text, $"has no port behind '{host}' (etcd's is 2379 if nobody changed it)");
        if (!ushort.TryParse(host.AsSpan(colon + 1), System.Globalization.NumberStyles.None, null, out ushort port) || port == 0)
            throw Wrong(text, $"has no valid port in '{host}'");
        return Uri.CheckHostName(name) != UriHostNameType.Unknown
            && Uri.TryCreate($"{(isTls ? Uri.UriSchemeHttps : Uri.UriSchemeHttp)}://{name}:{port}/", UriKind.Absolute, out Uri? endpoint)
            ? endpoint
            : throw Wrong(text, $"has no valid host in '{host}'");
    }

    private static Dictionary<string, string> ParseOptions(string text, string query, bool isTls)
    {
        Dictionary<string, string> options = [];
        foreach (string part in query.Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = part.IndexOf('=', StringComparison.Ordinal);
            string name = equals < 0 ? part : part[..equals];
            if (name == "password")
                throw Wrong(text, "has a password in it, which every user of this host can see: write it to a file of mode 0600, "
                    + "and password-file=PATH here", showText: false);
            if (name is not ("user" or "password-file" or "ca" or "cert" or "key"))
                throw Wrong(text, $"has an unknown option '{name}'; there are {Options}");
            string value = equals < 0 ? "" : Uri.UnescapeDataString(part[(equals + 1)..]);
            if (value.Length == 0 || value.Contains('\0', StringComparison.Ordinal)) throw Wrong(text, $"gives no value for '{name}'");
            if (!options.TryAdd(name, value)) throw Wrong(text, $"has the option '{name}' twice");
        }
        RequireBoth("user", "password-file");
        RequireBoth("cert", "key");
        if (!isTls && (options.ContainsKey("ca") || options.ContainsKey("cert")))
            throw Wrong(text, "has options of TLS but is without TLS: begin it with etcds://");
        return options;

        void RequireBoth(string one, string other)
        {
            if (options.ContainsKey(one) != options.ContainsKey(other))
                throw Wrong(text, options.ContainsKey(one) ? $"has {one}= but no {other}=" : $"has {other}= but no {one}=");
        }
    }

    private static CommandException Wrong(string text, string why, bool showText = true) =>
        new(ExitCodes.Usage, $"the address of etcd{(showText ? $" '{text}'" : "")} {why}: {Form}");
}
