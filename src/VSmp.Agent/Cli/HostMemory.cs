// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>The host's memory, from /proc/meminfo.</summary>
internal static class HostMemory
{
    /// <summary>All of it.</summary>
    public static ulong TotalBytes => Read("MemTotal:");

    /// <summary>What programs can have without swapping.</summary>
    public static ulong AvailableBytes => Read("MemAvailable:");

    /// <summary>Refuses to contribute more than the host has.</summary>
    public static void CheckFits(ulong bytes)
    {
        if (bytes > TotalBytes)
        {
            throw new CommandException(ExitCodes.NoMemory,
                $"{Sizes.Format(bytes)} is more memory than this host has ({Sizes.Format(TotalBytes)})");
        }
    }

    private static ulong Read(string key)
    {
        foreach (string line in File.ReadLines("/proc/meminfo"))
        {
            if (!line.StartsWith(key, StringComparison.Ordinal)) continue;
            string number = line[key.Length..].Replace("kB", "", StringComparison.Ordinal).Trim();
            return ulong.Parse(number, CultureInfo.InvariantCulture) * 1024;
        }
        throw new CommandException(ExitCodes.Failed, $"/proc/meminfo has no {key}: is this Linux?");
    }
}
