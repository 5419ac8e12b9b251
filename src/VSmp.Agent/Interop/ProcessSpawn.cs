// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using System.Text;

namespace VSmp.Agent.Interop;

/// <summary>
/// Starts programs by posix_spawn(3), which a process with threads may use where fork would be wrong. Strings are bytes: what
/// the user typed reaches the program as it was, whatever its encoding.
/// </summary>
internal static unsafe partial class ProcessSpawn
{
    private const short POSIX_SPAWN_SETSIGDEF = 0x04, POSIX_SPAWN_SETSID = 0x80;

    // posix_spawnattr_t is 336 bytes, posix_spawn_file_actions_t 80, sigset_t 128 (glibc, x86-64)
    private const int OpaqueBytes = 512;

    private const int O_WRONLY = 1, O_CREAT = 0x40, O_APPEND = 0x400;

    /// <summary>A byte string with its terminating zero.</summary>
    public static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text + '\0');

    /// <summary>Starts a program that shares everything with us: terminal, process group, standard streams.</summary>
    /// <returns>Its process id, or minus an errno value.</returns>
    public static int Foreground(byte[] path, byte[][] arguments, byte[][] environment) =>
        Spawn(path, arguments, environment, null, hasInput: true);

    /// <summary>The same, but with nothing to read on its standard input.</summary>
    /// <returns>Its process id, or minus an errno value.</returns>
    public static int WithoutInput(byte[] path, byte[][] arguments, byte[][] environment) =>
        Spawn(path, arguments, environment, null, hasInput: false);

    /// <summary>The same, with what it reads (negative: nothing) and prints coming from and going to descriptors.</summary>
    /// <returns>Its process id, or minus an errno value.</returns>
    public static int WithStreams(byte[] path, byte[][] arguments, byte[][] environment, int input, int output, int error) =>
        Spawn(path, arguments, environment, null, hasInput: input >= 0, input, output, error);

    /// <summary>Starts a daemon: a session of its own, output appended to a file, no other descriptor of ours.</summary>
    /// <returns>Its process id, or minus an errno value.</returns>
    public static int Daemon(byte[] path, byte[][] arguments, byte[][] environment, string logFile) =>
        Spawn(path, arguments, environment, logFile, hasInput: false);

    /// <summary>Has a program take this process's place.</summary>
    /// <returns>An errno value, if it cannot.</returns>
    public static int Exec(byte[] path, byte[][] arguments)
    {
        nint[] argv = new nint[arguments.Length + 1];
        for (int i = 0; i < arguments.Length; i++)
        {
            argv[i] = (nint)NativeMemory.Alloc((nuint)arguments[i].Length);
            Marshal.Copy(arguments[i], 0, argv[i], arguments[i].Length);
        }
        // SAFETY: strings of unmanaged memory, each with its terminating zero, and a null behind the last; they are gone with this process.
        fixed (byte* program = path)
        fixed (nint* argvStart = argv)
        {
            _ = ReplaceProcess(program, argvStart);
        }
        return Marshal.GetLastPInvokeError();
    }

    private static int Spawn(byte[] path, byte[][] arguments, byte[][] environment, string? logFile, bool hasInput,
        int input = -1, int output = -1, int error = -1)
    {
        byte* attributes = stackalloc byte[OpaqueBytes], actions = stackalloc byte[OpaqueBytes],
            signals = stackalloc byte[OpaqueBytes];
        List<GCHandle> pins = [];
        // SAFETY: the opaque objects are larger than glibc's; every string is pinned until the call is over, and the child has
        // its own copy of all of it (exec) before posix_spawn returns.
        try
        {
            Check(AttributesInit(attributes));
            Check(ActionsInit(actions));
            Check(SignalSetEmpty(signals));
            Check(SignalSetAdd(signals, Signals.SIGPIPE)); // the runtime ignores it, and exec would pass that on
            Check(AttributesSetSignalDefault(attributes, signals));
            short flags = POSIX_SPAWN_SETSIGDEF;
            if (!hasInput) Check(ActionsAddOpen(actions, 0, Pin("/dev/null"), Libc.O_RDONLY, 0));
            if (input >= 0) Check(ActionsAddDup(actions, input, 0));
            if (output >= 0)
            {
                Check(ActionsAddDup(actions, output, 1));
                Check(ActionsAddDup(actions, error, 2));
            }
            if (logFile is not null)
            {
                flags |= POSIX_SPAWN_SETSID;
                Check(ActionsAddOpen(actions, 1, Pin(logFile), O_WRONLY | O_CREAT | O_APPEND, 0x180 /* 0600 */));
                Check(ActionsAddDup(actions, 1, 2));
                Check(ActionsAddCloseFrom(actions, 3));
            }
            Check(AttributesSetFlags(attributes, flags));
            nint[] argv = [.. arguments.Select(PinBytes), 0], envp = [.. environment.Select(PinBytes), 0];
            int pid = 0, failure;
            fixed (nint* argvStart = argv, envpStart = envp)
            {
                failure = SpawnProcess(&pid, (byte*)PinBytes(path), actions, attributes, argvStart, envpStart);
            }
            _ = ActionsDestroy(actions);
            _ = AttributesDestroy(attributes);
            return failure == 0 ? pid : -failure;
        }
        finally
        {
            foreach (GCHandle pin in pins) pin.Free();
        }

        byte* Pin(string text) => (byte*)PinBytes(Bytes(text));

        nint PinBytes(byte[] bytes)
        {
            var pin = GCHandle.Alloc(bytes, GCHandleType.Pinned);
            pins.Add(pin);
            return pin.AddrOfPinnedObject();
        }

        static void Check(int result)
        {
            if (result != 0) throw Errno.Exception("cannot prepare to start a program", result);
        }
    }

    [LibraryImport("libc", EntryPoint = "posix_spawn")]
    private static partial int SpawnProcess(int* pid, byte* path, byte* actions, byte* attributes, nint* argv, nint* envp);

    [LibraryImport("libc", EntryPoint = "execv", SetLastError = true)]
    private static partial int ReplaceProcess(byte* path, nint* argv);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_init")]
    private static partial int AttributesInit(byte* attributes);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_destroy")]
    private static partial int AttributesDestroy(byte* attributes);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setflags")]
    private static partial int AttributesSetFlags(byte* attributes, short flags);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setsigdefault")]
    private static partial int AttributesSetSignalDefault(byte* attributes, byte* signals);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_init")]
    private static partial int ActionsInit(byte* actions);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_destroy")]
    private static partial int ActionsDestroy(byte* actions);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addopen")]
    private static partial int ActionsAddOpen(byte* actions, int fd, byte* path, int flags, uint mode);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_adddup2")]
    private static partial int ActionsAddDup(byte* actions, int from, int to);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addclosefrom_np")]
    private static partial int ActionsAddCloseFrom(byte* actions, int from);

    [LibraryImport("libc", EntryPoint = "sigemptyset")]
    private static partial int SignalSetEmpty(byte* signals);

    [LibraryImport("libc", EntryPoint = "sigaddset")]
    private static partial int SignalSetAdd(byte* signals, int signal);
}
