// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Net.Sockets;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>Addresses of agents as people write them: <c>HOST</c> or <c>HOST:PORT</c>, a host by name or number.</summary>
internal static class Addresses
{
    /// <summary>The port of an agent where none is given.</summary>
    public const ushort DefaultPort = 7070;

    /// <summary>Reads an address; names are looked up.</summary>
    /// <exception cref="CommandException">It is none, or the name is not known.</exception>
    public static IPEndPoint Parse(string text, string what)
    {
        CommandException Wrong(string why) =>
            new(ExitCodes.Usage,
                $"{what} '{text}' {why}: write HOST:PORT, like 10.0.0.1:{DefaultPort} or [fe80::1]:{DefaultPort}");

        // A bare IPv6 address has colons and no port; IPEndPoint.TryParse knows the forms with numbers.
        if (IPAddress.TryParse(text, out IPAddress? bare)) return new IPEndPoint(bare, DefaultPort);
        if (IPEndPoint.TryParse(text, out IPEndPoint? numeric) && text.Contains(':', StringComparison.Ordinal)) return numeric;
        int colon = text.LastIndexOf(':');
        string host = colon < 0 ? text : text[..colon];
        int port = DefaultPort;
        if (colon >= 0 && (!int.TryParse(text.AsSpan(colon + 1), out port) || port is < 0 or > 65535))
        {
            throw Wrong("has no valid port");
        }
        if (host.Length == 0 || host.Contains(':', StringComparison.Ordinal)) throw Wrong("is no address");
        try
        {
            IPAddress[] found = Dns.GetHostAddresses(host);
            IPAddress? chosen = found.FirstOrDefault(address => address.AddressFamily == AddressFamily.InterNetwork)
                ?? found.FirstOrDefault();
            return chosen is null ? throw Wrong("names no host") : new IPEndPoint(chosen, port);
        }
        catch (Exception e) when (e is SocketException or ArgumentException)
        {
            throw Wrong("names no host that can be found");
        }
    }
}
