// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Placement;

/// <summary>
/// Where the homes of a region's extents are: a function of the extent, and exceptions to it. A program's region has only
/// exceptions: each extent is placed when it is reserved.
/// </summary>
/// <param name="extentCount">Extents of the region.</param>
/// <param name="function">The function: home = <c>function[extent mod length]</c>; empty for none.</param>
public sealed class HomeMap(int extentCount, params NodeId[] function)
{
    private ushort[]? _mirrors;
    private readonly ushort[] _exceptions = Enumerable.Repeat(NodeId.None.Value, extentCount).ToArray();

    /// <summary>Extents of the region.</summary>
    public int ExtentCount => _exceptions.Length;

    /// <summary>Counts what was placed.</summary>
    public int Changes { get; private set; }

    /// <summary>The home of an extent, or <see cref="NodeId.None"/> if it has none (nothing is reserved there).</summary>
    public NodeId HomeOf(ExtentNumber extent)
    {
        if (extent.Value >= (uint)_exceptions.Length) return NodeId.None;
        ushort exception = _exceptions[extent.Value];
        if (exception != NodeId.None.Value || function.Length == 0) return new NodeId(exception);
        return function[extent.Value % (uint)function.Length];
    }

    /// <summary>The home of an extent if it is not the one that the function says; else <see cref="NodeId.None"/>.</summary>
    public NodeId ExceptionOf(ExtentNumber extent) => new(_exceptions[extent.Value]);

    /// <summary>The mirror of an extent, or <see cref="NodeId.None"/> if it has none.</summary>
    public NodeId MirrorOf(ExtentNumber extent) =>
        _mirrors is null || extent.Value >= (uint)_mirrors.Length ? NodeId.None : new NodeId(_mirrors[extent.Value]);

    /// <summary>Makes a node the extent's mirror, or with <see cref="NodeId.None"/> takes it away.</summary>
    public void PlaceMirror(ExtentNumber extent, NodeId mirror)
    {
        if (_mirrors is null)
        {
            if (mirror.IsNone) return;
            _mirrors = new ushort[ExtentCount];
            Array.Fill(_mirrors, NodeId.None.Value);
        }
        _mirrors[extent.Value] = mirror.Value;
        Changes++;
    }

    /// <summary>Makes a node the extent's home, or with <see cref="NodeId.None"/> takes the exception back.</summary>
    public void Place(ExtentNumber extent, NodeId home)
    {
        _exceptions[extent.Value] = home.Value;
        Changes++;
    }
}
