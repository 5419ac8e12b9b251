// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Checking;
using VSmp.Bench.Hammer;
using VSmp.Bench.History;
using VSmp.Bench.Litmus;

RootCommand root = new("Check, simulate and measure the coherence protocols of VSmp.");
root.Subcommands.Add(CheckCommand.New());
root.Subcommands.Add(LitmusCommand.New());
root.Subcommands.Add(HistoryCommand.New());
root.Subcommands.Add(HammerCommand.New());
return root.Parse(args).Invoke();
