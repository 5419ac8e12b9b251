// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;

namespace VSmp.SystemTests;

/// <summary>What page faults cost in frames, messages and copies; and that the command that measures it tells when they cost more.</summary>
public sealed class FaultTests
{
    [Fact]
    public void Faults_take_the_frames_that_the_protocol_says_and_one_copy_of_a_page_on_each_side()
    {
        string file = Path.GetTempFileName();
        Outcome outcome = Bench.Run(120, "fault", "--agents", "3", "--pages", "50", "--json", file).Succeeded();
        using JsonDocument report = JsonDocument.Parse(File.ReadAllText(file));
        File.Delete(file);
        Dictionary<string, JsonElement> results = report.RootElement.GetProperty("results").EnumerateArray()
            .ToDictionary(result => result.GetProperty("transition").GetProperty("name").GetString()!);
        double Of(string transition, string figure) => results[transition].GetProperty(figure).GetDouble();
        Assert.Equal("tcp", report.RootElement.GetProperty("transport").GetString());
        Assert.All(results, result => Assert.True(result.Value.GetProperty("isAsExpected").GetBoolean(), $"{result.Key}\n{outcome.Output}"));
        Assert.All(results.Keys, name =>
        {
            Assert.InRange(Of(name, "messages"), 1, Of(name, "frames")); // a message has one frame at least
            Assert.InRange(Of(name, "medianMicroseconds"), 0.1, Of(name, "p99Microseconds"));
            Assert.Contains($"| {name} ", outcome.Output, StringComparison.Ordinal);
        });
        // A request and a response, with the page copied once on each side.
        Assert.Equal((2, 4352, 1, 1), (Of("I→S clean", "frames"), Of("I→S clean", "bytes"), Of("I→S clean", "copiesOut"), Of("I→S clean", "copiesIn")));
        // The same without a page.
        Assert.Equal((2, 256, 0, 0),
            (Of("S→M no other sharer", "frames"), Of("S→M no other sharer", "bytes"), Of("S→M no other sharer", "copiesOut"), Of("S→M no other sharer", "copiesIn")));
    }

    [Fact]
    public void Messages_are_counted_for_one_to_eight_sharers()
    {
        string file = Path.GetTempFileName();
        Outcome outcome = Bench.Run(180, "fault", "--pages", "20", "--json", file).Succeeded();
        using JsonDocument report = JsonDocument.Parse(File.ReadAllText(file));
        File.Delete(file);
        JsonElement[] results = [.. report.RootElement.GetProperty("results").EnumerateArray()];
        for (int sharers = 1; sharers <= 8; sharers++)
        {
            JsonElement result = results.Single(r => r.GetProperty("transition").GetProperty("plan").GetString() == $"1:{string.Concat(Enumerable.Range(2, sharers).Select(rank => $"r{rank}"))}r0w0");
            // Upgrade, its grant and InstallAck, and of each sharer Inv and InvAck.
            Assert.Equal(3 + (2 * sharers), result.GetProperty("frames").GetDouble());
            Assert.True(result.GetProperty("isAsExpected").GetBoolean(), outcome.Output);
            // Times are of five agents.
            Assert.Equal(sharers + 2 <= 5, result.GetProperty("medianMicroseconds").ValueKind == JsonValueKind.Number);
        }
    }

    [Fact]
    public void What_a_run_that_is_killed_leaves_the_next_one_removes()
    {
        Prerequisites.Check();
        string[] run = ["fault", "--agents", "2", "--pages", "100000"]; // for long
        using Command command = new(Path.Combine(Paths.Build, "vsmp-bench"), run);
        string cluster = $"bench-{command.ProcessId}";
        Wait.Until(() => Leftovers.Of(cluster).Any(found => found.Contains("vsmp-fault", StringComparison.Ordinal)), 30, () => "its ranks do not start");
        command.Signal(Native.SIGKILL);
        command.WaitForEnd();
        string scratch = Directory.GetDirectories(Path.GetTempPath(), "vsmp-bench-*")
            .Single(folder => Path.Combine(folder, "cluster") is var owner && File.Exists(owner) && File.ReadAllText(owner) == cluster);
        Outcome outcome = Bench.Run(120, "fault", "--agents", "2", "--pages", "20").Succeeded();
        Assert.Contains(scratch, outcome.Error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(scratch));
        Wait.Until(() => Leftovers.Of(cluster).Count == 0, 30, () => string.Join('\n', Leftovers.Of(cluster)));
    }

    [Fact]
    public void A_cluster_that_is_up_is_measured_as_it_is_unless_homes_would_not_go_round_its_nodes() => Cluster.Run(2, "96M", cluster =>
    {
        Outcome Fault(params string[] more) =>
            Command.Run(Path.Combine(Paths.Build, "vsmp-bench"), ["fault", "--cluster", cluster.Name, "--pages", "20", .. more]);
        cluster.Vsmp("spmd", "-n", "2", "--", Paths.Program("spmd-hello"), "10").Succeeded(); // what it had is given back first
        Assert.Contains("| I→S dirty at home ", Fault().Succeeded().Output, StringComparison.Ordinal);
        Fails(Fault("--transport", "tcp"), 1, "--transport is for a cluster that is started");
        using GuestCommand held = cluster.Start([Paths.Program("hold"), "20"], node: "n0");
        held.Command.WaitFor("ready");
        Fails(Fault(), 3, "nodes need as much free memory each");
        held.Command.EndInput();
        held.Command.WaitForEnd(30).Succeeded();
    });

    [Fact]
    public void Figures_are_measured_beside_bare_C_in_every_round()
    {
        string file = Path.GetTempFileName();
        Outcome outcome = Bench.Run(120, "ratio", "--rounds", "2", "--pages", "64", "--json", file).Succeeded();
        using JsonDocument report = JsonDocument.Parse(File.ReadAllText(file));
        File.Delete(file);
        JsonElement[] results = [.. report.RootElement.GetProperty("results").EnumerateArray()];
        Assert.Equal(7, results.Length);
        Assert.All(results, result =>
        {
            double Of(string figure, string quantity) => result.GetProperty(figure).GetProperty(quantity).GetDouble();
            Assert.True(Of("floorMicroseconds", "least") > 0.05 && Of("ourMicroseconds", "least") > 0.05, outcome.Output);
            Assert.True(Of("ratio", "least") <= Of("ratio", "median") && Of("ratio", "median") <= Of("ratio", "greatest"), outcome.Output);
            Assert.Equal(2, result.GetProperty("ratio").GetProperty("values").GetArrayLength());
        });
    }

    [Fact]
    public void Pages_that_are_read_overwritten_and_exchanged_hold_what_was_written_and_are_measured_beside_bare_C()
    {
        (string json, string svg) = (Path.GetTempFileName(), Path.GetTempFileName());
        // More than an extent of each pattern.
        Outcome outcome = Bench.Run(120, "bandwidth", "--rounds", "1", "--pages", "528", "--json", json, "--svg", svg).Succeeded();
        using JsonDocument report = JsonDocument.Parse(File.ReadAllText(json));
        Assert.Contains("sequential read", File.ReadAllText(svg), StringComparison.Ordinal);
        File.Delete(json);
        File.Delete(svg);
        JsonElement[] results = [.. report.RootElement.GetProperty("results").EnumerateArray()];
        Assert.Equal(7, results.Length);
        Assert.All(results, result =>
        {
            Assert.Contains($"| {result.GetProperty("pattern").GetProperty("name").GetString()} ", outcome.Output, StringComparison.Ordinal);
            foreach (string figure in new[] { "floorMegabytes", "ourMegabytes" }) Assert.True(result.GetProperty(figure).GetDouble() > 0, outcome.Output);
            Assert.Equal(1, result.GetProperty("ratio").GetProperty("values").GetArrayLength());
        });
    }

    [Fact]
    public void Agents_that_are_killed_under_a_mirrored_guest_are_measured()
    {
        (string json, string csv) = (Path.GetTempFileName(), Path.GetTempFileName());
        Outcome outcome = Bench.Run(240, "recovery", "--kills", "3", "--mebibytes", "32", "--json", json, "--csv", csv).Succeeded();
        using JsonDocument report = JsonDocument.Parse(File.ReadAllText(json));
        string[] lines = File.ReadAllLines(csv);
        File.Delete(json);
        File.Delete(csv);
        Assert.Equal(4, lines.Length);
        JsonElement[] kills = [.. report.RootElement.GetProperty("kills").EnumerateArray()];
        Assert.Equal(3, kills.Length);
        Assert.All(kills, kill => Assert.True(kill.GetProperty("detectionMilliseconds").GetDouble() > 0 && kill.GetProperty("recoveryMilliseconds").GetDouble() > 0, outcome.Output));
        Assert.Contains("| stall of the guest ", outcome.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void Agents_that_are_killed_alone_and_started_again_are_measured()
    {
        string json = Path.GetTempFileName();
        Outcome outcome = Bench.Run(240, "recovery", "--what", "agent", "--kills", "3", "--mebibytes", "32", "--json", json).Succeeded();
        using JsonDocument report = JsonDocument.Parse(File.ReadAllText(json));
        File.Delete(json);
        JsonElement[] kills = [.. report.RootElement.GetProperty("kills").EnumerateArray()];
        Assert.Equal(3, kills.Length);
        Assert.All(kills, kill => Assert.True(kill.GetProperty("returnMilliseconds").GetDouble() > 0 && kill.GetProperty("stallMilliseconds").GetDouble() > 0, outcome.Output));
        Assert.Contains("| agent serves again ", outcome.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void The_time_of_a_fault_is_followed_through_both_agents()
    {
        string file = Path.GetTempFileName();
        Outcome outcome = Bench.Run(120, "fault", "--breakdown", "--pages", "50", "--json", file).Succeeded();
        using JsonDocument report = JsonDocument.Parse(File.ReadAllText(file));
        File.Delete(file);
        JsonElement read = report.RootElement.GetProperty("faults").EnumerateArray().Single(fault => fault.GetProperty("transition").GetString() == "I→S dirty at home");
        double[] phases = [.. read.GetProperty("phaseMicroseconds").EnumerateArray().Select(phase => phase.GetDouble())];
        Assert.True(read.GetProperty("faults").GetInt32() > 10, outcome.Output); // most of them; a busy host may lose some
        Assert.Equal(report.RootElement.GetProperty("phases").GetArrayLength(), phases.Length);
        Assert.All(phases, phase => Assert.True(phase >= 0, outcome.Output));
    }

    private static void Fails(Outcome outcome, int exitCode, string words)
    {
        Assert.True(outcome.ExitCode == exitCode, $"{outcome.ExitCode}\n{outcome.Output}\n{outcome.Error}");
        Assert.Contains(words, outcome.Error, StringComparison.Ordinal);
    }
}
