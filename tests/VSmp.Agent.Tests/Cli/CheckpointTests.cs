// SPDX-License-Identifier: Apache-2.0
using System.Text.RegularExpressions;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Agent.Tests.Checkpointing;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Cli;

/// <summary><c>vsmp checkpoint</c>, which needs no agent.</summary>
public sealed class CheckpointTests : IDisposable
{
    private static readonly string Taken = new DateTimeOffset(2026, 3, 1, 12, 0, 3, TimeSpan.Zero).ToLocalTime().ToString("yyyy-MM-dd HH:mm:ss", null);

    private readonly string _root = Directory.CreateTempSubdirectory("vsmp-checkpoints-").FullName;

    private string Heat => Path.Combine(_root, "heat");

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public async Task Checkpoints_are_listed_and_what_is_wrong_with_them()
    {
        Assert.Equal("NAME  GENERATIONS  NEWEST TAKEN  PROGRAM  RANKS  MEMORY  STORED  NOTE\n", await Runs(0, "ls"));
        SavedCheckpoint.Write(Heat, 3);
        SavedCheckpoint.Write($"{_root}/broken", 3).Damage(3, Manifest.FileName, 20);
        SavedCheckpoint later = SavedCheckpoint.Write($"{_root}/later", 1);
        later.Replace(1, later.Store.Load(1) with { Format = 2 });
        Directory.CreateDirectory($"{_root}/begun/g00000001");
        Directory.CreateDirectory($"{_root}/other");
        string[] lines = (await Runs(0, "ls")).TrimEnd().Split('\n');
        Assert.Equal(["begun", "broken", "heat", "later"], lines.Skip(1).Select(line => line.Split(' ')[0]));
        Assert.Matches("- +0 B  no generation is complete$", lines[1]);
        Assert.Matches("1-3 .*generation 3 cannot be used: g00000003/manifest is damaged", lines[2]);
        Assert.Matches($"1-3 +{Taken}  heat +2  524 KiB  4.. KiB$", lines[3]);
        Assert.Matches("1 +-  .*has format 2, and this vsmp reads format 1: use a newer one", lines[4]);
    }

    [Fact]
    public async Task A_generation_is_shown_with_where_it_has_changed()
    {
        SavedCheckpoint.Write(Heat, 3);
        string output = await Runs(0, "show", "heat");
        Assert.Contains($"""
            checkpoint  heat, generation 3, format 1
            taken       {Taken}
            program     heat, 2 ranks, 3 B of state beside its memory

            REGION     SIZE         ADDRESS  PAGES  NOT ZERO  CHANGED
            grid    512 KiB  0x200000000000    128       111        4
            heap     12 KiB  0x200000400000      3         3        0

            """, output, StringComparison.Ordinal);
        Assert.Contains("""

            PART OF NODE  GENERATION  PAGES  OF THEM ZERO     BYTES
            n0                     3      4             1  12.1 KiB
            n0                     2      4             1  12.1 KiB
            n0                     1    128            16   451 KiB
            n1                     1      3             0  12.1 KiB

            CAPTURED FOR  PAGES   SHARE
                       3      4   3.1 %
                       2      4   3.1 %
                       1    123  93.9 %

            """, output, StringComparison.Ordinal);
        Assert.Contains($"""
            grid  │    ██{new string(' ', 58)}│  8 KiB a cell
            heap  │   │  4 KiB a cell

            """, output, StringComparison.Ordinal);
        Assert.Contains("heat, generation 1,", await Runs(0, "show", "heat", "--generation", "1"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_newest_generation_that_can_be_used_is_shown()
    {
        SavedCheckpoint made = SavedCheckpoint.Write(Heat, 3);
        made.Damage(3, "n0.index", 5);
        var (exitCode, output, errors) = await Run("show", "heat");
        Assert.Equal((0, "vsmp: generation 3 cannot be used: g00000003/n0.index is damaged"), (exitCode, errors[..errors.IndexOf(": its", StringComparison.Ordinal)]));
        Assert.Contains("heat, generation 2,", output, StringComparison.Ordinal);
        Assert.Contains("g00000003/n0.index is damaged", await Fails(ExitCodes.Unsound, "show", "heat", "--generation", "3"), StringComparison.Ordinal);
        made.Damage(1, "n0.index", 5); // on which all are built
        (exitCode, _, errors) = await Run("show", "heat");
        Assert.Equal(ExitCodes.Unsound, exitCode);
        Assert.EndsWith("vsmp: checkpoint heat has no generation that can be used\n", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_copied_folder_is_verified_without_its_root()
    {
        SavedCheckpoint.Write($"{_root}/somewhere/copy", 3);
        string output = await Runs(0, "verify", $"{_root}/somewhere/copy/");
        string[] lines = output.TrimEnd().Split('\n');
        Assert.Equal(3, lines.Length);
        Assert.Matches(@"^generation 1: sound: 131 pages in 2 parts, 463 KiB; 463 KiB read in \d+\.\d\d s, \d+\.\d\d GB/s$", lines[0]);
        Assert.Matches(@"^generation 2: sound: 135 pages in 3 parts, 475 KiB; 12.1 KiB read in ", lines[1]); // parts of the first are read once
        Assert.Matches("^generation 2: sound", await Runs(0, "verify", $"{_root}/somewhere/copy", "--generation", "2"));
        Assert.Equal(3, CheckpointFolder.At(_root, $"{_root}/somewhere/copy").Store.List().Count);
    }

    [Fact]
    public async Task Damage_is_found_in_the_generations_that_have_it()
    {
        SavedCheckpoint made = SavedCheckpoint.Write(Heat, 3);
        made.Damage(2, "n0.pages", (2 * PageNumber.Bytes) + 17);
        string[] lines = (await Runs(ExitCodes.Unsound, "verify", "heat")).TrimEnd().Split('\n');
        Assert.StartsWith("generation 1: sound", lines[0], StringComparison.Ordinal);
        foreach (int generation in new[] { 2, 3 })
            Assert.Equal($"generation {generation}: not sound: g00000002/n0.pages is damaged: the page at byte 8192 (region grid, page 6) has another checksum than when it was written", lines[generation - 1]);
        await Runs(0, "verify", "heat", "--generation", "1");
        File.Delete(made.PathOf(1, "n1.pages"));
        lines = (await Runs(ExitCodes.Unsound, "verify", "heat")).TrimEnd().Split('\n');
        Assert.All(lines, line => Assert.Contains("g00000001/n1.pages is needed, and cannot be read", line, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_newer_format_is_named_as_such()
    {
        SavedCheckpoint made = SavedCheckpoint.Write(Heat, 1);
        made.Replace(1, made.Store.Load(1) with { Format = 7 });
        Assert.Contains("format 7, and this vsmp reads format 1: use a newer one", await Runs(ExitCodes.Unsound, "verify", "heat"), StringComparison.Ordinal);
        foreach (string[] arguments in new string[][] { ["show", "heat", "--generation", "1"], ["diff", "heat@1", "heat@1"] })
            Assert.Contains("use a newer one", await Fails(ExitCodes.Unsound, arguments), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Generations_are_compared_by_page()
    {
        SavedCheckpoint.Write(Heat, 3);
        string output = await Runs(1, "diff", "heat");
        // The last of the four pages becomes zero; of those before it was.
        Assert.Contains("""
            REGION  PAGES  SAME  DIFFERENT  ONLY IN FIRST  ONLY IN SECOND  NOTE
            grid      128   124          3              1               0
            heap        3     3          0              0               0

            """, output, StringComparison.Ordinal);
        Assert.Contains($"grid  │    ██{new string(' ', 58)}│  8 KiB a cell\n", output, StringComparison.Ordinal);
        Assert.DoesNotContain("heap  │", output, StringComparison.Ordinal);
        Assert.Contains($"first   {Heat}, generation 2, taken", output, StringComparison.Ordinal);
        Assert.Contains("""
            REGION            FROM              TO  PAGES  WHAT
            grid    0x200000008000  0x20000000afff      3  different
            grid    0x20000000b000  0x20000000bfff      1  only in first

            """, await Runs(1, "diff", "heat", "--pages"), StringComparison.Ordinal);
        Assert.Contains("""
            REGION            FROM              TO  PAGES  WHAT
            grid    0x200000004000  0x200000006fff      3  different
            grid    0x200000008000  0x20000000afff      3  different
            grid    0x20000000b000  0x20000000bfff      1  only in first

            """, await Runs(1, "diff", "heat@1", "heat", "--pages"), StringComparison.Ordinal);
        Assert.Matches(@"grid +128 +128 +0 +0 +0\n", await Runs(0, "diff", "heat@2", $"{_root}/heat@2", "--pages"));
    }

    [Fact]
    public async Task What_only_one_of_two_checkpoints_has_is_told()
    {
        SavedCheckpoint.Write(Heat, 1);
        new SavedCheckpoint($"{_root}/half") { Regions = [SavedCheckpoint.Grid with { Address = 0x3000_0000_0000 }] }.Write(1);
        string output = await Runs(1, "diff", "heat", "half");
        Assert.Matches(@"grid +128 +128 +0 +0 +0 +at 0x200000000000 in the first, at 0x300000000000 in the second\n", output);
        Assert.Matches(@"heap +3 +0 +0 +3 +0 +this region is only in the first\n", output);
        Assert.Contains("heap  │███│", output, StringComparison.Ordinal);
        output = await Runs(1, "diff", "half", "heat", "--pages");
        Assert.Matches(@"heap +3 +0 +0 +0 +3 +this region is only in the second\n", output);
        Assert.Matches(@"heap +0x200000400000 +0x200000402fff +3  only in second\n", output);
        new SavedCheckpoint($"{_root}/longer") { Regions = [SavedCheckpoint.Grid with { Bytes = 2 * SavedCheckpoint.Grid.Bytes }, SavedCheckpoint.Heap] }.Write(1);
        Assert.Contains("524288 bytes in the first, 1048576 in the second", await Runs(1, "diff", "heat@1", "longer"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_checkpoint_is_removed_unless_a_job_writes_it()
    {
        SavedCheckpoint made = SavedCheckpoint.Write(Heat, 3);
        using (IDisposable? job = CheckpointFolder.At(_root, "heat").TryLock())
        {
            foreach (string[] arguments in new string[][] { ["rm", "heat"], ["rm", Heat, "--generation", "1"] })
                Assert.Contains("a running job writes it", await Fails(ExitCodes.Taken, arguments), StringComparison.Ordinal);
            await Runs(0, "verify", "heat");
        }
        Assert.Equal("generation 2 of checkpoint heat is removed; files of it stay that others need, or may need\n", await Runs(0, "rm", "heat", "--generation", "2"));
        Assert.Equal("generation 3 of checkpoint heat is removed\n", await Runs(0, "rm", "heat", "--generation", "3"));
        Assert.Equal(["g00000001", "lock"], Directory.EnumerateFileSystemEntries(Heat).Select(path => Path.GetFileName(path)).Order());
        made.Store.Verify(made.Store.Load(1));
        Assert.Equal("checkpoint heat is removed\n", await Runs(0, "rm", "heat"));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_root));
    }

    [Fact]
    public async Task What_is_no_checkpoint_is_not_removed()
    {
        Directory.CreateDirectory($"{_root}/photos");
        await File.WriteAllTextAsync($"{_root}/photos/cat", "", TestContext.Current.CancellationToken);
        Assert.Contains("is no checkpoint", await Fails(ExitCodes.Usage, "rm", $"{_root}/photos"), StringComparison.Ordinal);
        SavedCheckpoint.Write($"{_root}/photos", 1);
        Assert.Contains("has other files in it", await Runs(0, "rm", "photos"), StringComparison.Ordinal);
        Assert.Equal([$"{_root}/photos/cat", $"{_root}/photos/lock"], Directory.EnumerateFileSystemEntries($"{_root}/photos").Order());
    }

    [Theory]
    [InlineData("there is no checkpoint", "show", "other")]
    [InlineData("there is no checkpoint", "verify", "/nowhere/heat")]
    [InlineData("there is no checkpoint", "diff", "heat", "other")]
    [InlineData("there is no checkpoint", "rm", "other")]
    [InlineData("has no generation 9: it has 1-2", "show", "heat", "--generation", "9")]
    [InlineData("has no generation 9: it has 1-2", "verify", "heat", "--generation", "9")]
    [InlineData("has no generation 9: it has 1-2", "rm", "heat", "--generation", "9")]
    [InlineData("has no generation 9: it has 1-2", "diff", "heat@9")]
    [InlineData("has no generation before 1", "diff", "heat@1")]
    [InlineData("is no name of a checkpoint", "show", "he at")]
    [InlineData("is no name of a checkpoint", "diff", "heat@x")]
    [InlineData("--generation", "show", "heat", "--generation", "newest")]
    [InlineData("required", "show")]
    public async Task What_is_not_there_is_a_usage_error(string expected, params string[] arguments)
    {
        SavedCheckpoint.Write(Heat, 2);
        Assert.Contains(expected, await Fails(ExitCodes.Usage, arguments), StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public async Task Texts_of_files_do_not_reach_the_terminal_as_they_are()
    {
        SavedCheckpoint hostile = new(Heat) { Program = "\x1b]0;owned\a\nheat", Regions = [SavedCheckpoint.Grid with { Name = "gr\x1b[2Jid" }, SavedCheckpoint.Heap] };
        hostile.Write(1);
        hostile.Write(2);
        hostile.Damage(1, "n0.pages", 0);
        foreach (string[] arguments in new string[][] { ["ls"], ["show", "heat"], ["verify", "heat"], ["diff", "heat"], ["diff", "heat", "--pages"], ["rm", "/nowhere/\x1b[2J"] })
        {
            var (_, output, errors) = await Run(arguments);
            Assert.DoesNotContain(output + errors, c => char.IsControl(c) && c != '\n');
        }
        Assert.Contains(@"\u{1b}]0;owned\u{7}\u{a}heat", await Runs(0, "ls"), StringComparison.Ordinal);
        Assert.Contains(@"(region gr\u{1b}[2Jid, page 0)", await Runs(ExitCodes.Unsound, "verify", "heat"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_folder_that_is_not_there_is_told_only_if_it_was_named()
    {
        var (exitCode, _, errors) = await Vsmp.RunAsync(null, "checkpoint", "ls", "--dir", "/nowhere");
        Assert.Equal((ExitCodes.Usage, "vsmp: --dir: there is no folder /nowhere\n"), (exitCode, errors));
    }

    [Fact]
    public async Task Help_and_completion_know_the_commands_and_the_checkpoints()
    {
        foreach (string command in new[] { "ls", "show", "verify", "diff", "rm" })
        {
            string output = await Runs(0, command, "--help");
            Assert.Contains($"vsmp checkpoint {command}", output[output.IndexOf("Examples:", StringComparison.Ordinal)..], StringComparison.Ordinal);
            Assert.Contains("--dir", output, StringComparison.Ordinal);
        }
        SavedCheckpoint.Write(Heat, 1);
        string line = $"vsmp checkpoint show --dir {_root} ";
        var (_, suggested, _) = await Vsmp.RunAsync(null, $"[suggest:{line.Length}]", line);
        Assert.Contains("heat", suggested.Split('\n'));
        (_, suggested, _) = await Vsmp.RunAsync(null, "[suggest:16]", "vsmp checkpoint ");
        Assert.Contains("verify", suggested.Split('\n'));
    }

    private async Task<string> Runs(int expected, params string[] arguments)
    {
        var (exitCode, output, errors) = await Run(arguments);
        Assert.True((expected, "") == (exitCode, errors), $"exit code {exitCode}: {output}{errors}");
        return output;
    }

    private async Task<string> Fails(int expected, params string[] arguments)
    {
        var (exitCode, output, errors) = await Run(arguments);
        Assert.True((expected, "") == (exitCode, output), $"exit code {exitCode}: {output}{errors}");
        Assert.Matches(new Regex("^vsmp: [^\n]+\n$"), errors);
        return errors;
    }

    private async Task<(int ExitCode, string Output, string Errors)> Run(params string[] arguments) => await Vsmp.RunAsync(null, ["checkpoint", .. arguments, "--dir", _root]);
}
