// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;

namespace VSmp.SystemTests;

/// <summary>What <c>--stats</c> wrote.</summary>
internal sealed class Statistics(JsonElement root)
{
    private readonly JsonElement _root = root;

    /// <summary>Those of a run.</summary>
    public Statistics(string file)
        : this(JsonDocument.Parse(File.ReadAllText(file)).RootElement)
    {
    }

    /// <summary>Those of a job, by node.</summary>
    public static Dictionary<string, Statistics> OfJob(string file) => JsonDocument.Parse(File.ReadAllText(file)).RootElement
        .GetProperty("nodes").EnumerateObject().ToDictionary(node => node.Name, node => new Statistics(node.Value));

    /// <summary>A field; fails the test if it is missing.</summary>
    public double this[string name] => _root.GetProperty(name).GetDouble();

    /// <summary>All faults.</summary>
    public double Faults => this["faultsRead"] + this["faultsWrite"];

    /// <summary>Most bytes at home, by node.</summary>
    public Dictionary<string, double> PeakHomeBytes =>
        _root.GetProperty("peakHomeBytes").EnumerateObject().ToDictionary(node => node.Name, node => node.Value.GetDouble());

    /// <summary>The median time of a fault.</summary>
    public double FaultMicrosecondsP50 => _root.GetProperty("faultMicroseconds").GetProperty("p50").GetDouble();

    /// <inheritdoc/>
    public override string ToString() => _root.ToString();
}
