// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Cli;

public sealed class ProgramFileTests : IDisposable
{
    private const UnixFileMode Executable =
        UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupRead
        | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute;

    private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-test-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_program_is_found_in_the_path_in_its_order()
    {
        string mine = Copy("true", _ => { });
        Assert.Equal(mine, ProgramFile.Find("true", $"/nowhere:{_folder}:/usr/bin:/bin").Path);
        Assert.Empty(ProgramFile.Find("sh", "/usr/bin:/bin").LeadingArguments);
    }

    [Theory]
    [InlineData("no-such-program")]
    [InlineData("/nowhere/program")]
    [InlineData("")]
    public void What_is_not_there_is_127(string program) => Refuses(program, ExitCodes.NotFound, "");

    [Fact]
    public void What_is_not_executable_is_126()
    {
        string file = Write("data", "#!/bin/sh\n");
        File.SetUnixFileMode(file, UnixFileMode.UserRead);
        Refuses(file, ExitCodes.CannotExecute, "permission denied");
        Refuses(_folder, ExitCodes.CannotExecute, "directory");
    }

    [Fact]
    public void A_statically_linked_program_is_refused_with_advice() =>
        Refuses(Copy("static", bytes => ForEachSegment(bytes, type => type == 3 ? 0u : type)), ExitCodes.CannotExecute,
            "statically linked");

    [Fact]
    public void A_program_of_another_architecture_is_refused()
    {
        Refuses(Copy("arm", bytes => bytes[18] = 183), ExitCodes.CannotExecute, "another architecture");
        Refuses(Copy("i386", bytes => bytes[4] = 1), ExitCodes.CannotExecute, "another architecture");
    }

    [Fact]
    public void A_setuid_program_of_another_user_is_refused_with_advice()
    {
        Assert.SkipUnless(Libc.GetEffectiveUserId() == 0, "needs root, to make a program another user's");
        string file = Copy("setuid", _ => { });
        Assert.Equal(0, Chown(file, 65534));
        File.SetUnixFileMode(file, Executable | UnixFileMode.SetUser);
        Refuses(file, ExitCodes.CannotExecute, "setuid");
    }

    [Fact]
    public void A_script_is_judged_by_its_interpreter()
    {
        string program = Copy("static", bytes => ForEachSegment(bytes, type => type == 3 ? 0u : type));
        Assert.Empty(ProgramFile.Find(Write("good", "#!/bin/sh -e\ntrue\n"), null).LeadingArguments);
        Assert.Empty(ProgramFile.Find(Write("by-env", "#!/usr/bin/env -S sh\n"), "/usr/bin:/bin").LeadingArguments);
        Refuses(Write("bad", $"#!{program}\n"), ExitCodes.CannotExecute, "statically linked");
        Refuses(Write("worse", $"#! {Write("bad2", $"#!{program}\n")}\n"), ExitCodes.CannotExecute, "statically linked");
        Refuses(Write("missing", "#!/nowhere/perl\n"), ExitCodes.NotFound, "/nowhere/perl");
        string circle = Path.Combine(_folder, "circle");
        Refuses(Write("circle", $"#!{circle}\n"), ExitCodes.CannotExecute, "circle");
    }

    [Fact]
    public void A_script_without_a_first_line_goes_to_the_shell()
    {
        string file = Write("plain", "echo hello\n");
        ProgramFile program = ProgramFile.Find(file, null);
        Assert.Equal("/bin/sh", program.Path);
        Assert.Equal([file], program.LeadingArguments);
    }

    [Fact]
    public void Bytes_that_are_no_program_are_refused()
    {
        string file = Write("rubbish", "\0\u0001\0\n");
        Refuses(file, ExitCodes.CannotExecute, "no program");
        Refuses(Write("damaged", "\u007fELF"), ExitCodes.CannotExecute, "");
    }

    private static void Refuses(string program, int exitCode, string reason)
    {
        CommandException refusal = Assert.Throws<CommandException>(() => ProgramFile.Find(program, "/usr/bin:/bin"));
        Assert.Equal(exitCode, refusal.ExitCode);
        Assert.Contains(reason, refusal.Message, StringComparison.Ordinal);
    }

    private static int Chown(string file, uint user)
    {
        using var chown = System.Diagnostics.Process.Start("chown", [user.ToString(null, null), file]);
        chown.WaitForExit();
        return chown.ExitCode;
    }

    private string Write(string name, string text)
    {
        string file = Path.Combine(_folder, name);
        File.WriteAllText(file, text);
        File.SetUnixFileMode(file, Executable);
        return file;
    }

    /// <summary>A real program, changed.</summary>
    private string Copy(string name, Action<byte[]> change)
    {
        byte[] bytes = File.ReadAllBytes("/usr/bin/true");
        change(bytes);
        string file = Path.Combine(_folder, name);
        File.WriteAllBytes(file, bytes);
        File.SetUnixFileMode(file, Executable);
        return file;
    }

    private static void ForEachSegment(byte[] elf, Func<uint, uint> change)
    {
        ulong start = BitConverter.ToUInt64(elf, 32);
        int bytes = BitConverter.ToUInt16(elf, 54), count = BitConverter.ToUInt16(elf, 56);
        for (int i = 0; i < count; i++)
        {
            Span<byte> type = elf.AsSpan((int)start + (i * bytes), 4);
            _ = BitConverter.TryWriteBytes(type, change(BitConverter.ToUInt32(type)));
        }
    }
}
