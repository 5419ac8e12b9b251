// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Checking;
using VSmp.Bench.Litmus;

RootCommand root = new("Check, simulate and measure the coherence protocols of VSmp.");
root.Subcommands.Add(CheckCommand.New());
root.Subcommands.Add(LitmusCommand.New());
return root.Parse(args).Invoke();
