// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using Xunit;

namespace VSmp.Agent.Tests.Guests;

public sealed class RunRecordTests : IDisposable
{
    private const string Token = "00112233445566778899AABBCCDDEEFF";

    private static readonly RunRecord Sound = new(RunRecord.CurrentFormat, Token,
        new RunRequest("mine", "sört", 64 << 20, 4711, 1000, Redundancy: Redundancy.Mirror), 64 << 20, HasLostNode: true, RegionsMade: 3, AgentRestarts: 2,
        SharedRegions: []);

    private readonly string _folder = Path.Combine(Path.GetTempPath(), $"vsmp-test-{Guid.NewGuid():N}");

    private static string Text(RunRecord record) => JsonSerializer.Serialize(record, RunRecordJson.Default.RunRecord);

    private static void AssertSame(IEnumerable<RunRecord> expected, IEnumerable<RunRecord> read) => Assert.Equal(expected.Select(Text), read.Select(Text));

    public void Dispose()
    {
        if (Directory.Exists(_folder)) Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void What_was_written_is_read_again_and_nobody_else_can()
    {
        Assert.Empty(RunRecord.ReadAll(_folder, _ => { }));
        RunRecord other = Sound with { Token = Token.Replace('0', '1'), Request = new RunRequest(null, "cat", null, 1, 0), HasLostNode = false };
        other.Write(_folder);
        Sound.Write(_folder);
        AssertSame([Sound, other], RunRecord.ReadAll(_folder, _ => { }));
        const UnixFileMode Owner = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        Assert.Equal((Owner, Owner | UnixFileMode.UserExecute), (File.GetUnixFileMode(Path.Combine(_folder, Token)), File.GetUnixFileMode(_folder)));

        (Sound with { RegionsMade = 4 }).Write(_folder);
        RunRecord.Delete(_folder, other.Token);
        AssertSame([Sound with { RegionsMade = 4 }], RunRecord.ReadAll(_folder, _ => { }));
        Assert.Equal([Token], Directory.EnumerateFiles(_folder).Select(Path.GetFileName));
    }

    [Fact]
    public void A_run_of_a_job_is_recorded_with_what_its_ranks_share()
    {
        RunRecord ofJob = Sound with { Request = new RunRequest(null, "rank", null, 1, 0, new JobMembership(7, Token)), SharedRegions = [0x0001_0000_0000_0005, 9] };
        ofJob.Write(_folder);
        AssertSame([ofJob], RunRecord.ReadAll(_folder, _ => { }));
    }

    [Fact]
    public void A_record_that_was_being_written_when_the_agent_was_killed_does_not_count()
    {
        Sound.Write(_folder);
        File.WriteAllText(Path.Combine(_folder, Token + ".new"), "{\"format\":2,\"tok");
        AssertSame([Sound], RunRecord.ReadAll(_folder, _ => { }));
        Sound.Write(_folder);
        Assert.Single(Directory.EnumerateFiles(_folder));
    }

    [Fact]
    public void A_record_cut_anywhere_is_left_out_and_the_others_are_read()
    {
        RunRecord other = Sound with { Token = Token.Replace('0', '1') };
        other.Write(_folder);
        Sound.Write(_folder);
        string path = Path.Combine(_folder, Token);
        byte[] whole = File.ReadAllBytes(path);
        for (int length = 0; length < whole.Length; length++)
        {
            File.WriteAllBytes(path, whole[..length]);
            AssertSame([other], RunRecord.ReadAll(_folder, _ => { }));
        }
    }

    [Theory]
    [InlineData("format", "1")]
    [InlineData("format", "\"one\"")]
    [InlineData("token", "null")]
    [InlineData("token", "\"../../../../../../etc/passwd\"")]
    [InlineData("token", "\"00112233445566778899AABBCCDDEE00\"")]
    [InlineData("request", "null")]
    [InlineData("request", "[]")]
    [InlineData("request", "{\"name\":null,\"localBytes\":null,\"program\":null,\"processId\":1,\"userId\":0}")]
    [InlineData("request", "{\"name\":null,\"localBytes\":null,\"program\":\"\",\"processId\":1,\"userId\":0}")]
    [InlineData("request", "{\"name\":null,\"localBytes\":null,\"program\":\"x\",\"processId\":1,\"userId\":-1}")]
    [InlineData("request", "{\"name\":null,\"localBytes\":null,\"program\":\"x\",\"processId\":1,\"userId\":0,\"redundancy\":\"Threefold\"}")]
    [InlineData("request", "{\"name\":null,\"localBytes\":null,\"program\":\"x\",\"processId\":1,\"userId\":0,\"redundancy\":99}")]
    [InlineData("request", "{\"localBytes\":null,\"program\":\"x\",\"processId\":1,\"userId\":0,\"name\":\"../x\"}")]
    [InlineData("request", "{\"name\":null,\"localBytes\":null,\"program\":\"x\",\"processId\":1,\"userId\":0,\"job\":{\"job\":1,\"token\":\"t\"}}")]
    [InlineData("localBytes", "0")]
    [InlineData("localBytes", "-1")]
    [InlineData("localBytes", "67108865")]
    [InlineData("localBytes", "1e30")]
    [InlineData("hasLostNode", "1")]
    [InlineData("regionsMade", "-1")]
    [InlineData("regionsMade", "99999999999")]
    [InlineData("agentRestarts", "-1")]
    [InlineData("sharedRegions", "[1]")]
    [InlineData("sharedRegions", "[-1]")]
    [InlineData("sharedRegions", "null")]
    public void A_record_with_nonsense_in_it_is_left_out(string member, string value)
    {
        Sound.Write(_folder);
        string path = Path.Combine(_folder, Token);
        JsonNode json = JsonNode.Parse(File.ReadAllText(path))!;
        json[member] = JsonNode.Parse(value);
        File.WriteAllText(path, json.ToJsonString());
        Assert.Empty(RunRecord.ReadAll(_folder, _ => { }));
        json.AsObject().Remove(member);
        File.WriteAllText(path, json.ToJsonString());
        Assert.Empty(RunRecord.ReadAll(_folder, _ => { }));
    }

    [Fact]
    public void What_is_no_file_or_has_no_end_is_left_out_without_waiting_for_it()
    {
        Sound.Write(_folder);
        string path = Path.Combine(_folder, Token);
        File.SetUnixFileMode(path, (UnixFileMode)0x1FF); // others could have written it
        Assert.Empty(RunRecord.ReadAll(_folder, _ => { }));
        File.Delete(path);
        Directory.CreateDirectory(path);
        Assert.Empty(RunRecord.ReadAll(_folder, _ => { }));
        Directory.Delete(path);
        using (var make = Process.Start("mkfifo", ["-m", "600", path])) make.WaitForExit();
        Assert.Empty(RunRecord.ReadAll(_folder, _ => { }));
        File.Delete(path);
        File.CreateSymbolicLink(path, "/dev/zero");
        Assert.Empty(RunRecord.ReadAll(_folder, _ => { }));
    }

    [Fact]
    public void What_would_be_too_long_to_be_read_again_is_not_written()
    {
        Assert.Throws<IOException>(() => (Sound with { Request = new RunRequest(null, new string('x', 70_000), null, 1, 0) }).Write(_folder));
        Assert.Empty(RunRecord.ReadAll(_folder, _ => { }));
    }
}
