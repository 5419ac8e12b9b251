// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>Each mistake is answered by one line that says what is wrong, and by its documented exit code.</summary>
public sealed class BadInputTests
{
    private const int Usage = 2, NoAgent = 3, AlreadyUp = 4, Refused = 5, NoMemory = 6, Taken = 7, NotPermitted = 8;

    [Theory]
    [InlineData("run", "--", "true")]
    [InlineData("status")]
    [InlineData("guest", "ls")]
    [InlineData("region", "ls")]
    public void Without_an_agent(params string[] arguments) => Alone(arguments).FailedWith(NoAgent, "vsmp up");

    [Fact]
    public void Down_without_an_agent_has_nothing_to_do_and_says_so() =>
        Assert.Contains("nothing to stop", Alone("down").Succeeded().Output, StringComparison.Ordinal);

    [Theory]
    [InlineData("0")]
    [InlineData("-1")]
    [InlineData("-4G")]
    [InlineData("lots")]
    [InlineData("")]
    [InlineData("99999999999999999999999")]
    [InlineData("16777216T")]
    [InlineData("1.5.2G")]
    public void A_size_that_is_none(string size) => Alone("up", "--agents", "1", $"--memory={size}").FailedWith(Usage, "--memory");

    [Theory]
    [InlineData("0")]
    [InlineData("-3")]
    [InlineData("many")]
    [InlineData("1000000")]
    public void A_number_of_agents_that_cannot_be(string agents) =>
        Alone("up", $"--agents={agents}", "--memory", "64M").FailedWith(Usage, "--agents");

    [Fact]
    public void More_memory_than_the_host_has() => Alone("up", "--agents", "1", "--memory", "100T").FailedWith(NoMemory, "memory");

    [Theory]
    [InlineData("no-port")]
    [InlineData("127.0.0.1:99999")]
    [InlineData("300.1.1.1:7070")]
    public void An_address_that_is_none(string address) =>
        Alone("agent", "--name", "a", "--memory", "64M", "--listen", address).FailedWith(Usage, address);

    [Theory]
    [InlineData("../../etc")]
    [InlineData("a b")]
    [InlineData("")]
    public void A_name_that_cannot_be_one(string name) =>
        Alone("agent", "--name", name, "--memory", "64M", "--listen", "127.0.0.1:0").FailedWith(Usage, "name");

    [Fact]
    public void An_unknown_command_and_an_unknown_option()
    {
        Assert.Equal(Usage, Alone("frobnicate").ExitCode);
        Assert.Equal(Usage, Alone("up", "--frobnicate").ExitCode);
    }

    [Fact]
    public void A_host_that_does_not_permit_userfaultfd() => Alone("unshare",
        ["--mount", "--propagation", "private", "sh", "-c",
            "mount --bind /dev/userfaultfd /dev/userfaultfd && mount -o remount,bind,nodev /dev/userfaultfd && "
            // ... and the system call, which asks for CAP_SYS_PTRACE.
            + "exec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace \"$@\"", "sh",
            Paths.Vsmp, "up", "--agents", "1", "--memory", "64M"]).FailedWith(NotPermitted, "userfaultfd");

    [Fact]
    public void A_user_who_may_not_mount()
    {
        Alone("setpriv",
            ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs", "env", "-u", "XDG_RUNTIME_DIR",
                Paths.Vsmp, "up", "--agents", "1", "--memory", "64M"]).FailedWith(NotPermitted, "mount");
        Assert.False(Directory.Exists("/tmp/vsmp-65534"), "the folder of that user's clusters is left");
    }

    [Fact]
    public void What_a_cluster_that_is_up_refuses() => Cluster.Run(2, "64M", cluster =>
    {
        cluster.Vsmp("up", "--agents", "2", "--memory", "64M").FailedWith(AlreadyUp, cluster.Name);
        string port = cluster.Status()["n0"].GetProperty("address").GetString()!;
        string secret = $"{cluster.RunDirectory}/secret", otherSecret = cluster.Scratch("secret");
        File.WriteAllText(otherSecret, new string('a', 64));
        File.SetUnixFileMode(otherSecret, UnixFileMode.UserRead);
        Outcome Agent(string name, string listen, string secretFile) => cluster.Vsmp(
            "agent", "--memory", "64M", "--name", name, "--listen", listen, "--join", port, "--secret", secretFile);
        Agent("n0", "127.0.0.1:0", secret).FailedWith(Taken, "n0");
        Agent("n9", port, secret).FailedWith(Taken, port);
        Agent("n9", "192.0.2.1:7070", secret).FailedWith(Usage, "no such address"); // of those for documentation: no host has it
        Agent("n9", "127.0.0.1:0", otherSecret).FailedWith(Refused, "secret");
        File.SetUnixFileMode(otherSecret, UnixFileMode.UserRead | UnixFileMode.OtherRead);
        Agent("n9", "127.0.0.1:0", otherSecret).FailedWith(Refused, "chmod 600");

        cluster.Vsmp("run", "--node", "n7", "--", "true").FailedWith(NoAgent, "n7");
        foreach (string size in new[] { "0", "-1", "much" }) cluster.Vsmp("run", $"--local={size}", "--", "true").FailedWith(Usage, "--local");
        cluster.Vsmp("run", "--stats", "/nowhere/to/be/found.json", "--", "true").FailedWith(Usage, "/nowhere/to/be/found.json");
        cluster.Vsmp("run", "--", "no-such-program").FailedWith(127, "no-such-program");
        cluster.Vsmp("guest", "stop", "1").FailedWith(1, "1");

        string text = cluster.Scratch("text");
        File.WriteAllText(text, "not a program\n");
        cluster.Vsmp("run", "--", text).FailedWith(126, text);

        File.WriteAllText(cluster.Scratch("static.c"), "int main(void) { return 0; }\n");
        Command.Run("gcc", ["-static", "-o", cluster.Scratch("static"), cluster.Scratch("static.c")]).Succeeded();
        cluster.Vsmp("run", "--", cluster.Scratch("static")).FailedWith(126, "static");

        File.Copy("/bin/true", cluster.Scratch("setuid"));
        Command.Run("chown", ["nobody", cluster.Scratch("setuid")]).Succeeded();
        Command.Run("chmod", ["4755", cluster.Scratch("setuid")]).Succeeded();
        cluster.Vsmp("run", "--", cluster.Scratch("setuid")).FailedWith(126, "setuid");
    });

    private static Outcome Alone(params string[] arguments) => Alone(Paths.Vsmp, arguments);

    private static Outcome Alone(string program, string[] arguments)
    {
        Prerequisites.Check();
        string name = Cluster.NewName();
        Outcome outcome = Command.Run(program, arguments, new Dictionary<string, string> { ["VSMP_CLUSTER"] = name });
        IReadOnlyList<string> left = Leftovers.Of(name);
        Leftovers.Remove(name);
        Assert.True(left.Count == 0, $"{outcome.Command} failed, but left:\n{string.Join('\n', left)}");
        return outcome;
    }
}
