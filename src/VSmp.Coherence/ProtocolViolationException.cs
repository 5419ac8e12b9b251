// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence;

/// <summary>A peer sent what no correct peer sends, or the protocol has a defect. Whoever catches it ends the session or the agent.</summary>
public sealed class ProtocolViolationException(string message) : Exception(message);
