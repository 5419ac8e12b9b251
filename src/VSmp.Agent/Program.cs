// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Cli;
using VSmp.Agent.Control;

return CommandLine.Run(args, (_, _) => throw new CommandException(ExitCodes.Failed, "this build has no agent"));
