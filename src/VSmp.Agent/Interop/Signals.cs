// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary>Signals by number (signal(7), x86-64), and what the .NET runtime does not offer about them.</summary>
internal static unsafe partial class Signals
{
    public const int SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGKILL = 9, SIGUSR1 = 10, SIGUSR2 = 12, SIGPIPE = 13, SIGTERM = 15,
        SIGCONT = 18, SIGSTOP = 19, SIGTSTP = 20, SIGWINCH = 28;

    private const nint SIG_DFL = 0, SIG_IGN = 1;
    private const int SIG_UNBLOCK = 1;
    private const int SigactionBytes = 152, SignalSetBytes = 128; // glibc, x86-64

    /// <summary>Whether the process ignores the signal: <c>nohup</c> and shells set that up, and it is to stay so.</summary>
    public static bool IsIgnored(int signal)
    {
        byte* action = stackalloc byte[SigactionBytes];
        // SAFETY: the buffer has the size of glibc's struct sigaction, whose first word is the handler.
        return SignalAction(signal, null, action) == 0 && *(nint*)action == SIG_IGN;
    }

    /// <summary>Ends this process by the signal, so that whoever waits for it sees what ended the program it ran.</summary>
    public static void RaiseDefault(int signal)
    {
        ProcessControl.ForbidCore(); // the program left its own
        byte* action = stackalloc byte[SigactionBytes], set = stackalloc byte[SignalSetBytes];
        // SAFETY: buffers of glibc's sizes; all zero is SIG_DFL with no flags.
        new Span<byte>(action, SigactionBytes).Clear();
        *(nint*)action = SIG_DFL;
        _ = SignalAction(signal, action, null);
        _ = SignalSetEmpty(set);
        _ = SignalSetAdd(set, signal);
        _ = ThreadSignalMask(SIG_UNBLOCK, set, null);
        _ = Libc.Kill(Environment.ProcessId, signal);
    }

    /// <summary>The process group in the foreground of our terminal is ours: its keys send their signals to all of us.</summary>
    public static bool IsForegroundOfTerminal()
    {
        int terminal = Libc.Open("/dev/tty", Libc.O_RDONLY | Libc.O_CLOEXEC | Libc.O_NONBLOCK, 0);
        if (terminal < 0) return false;
        bool isForeground = TerminalGroup(terminal) == ProcessGroup();
        _ = Libc.Close(terminal);
        return isForeground;
    }

    [LibraryImport("libc", EntryPoint = "sigaction", SetLastError = true)]
    private static partial int SignalAction(int signal, byte* action, byte* previous);

    [LibraryImport("libc", EntryPoint = "sigemptyset")]
    private static partial int SignalSetEmpty(byte* signals);

    [LibraryImport("libc", EntryPoint = "sigaddset")]
    private static partial int SignalSetAdd(byte* signals, int signal);

    [LibraryImport("libc", EntryPoint = "pthread_sigmask")]
    private static partial int ThreadSignalMask(int how, byte* set, byte* previous);

    [LibraryImport("libc", EntryPoint = "tcgetpgrp", SetLastError = true)]
    private static partial int TerminalGroup(int terminal);

    [LibraryImport("libc", EntryPoint = "getpgrp")]
    private static partial int ProcessGroup();
}
