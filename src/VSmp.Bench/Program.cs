// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Checking;

RootCommand root = new("Check, simulate and measure the coherence protocols of VSmp.");
root.Subcommands.Add(CheckCommand.New());
return root.Parse(args).Invoke();
