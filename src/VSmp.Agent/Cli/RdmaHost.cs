// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

using Verbs = Interop.Verbs;

/// <summary>RDMA on this host: which devices there are, which addresses they have, soft-RoCE on an interface.</summary>
internal static class RdmaHost
{
    private const string DevicePrefix = "vsmp_";
    private const int ToolMilliseconds = 10_000;

    /// <summary>The address at which a transport's agents of this host listen.</summary>
    /// <exception cref="CommandException">There is none; the message says what to do.</exception>
    public static IPAddress AddressOf(TransportChoice transport)
    {
        if (Verbs.Load() is { } why) throw new CommandException(ExitCodes.Failed, $"--transport {transport}: RDMA cannot be used: {why}");
        VerbsPort[] ports = [.. Ports().Where(p => transport.Device is null || p.Device == transport.Device)];
        VerbsPort port = ports.FirstOrDefault(p => p.IsActive) ?? throw new CommandException(ExitCodes.Failed, $"--transport {transport}: "
            + (ports.Length > 0 ? $"no link of RDMA device {ports[0].Device} is up" : transport.Device is null
                ? "this host has no RDMA device; on Ethernet: vsmp up --transport rxe:INTERFACE"
                : $"there is no RDMA device {transport.Device}; {Names()}"));
        if (transport.Gid is { } gid)
        {
            return AddressesByGid(port).Where(g => g.Gid == gid).Select(g => g.Address).FirstOrDefault() ?? throw new CommandException(ExitCodes.Usage,
                $"--transport {transport}: {port.Device} has no address by GID {gid}, it has {string.Join(", ", AddressesByGid(port).Select(g => $"{g.Gid} ({g.Address})"))}");
        }
        return AddressOf(port) ?? throw new CommandException(ExitCodes.Failed,
            $"--transport {transport}: RDMA device {port.Device} has no IP address: give its interface one");
    }

    /// <summary>The first address of a port: of its interface, IPv4 before IPv6.</summary>
    public static IPAddress? AddressOf(VerbsPort port) => NetworkInterface.GetAllNetworkInterfaces().Where(i => i.Name == port.Netdev)
        .SelectMany(i => i.GetIPProperties().UnicastAddresses).Select(a => a.Address)
        .OrderBy(a => a.AddressFamily == AddressFamily.InterNetwork ? 0 : a.IsIPv6LinkLocal ? 2 : 1).FirstOrDefault();

    /// <summary>The addresses that a port's GIDs stand for (RoCE: its interface's), by index.</summary>
    public static IEnumerable<(int Gid, IPAddress Address)> AddressesByGid(VerbsPort port)
    {
        string folder = string.Create(CultureInfo.InvariantCulture, $"/sys/class/infiniband/{port.Device}/ports/{port.Port}/gids");
        if (!Directory.Exists(folder)) yield break;
        foreach (int gid in Directory.EnumerateFiles(folder).Select(f => int.Parse(Path.GetFileName(f), CultureInfo.InvariantCulture)).Order())
        {
            if (AddressOfGid(folder, gid) is { } address) yield return (gid, address);
        }
    }

    /// <summary>The ports of this host's RDMA devices. After <see cref="Verbs.Load"/>.</summary>
    /// <exception cref="CommandException">They cannot be listed.</exception>
    public static VerbsPort[] Ports()
    {
        try { return Verbs.Ports(); }
        catch (IOException e) { throw new CommandException(ExitCodes.Failed, e.Message); }
    }

    /// <summary>Sets up soft-RoCE on an interface, unless it has an RDMA device already.</summary>
    /// <param name="netdev">The interface.</param>
    /// <returns>The device, and whether it was made just now.</returns>
    /// <exception cref="CommandException">It cannot be; the message says why and what to do.</exception>
    public static (string Device, bool IsNew) SetUpSoftRoce(string netdev)
    {
        if (Verbs.Load() is { } why) throw new CommandException(ExitCodes.Failed, $"--transport rxe:{netdev}: RDMA cannot be used: {why}");
        if (NetworkInterface.GetAllNetworkInterfaces().All(i => i.Name != netdev))
        {
            throw new CommandException(ExitCodes.Usage, $"--transport rxe:{netdev}: there is no network interface {netdev}");
        }
        if (Ports().FirstOrDefault(p => p.Netdev == netdev) is { } there) return (there.Device, false);
        if (Libc.GetEffectiveUserId() != 0)
        {
            throw new CommandException(ExitCodes.NotPermitted, $"--transport rxe:{netdev}: setting up soft-RoCE needs root; or have it set up: rdma link add rxe0 type rxe netdev {netdev}");
        }
        // The connection manager's module is not loaded by itself; that of rxe is, by the kernel, where modules can be loaded.
        _ = Tool("modprobe", "rdma_rxe");
        _ = Tool("modprobe", "rdma_ucm");
        string device = DevicePrefix + netdev;
        if (Tool("rdma", "link", "add", device, "type", "rxe", "netdev", netdev) is { } failure)
        {
            throw new CommandException(ExitCodes.Failed, $"--transport rxe:{netdev}: soft-RoCE cannot be set up (rdma link add {device} type rxe netdev {netdev}): {failure}. "
                + "The kernel needs the module rdma_rxe, the host the package iproute2");
        }
        return (device, true);
    }

    /// <summary>Takes a soft-RoCE device down again.</summary>
    /// <returns>Null, or why it could not be.</returns>
    public static string? RemoveSoftRoce(string device) => Tool("rdma", "link", "delete", device);

    private static IPAddress? AddressOfGid(string folder, int gid)
    {
        try
        {
            string text = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"{folder}/{gid}")).Trim();
            if (!IPAddress.TryParse(text, out IPAddress? address) || address.Equals(IPAddress.IPv6Any)) return null;
            return address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private static string Names()
    {
        string[] names = [.. Ports().Select(p => p.Device).Distinct()];
        return names.Length == 0 ? "this host has none" : $"there is {string.Join(", ", names)}";
    }

    /// <summary>Runs an administrator's tool.</summary>
    /// <returns>Null if it said yes, else what it said.</returns>
    private static string? Tool(string name, params string[] arguments)
    {
        try
        {
            ProcessStartInfo start = new(name, arguments) { RedirectStandardError = true, RedirectStandardOutput = true, UseShellExecute = false };
            start.Environment["PATH"] = $"{Environment.GetEnvironmentVariable("PATH")}:/usr/sbin:/sbin";
            using Process process = Process.Start(start)!;
            Task<string> error = process.StandardError.ReadToEndAsync();
            if (!process.WaitForExit(ToolMilliseconds))
            {
                process.Kill();
                return $"{name} does not end";
            }
            return process.ExitCode == 0 ? null : error.GetAwaiter().GetResult().Trim() is { Length: > 0 } text ? text : $"{name} ended with exit code {process.ExitCode}";
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            return $"{name} cannot be run: {e.Message}";
        }
    }
}
