// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using Spectre.Console;
using VSmp.Bench.Agents;
using VSmp.Bench.Apps;
using VSmp.Bench.Bandwidth;
using VSmp.Bench.Checking;
using VSmp.Bench.Checkpoints;
using VSmp.Bench.Fault;
using VSmp.Bench.Hammer;
using VSmp.Bench.History;
using VSmp.Bench.Litmus;
using VSmp.Bench.Micro;
using VSmp.Bench.Ratio;
using VSmp.Bench.Recovery;
using VSmp.Bench.Simulation;
using VSmp.Bench.Velvet;

if (PlantedCluster.IsFor(args)) return PlantedCluster.Run(args);

if (Console.IsOutputRedirected)
{
    // Into a file or a pipe: plain text, and lines as long as they are.
    AnsiConsole.Profile.Capabilities.Ansi = false;
    AnsiConsole.Profile.Capabilities.ColorSystem = ColorSystem.NoColors;
    AnsiConsole.Profile.Width = 200;
}

RootCommand root = new("Check, simulate and measure the coherence protocols of VSmp.");
root.Subcommands.Add(CheckCommand.New());
root.Subcommands.Add(MutantsCommand.New());
root.Subcommands.Add(SimulateCommand.New());
root.Subcommands.Add(MicroCommand.New());
root.Subcommands.Add(LitmusCommand.New());
root.Subcommands.Add(HistoryCommand.New());
root.Subcommands.Add(HammerCommand.New());
root.Subcommands.Add(FaultCommand.New());
root.Subcommands.Add(RatioCommand.New());
root.Subcommands.Add(BandwidthCommand.New());
root.Subcommands.Add(VelvetCommand.New());
root.Subcommands.Add(AppsCommand.New());
root.Subcommands.Add(RecoveryCommand.New());
root.Subcommands.Add(CheckpointsCommand.New());
root.Subcommands.Add(AgentCommand.New());
return root.Parse(args).Invoke();
