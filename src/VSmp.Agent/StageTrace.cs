// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Runtime.InteropServices;

namespace VSmp.Agent;

/// <summary>What a reactor has just done. Written to files: numbers stay.</summary>
internal enum Stage : ulong
{
    /// <summary>It was woken, or found something without having slept.</summary>
    Woken = 1,
    /// <summary>Faults were read from a userfaultfd.</summary>
    FaultRead = 2,
    /// <summary>Bytes of a peer were read.</summary>
    Received = 3,
    /// <summary>What is to be sent is put together: the protocol has been stepped, data are read, checksums made.</summary>
    Stepped = 4,
    /// <summary>It was handed to the kernel, or to the device.</summary>
    Sent = 5,
    /// <summary>Contents are in frames.</summary>
    Written = 6,
    /// <summary>Pages are mapped, and who waits for them is woken.</summary>
    Mapped = 7,
    /// <summary>The turn is over; what comes next is sleep.</summary>
    TurnEnded = 8,
}

/// <summary>
/// When a reactor did what, for <c>vsmp-bench fault --breakdown</c>: the last million marks, in memory until the end, and then in a file. Off
/// unless the environment names a folder.
/// </summary>
/// <remarks>
/// The file is pairs of 64-bit words, little-endian: nanoseconds of CLOCK_MONOTONIC, which all processes of a host share, and the stage.
/// </remarks>
internal sealed class StageTrace
{
    /// <summary>The environment variable that names the folder.</summary>
    public const string Variable = "VSMP_STAGES";

    private const int Capacity = 1 << 20;

    private readonly string _path;
    private readonly (long Nanoseconds, Stage Stage)[] _marks = new (long, Stage)[Capacity];
    private ulong _count;

    private StageTrace(string path) => _path = path;

    /// <summary>The trace of a node, or null if none is asked for.</summary>
    public static StageTrace? FromEnvironment(string node) =>
        Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } folder ? new StageTrace(Path.Combine(folder, node)) : null;

    /// <summary>Something was done, just now.</summary>
    public void Mark(Stage stage) =>
        _marks[_count++ % Capacity] = ((long)(Stopwatch.GetTimestamp() * (1e9 / Stopwatch.Frequency)), stage);

    /// <summary>Writes the file, marks in the order of their times.</summary>
    public void Save()
    {
        using FileStream file = File.Create(_path);
        int first = (int)(_count % Capacity);
        if (_count > Capacity) file.Write(MemoryMarshal.AsBytes(_marks.AsSpan(first)));
        file.Write(MemoryMarshal.AsBytes(_marks.AsSpan(0, _count > Capacity ? first : (int)_count)));
    }
}
