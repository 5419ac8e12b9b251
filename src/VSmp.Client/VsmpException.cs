// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Client;

/// <summary>Why a call failed: the errno values of vsmp.h that a program may want to act on.</summary>
public enum VsmpError
{
    /// <summary>EPERM: this rank does not hold the lock.</summary>
    NotHeld = 1,

    /// <summary>ENOMEM: the pool, or the region, has not that much left.</summary>
    OutOfMemory = 12,

    /// <summary>EINVAL: an argument is wrong, or the process was not started by <c>vsmp spmd</c>.</summary>
    InvalidArgument = 22,

    /// <summary>EPIPE: a rank of the job has ended; what it held is released.</summary>
    RankEnded = 32,

    /// <summary>EPROTO: ranks disagree.</summary>
    Disagreement = 71,

    /// <summary>ECONNRESET: the agent is lost.</summary>
    AgentLost = 104,
}

/// <summary>A call failed; the message says what, where, and what to do, in the library's words.</summary>
public sealed class VsmpException : Exception
{
    internal VsmpException(string call, int error, string words)
        : base($"{call}: {words}")
    {
        Call = call;
        Error = (VsmpError)error;
    }

    /// <summary>The function that failed.</summary>
    public string Call { get; }

    /// <summary>Why; a number that <see cref="VsmpError"/> does not name is another errno value.</summary>
    public VsmpError Error { get; }

    /// <summary>Throws if a function of vsmp.h failed. To be called on the thread that called the function.</summary>
    internal static void ThrowIfFailed(int error, string call)
    {
        if (error != 0) throw Last(call, error);
    }

    /// <summary>The exception for what failed last on this thread.</summary>
    internal static unsafe VsmpException Last(string call, int error)
    {
        // SAFETY: never null, and valid until the next call of the library on this thread.
        string words = Marshal.PtrToStringUTF8((nint)NativeMethods.vsmp_error()) ?? "";
        return new VsmpException(call, error, words);
    }
}
