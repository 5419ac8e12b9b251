// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>The signals that <c>vsmp run</c> and <c>vsmp spmd</c> pass on to what they run.</summary>
internal static class PassedSignals
{
    private static readonly int[] All =
    [
        Signals.SIGINT, Signals.SIGTERM, Signals.SIGHUP, Signals.SIGQUIT, Signals.SIGUSR1, Signals.SIGUSR2, Signals.SIGTSTP,
        Signals.SIGCONT, Signals.SIGWINCH,
    ];

    /// <summary>Has them handled. What nohup or a shell had ignored for us stays ignored, for us and for the program.</summary>
    public static IEnumerable<PosixSignalRegistration> Register(Action<PosixSignalContext> handler)
    {
        foreach (int signal in All)
        {
            if (!Signals.IsIgnored(signal)) yield return PosixSignalRegistration.Create((PosixSignal)signal, handler);
        }
    }

    /// <summary>The signal's number.</summary>
    public static int NumberOf(PosixSignal signal) => (int)signal switch
    {
        > 0 and int raw => raw,
        (int)PosixSignal.SIGHUP => Signals.SIGHUP,
        (int)PosixSignal.SIGINT => Signals.SIGINT,
        (int)PosixSignal.SIGQUIT => Signals.SIGQUIT,
        (int)PosixSignal.SIGTERM => Signals.SIGTERM,
        (int)PosixSignal.SIGCONT => Signals.SIGCONT,
        (int)PosixSignal.SIGTSTP => Signals.SIGTSTP,
        (int)PosixSignal.SIGWINCH => Signals.SIGWINCH,
        _ => 0,
    };

    /// <summary>The terminal's keys signal the whole foreground group: what we run has got that one by itself.</summary>
    public static bool IsFromTerminal(int signal) =>
        signal is Signals.SIGINT or Signals.SIGQUIT or Signals.SIGTSTP or Signals.SIGWINCH && Signals.IsForegroundOfTerminal();
}
