// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Text;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>
/// Finds a program as a shell would, and tells whether it can run on the pool: the guest library gets into dynamically linked
/// programs of this architecture that do not gain privileges.
/// </summary>
/// <param name="Path">What to execute.</param>
/// <param name="LeadingArguments">Goes between <c>argv[0]</c> and the program's own arguments: the script, for a script without
/// <c>#!</c>.</param>
internal sealed record ProgramFile(string Path, IReadOnlyList<string> LeadingArguments)
{
    private const int MaxInterpreters = 5; // as the kernel
    private const int HeaderBytes = 4096;
    private const int ElfHeaderBytes = 64;
    private const ushort MachineX86_64 = 62;

    /// <summary>Finds and checks a program.</summary>
    /// <param name="program">As typed.</param>
    /// <param name="searchPath">The value of PATH.</param>
    /// <exception cref="CommandException">Not there (127), or not to be run (126).</exception>
    public static ProgramFile Find(string program, string? searchPath)
    {
        string path = Search(program, searchPath);
        return Check(path, program, searchPath, MaxInterpreters)
            ? new ProgramFile(path, [])
            : new ProgramFile("/bin/sh", [path]);
    }

    /// <summary>Finds a program that needs nothing loaded into it: a rank of a job, which is linked with libvsmp, or starts one that is.</summary>
    /// <exception cref="CommandException">Not there (127), or not to be run (126).</exception>
    public static ProgramFile FindAny(string program, string? searchPath)
    {
        string path = Search(program, searchPath);
        byte[] header;
        try
        {
            using FileStream file = File.OpenRead(path);
            header = new byte[4];
            if (file.ReadAtLeast(header, 4, throwOnEndOfStream: false) == 0) return new ProgramFile("/bin/sh", [path]);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return new ProgramFile(path, []); // executable, but not readable: the kernel knows what it is
        }
        bool isForKernel = header.AsSpan().StartsWith("\u007fELF"u8) || header.AsSpan().StartsWith("#!"u8);
        return isForKernel ? new ProgramFile(path, []) : new ProgramFile("/bin/sh", [path]);
    }

    private static string Search(string program, string? searchPath)
    {
        if (program.Length == 0) throw new CommandException(ExitCodes.NotFound, "the program's name is empty");
        string? refused = null;
        IEnumerable<string> candidates = program.Contains('/', StringComparison.Ordinal)
            ? [program]
            : (searchPath ?? "/usr/local/bin:/usr/bin:/bin").Split(':')
                .Select(folder => System.IO.Path.Combine(folder.Length == 0 ? "." : folder, program));
        foreach (string candidate in candidates)
        {
            if (Directory.Exists(candidate))
            {
                refused ??= $"{candidate} is a directory";
            }
            else if (UnixFile.Look(candidate, followLink: true) is not null)
            {
                if (UnixFile.MayExecute(candidate)) return candidate;
                refused = $"{candidate}: permission denied (is it executable? chmod +x {candidate})";
            }
        }
        throw refused is not null && (refused.Contains("permission", StringComparison.Ordinal)
            || program.Contains('/', StringComparison.Ordinal))
            ? new CommandException(ExitCodes.CannotExecute, refused)
            : new CommandException(ExitCodes.NotFound, $"{program}: no such program");
    }

    /// <returns>True if the kernel can execute it; false if it is a script without <c>#!</c>, for /bin/sh.</returns>
    private static bool Check(string path, string program, string? searchPath, int interpretersLeft)
    {
        CheckPrivileges(path, program);
        byte[] header = ReadHeader(path);
        if (header.AsSpan().StartsWith("\u007fELF"u8))
        {
            if (header.Length < ElfHeaderBytes) throw Refused(program, "its ELF header is damaged");
            CheckElf(path, program, header);
            return true;
        }
        if (header.AsSpan().StartsWith("#!"u8))
        {
            if (interpretersLeft == 0) throw Refused(program, "its interpreters go round in a circle");
            CheckInterpreter(path, header, searchPath, interpretersLeft);
            return true;
        }
        int line = header.AsSpan().IndexOf((byte)'\n');
        if (header.AsSpan(0, line < 0 ? header.Length : line).Contains((byte)0))
        {
            throw Refused(program, "it is no program that Linux can run");
        }
        return false;
    }

    private static void CheckInterpreter(string script, byte[] header, string? searchPath, int interpretersLeft)
    {
        int end = header.AsSpan().IndexOf((byte)'\n');
        string line = Encoding.UTF8.GetString(header.AsSpan(2, (end < 0 ? header.Length : end) - 2));
        string[] words = line.Split((char[])[' ', '\t', '\r'], StringSplitOptions.RemoveEmptyEntries);
        if (words.Length == 0) throw Refused(script, "its first line names no interpreter");
        string interpreter = words[0];
        if (UnixFile.Look(interpreter, followLink: true) is null)
        {
            throw new CommandException(ExitCodes.NotFound, $"{script}: its interpreter {interpreter} is not there");
        }
        if (!UnixFile.MayExecute(interpreter)) throw Refused(script, $"its interpreter {interpreter} is not executable");
        // `#!/usr/bin/env python3` is about python3.
        if (System.IO.Path.GetFileName(interpreter) == "env"
            && words.Skip(1).FirstOrDefault(IsNoOptionOfEnv) is { } named)
        {
            interpreter = Search(named, searchPath);
        }
        _ = Check(interpreter, interpreter == script ? script : $"{script} (run by {interpreter})", searchPath,
            interpretersLeft - 1);
    }

    private static bool IsNoOptionOfEnv(string word) => !word.StartsWith('-') && !word.Contains('=', StringComparison.Ordinal);

    private static void CheckPrivileges(string path, string program)
    {
        const uint SetUserId = 0x800, SetGroupId = 0x400, GroupExecute = 0x8;
        if (UnixFile.Look(path, followLink: true) is not { } look) return;
        uint user = Libc.GetEffectiveUserId();
        const string Advice = "the dynamic linker loads nothing into a program that gains privileges: run it without them, "
            + "or run what it starts by vsmp run";
        if ((look.Mode & SetUserId) != 0 && look.UserId != user) throw Refused(program, $"it is setuid; {Advice}");
        if ((look.Mode & (SetGroupId | GroupExecute)) == (SetGroupId | GroupExecute) && look.GroupId != UnixFile.EffectiveGroupId)
        {
            throw Refused(program, $"it is setgid; {Advice}");
        }
        // For root, capabilities of the file change nothing.
        if (user != 0 && UnixFile.HasCapabilities(path)) throw Refused(program, $"it carries file capabilities; {Advice}");
    }

    private static void CheckElf(string path, string program, byte[] header)
    {
        const int ProgramHeaderBytes = 56;
        const uint InterpreterSegment = 3;
        bool is64Bit = header[4] == 2, isLittleEndian = header[5] == 1;
        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(18));
        if (!is64Bit || !isLittleEndian || machine != MachineX86_64)
        {
            throw Refused(program, "it is built for another architecture than 64-bit x86: build it for x86_64");
        }
        ulong offset = BinaryPrimitives.ReadUInt64LittleEndian(header.AsSpan(32));
        int entryBytes = BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(54));
        int entries = BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(56));
        if (entryBytes < ProgramHeaderBytes) throw Refused(program, "its ELF header is damaged");
        using FileStream file = File.OpenRead(path);
        byte[] entry = new byte[ProgramHeaderBytes];
        for (int i = 0; i < entries; i++)
        {
            file.Position = (long)Math.Min(offset + (ulong)(i * entryBytes), long.MaxValue);
            if (file.ReadAtLeast(entry, entry.Length, throwOnEndOfStream: false) < entry.Length) break;
            if (BinaryPrimitives.ReadUInt32LittleEndian(entry) == InterpreterSegment) return;
        }
        throw Refused(program, "it is statically linked, and the guest library gets only into dynamically linked programs: "
            + "link it dynamically (without -static), or run it without vsmp");
    }

    private static byte[] ReadHeader(string path)
    {
        try
        {
            using FileStream file = File.OpenRead(path);
            byte[] header = new byte[HeaderBytes];
            return header[..file.ReadAtLeast(header, HeaderBytes, throwOnEndOfStream: false)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Executable but not readable: what it is cannot be told.
            throw Refused(path, "it cannot be read, so it cannot be told whether it may run on the pool: chmod +r");
        }
    }

    private static CommandException Refused(string program, string why) =>
        new(ExitCodes.CannotExecute, $"{program} cannot run on the pool: {why}");
}
