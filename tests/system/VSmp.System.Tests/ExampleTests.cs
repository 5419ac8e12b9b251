// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>The examples, as their README has them run. Each checks its own result.</summary>
public sealed class ExampleTests
{
    private static string Example(string name) => Path.Combine(Paths.Build, "examples", name);

    [Fact]
    public void Examples_in_C_and_in_dotnet_find_the_same_as_one_process() => Cluster.Run(4, "128M", cluster =>
    {
        string text = cluster.Scratch("text");
        File.WriteAllLines(text, Enumerable.Range(0, 20_000).Select(i => $"the {Word(i % 700)} of {Word(i % 911)} and {Word(i % 1013)}"));
        Outcome heat = cluster.Vsmp("spmd", "-n", "4", "--", Example("heat")).Succeeded();
        Assert.Contains("4 ranks", heat.Output, StringComparison.Ordinal);
        Outcome histogram = cluster.Vsmp("spmd", "-n", "8", "--", Example("histogram")).Succeeded();
        Assert.Contains("each counted once", histogram.Output, StringComparison.Ordinal);
        Outcome words = cluster.Vsmp("spmd", "-n", "4", "--", Example("wordcount/wordcount"), text).Succeeded();
        Assert.Contains("wordcount: 120000 words", words.Output, StringComparison.Ordinal);
    });

    [Fact]
    public void An_exception_of_the_dotnet_client_carries_the_words_of_the_library() => Cluster.Run(2, "64M", cluster =>
    {
        // Rank 0 fails to read its file and ends; the other one hears of it in the broadcast it waits in.
        Outcome outcome = cluster.Vsmp("spmd", "-n", "2", "--", Example("wordcount/wordcount"), "/no/such/file");
        Assert.NotEqual(0, outcome.ExitCode);
        Assert.Contains("/no/such/file", outcome.Error, StringComparison.Ordinal);
        Assert.Contains("vsmp_broadcast: rank 0", outcome.Error, StringComparison.Ordinal);
    });

    // Letters only.
    private static string Word(int i) => string.Concat(i.ToString("x4").Select(digit => (char)('a' + Convert.ToInt32(digit.ToString(), 16))));
}
