// SPDX-License-Identifier: Apache-2.0
using System.Text;

namespace VSmp.Agent.Cli;

/// <summary>An environment as bytes, as the kernel hands it on: nothing is lost of values that are not UTF-8.</summary>
internal sealed class EnvironmentBlock
{
    private readonly List<byte[]> _entries; // each with its terminating zero

    private EnvironmentBlock(List<byte[]> entries) => _entries = entries;

    /// <summary>The entries, <c>NAME=value</c> with a terminating zero.</summary>
    public byte[][] Entries => [.. _entries];

    /// <summary>What this process was started with.</summary>
    public static EnvironmentBlock OfThisProcess() => new(SplitAtZeros(File.ReadAllBytes("/proc/self/environ")));

    /// <summary>Entries as they were sent from another host.</summary>
    public static EnvironmentBlock Of(IEnumerable<byte[]> entries) => new([.. entries]);

    /// <summary>The last of this process's arguments, as bytes with a terminating zero.</summary>
    public static byte[][] LastArguments(int count)
    {
        List<byte[]> all = SplitAtZeros(File.ReadAllBytes("/proc/self/cmdline"));
        return [.. all.Skip(all.Count - count)];
    }

    /// <summary>The value of a variable, or null.</summary>
    public string? Get(string name)
    {
        int index = IndexOf(name);
        return index < 0 ? null : Encoding.UTF8.GetString(_entries[index].AsSpan(name.Length + 1).TrimEnd((byte)0));
    }

    /// <summary>Sets a variable.</summary>
    public EnvironmentBlock With(string name, string value)
    {
        _ = Without(name);
        _entries.Add(Encoding.UTF8.GetBytes($"{name}={value}\0"));
        return this;
    }

    /// <summary>Removes a variable.</summary>
    public EnvironmentBlock Without(string name)
    {
        int index = IndexOf(name);
        if (index >= 0) _entries.RemoveAt(index);
        return this;
    }

    /// <summary>Puts a text before a variable's value (which may be any bytes), or makes it the value.</summary>
    public EnvironmentBlock WithPrefix(string name, string prefix, char separator)
    {
        int index = IndexOf(name);
        if (index < 0 || _entries[index].Length == name.Length + 2) return With(name, prefix);
        _entries[index] = [.. Encoding.UTF8.GetBytes($"{name}={prefix}{separator}"), .. _entries[index].AsSpan(name.Length + 1)];
        return this;
    }

    private int IndexOf(string name)
    {
        byte[] start = Encoding.UTF8.GetBytes(name + "=");
        return _entries.FindIndex(entry => entry.AsSpan().StartsWith(start));
    }

    private static List<byte[]> SplitAtZeros(byte[] block)
    {
        List<byte[]> entries = [];
        for (int start = 0; start < block.Length;)
        {
            int length = block.AsSpan(start).IndexOf((byte)0);
            if (length < 0) break;
            entries.Add(block[start..(start + length + 1)]);
            start += length + 1;
        }
        return entries;
    }
}
