// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Runtime.InteropServices;

namespace VSmp.Bench.History;

/// <summary>What an operation of a history did.</summary>
public enum OperationKind : uint
{
    /// <summary>Read a value.</summary>
    Read = 0,

    /// <summary>Wrote a value that nobody else writes.</summary>
    Write = 1,

    /// <summary>Added 1, atomically; the value is what it found.</summary>
    FetchAdd = 2,
}

/// <summary>An operation on one word, as a rank recorded it (native/litmus/history.c): 32 bytes.</summary>
/// <param name="Start">When it began, in nanoseconds of a clock that all ranks share.</param>
/// <param name="Finish">When it had certainly taken effect.</param>
/// <param name="Value">What was read, written, or found by fetch-and-add.</param>
/// <param name="Word">Which word.</param>
/// <param name="Kind">What it did.</param>
[StructLayout(LayoutKind.Sequential, Pack = 8)]
public readonly record struct Operation(ulong Start, ulong Finish, ulong Value, uint Word, OperationKind Kind)
{
    /// <summary>The value that the word has just after this operation.</summary>
    public ulong ValueAfter => Kind == OperationKind.FetchAdd ? Value + 1 : Value;

    /// <summary>Reads a rank's records.</summary>
    /// <exception cref="InvalidDataException">The file is no whole number of records, or has an unknown kind.</exception>
    public static Operation[] ReadFile(string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        int size = Marshal.SizeOf<Operation>();
        if (bytes.Length % size != 0) throw new InvalidDataException($"{path}: {bytes.Length} bytes are no whole number of records");
        Operation[] operations = MemoryMarshal.Cast<byte, Operation>(bytes).ToArray();
        if (Array.Exists(operations, operation => operation.Kind > OperationKind.FetchAdd || operation.Finish < operation.Start))
        {
            throw new InvalidDataException($"{path}: a record is damaged");
        }
        return operations;
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"[{Start}, {Finish}] word {Word} {Kind} {(Kind == OperationKind.FetchAdd ? $"{Value:x} → {Value + 1:x}" : $"{Value:x}")}");
}
