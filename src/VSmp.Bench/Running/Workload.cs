// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Agent.Control;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Running;

/// <summary>Exit codes of workloads.</summary>
public static class ExitCode
{
    /// <summary>Everything was right.</summary>
    public const int Ok = 0;

    /// <summary>Something was wrong: that is a bug.</summary>
    public const int Wrong = 1;

    /// <summary>It could not be run.</summary>
    public const int Unable = 3;
}

/// <summary>A program has computed, or read, something else than it should have.</summary>
internal sealed class WrongResultException(string message) : Exception(message);

/// <summary>What workloads have in common.</summary>
public static class Workload
{
    /// <summary>The option that names a protocol.</summary>
    /// <param name="protocols">Those that the workload can use.</param>
    public static Option<string> NewProtocolOption(IEnumerable<string> protocols)
    {
        Option<string> option = new("--protocol")
        {
            Description = "What keeps the memory coherent",
            HelpName = "P",
            DefaultValueFactory = _ => ProtocolCatalog.Names[0],
        };
        option.AcceptOnlyFromAmong([.. protocols]);
        return option;
    }

    /// <summary>The option that makes random choices repeatable.</summary>
    public static Option<ulong> NewSeedOption() => new("--seed")
    {
        Description = "What random choices follow from (default: another one each time)",
        HelpName = "N",
        DefaultValueFactory = _ => (ulong)Random.Shared.NextInt64(),
    };

    /// <summary>The option that names a cluster which is up already.</summary>
    public static Option<string?> NewClusterOption() => new("--cluster")
    {
        Description = "Use this cluster, which is up, instead of starting one on this host",
        HelpName = "NAME",
    };

    /// <summary>The option that says what carries frames.</summary>
    /// <param name="remark">What else there is to say of it.</param>
    public static Option<string> NewTransportOption(string remark = "") => new("--transport")
    {
        Description = "What carries frames between the agents, as vsmp up takes it" + remark,
        HelpName = "tcp|verbs[:DEVICE[:GID]]",
        DefaultValueFactory = _ => "tcp",
    };

    /// <summary>An option that takes a count of at least 1.</summary>
    public static Option<int> NewCountOption(string name, string description, int defaultCount, int most, int least = 1)
    {
        Option<int> option = new(name) { Description = description, HelpName = "N", DefaultValueFactory = _ => defaultCount };
        option.Validators.Add(result =>
        {
            // What is no number is the parser's to refuse.
            if (result.Errors.Any() || result.Tokens.Count == 0 || !int.TryParse(result.Tokens[0].Value, out int count)) return;
            if (count < least || count > most) result.AddError($"{name}: from {least} to {most}");
        });
        return option;
    }

    /// <summary>Runs a workload; says in one line why it could not be run, or what was wrong.</summary>
    /// <returns>The exit code.</returns>
    public static int Guard(Func<int> workload)
    {
        ArgumentNullException.ThrowIfNull(workload);
        try
        {
            return workload();
        }
        catch (WrongResultException e)
        {
            Console.Error.WriteLine($"WRONG: {e.Message}");
            return ExitCode.Wrong;
        }
        catch (Exception e) when (e is BenchException or CommandException)
        {
            Console.Error.WriteLine($"vsmp-bench: {e.Message}");
            return ExitCode.Unable;
        }
    }
}
