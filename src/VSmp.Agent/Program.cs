// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent;
using VSmp.Agent.Cli;

return CommandLine.Run(args, AgentHost.RunAsync);
