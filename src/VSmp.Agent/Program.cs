// SPDX-License-Identifier: Apache-2.0
return VSmp.Agent.Cli.CommandLine.Run(args);
