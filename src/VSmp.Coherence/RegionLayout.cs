// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Placement;

namespace VSmp.Coherence;

/// <summary>What one node knows of a region, whatever keeps it coherent: its size, where its homes are, which of them are here.</summary>
public abstract class RegionLayout
{
    /// <summary>Takes down what does not change.</summary>
    /// <param name="id">Its number.</param>
    /// <param name="name">Its name, for messages.</param>
    /// <param name="extentCount">Its length in extents.</param>
    /// <param name="homes">Where its homes are; null at a node that is only a home.</param>
    /// <param name="budget">Frames for pages whose home is elsewhere; null at a node that is only a home.</param>
    protected RegionLayout(RegionId id, string name, int extentCount, HomeMap? homes, FrameBudget? budget)
    {
        Id = id;
        Name = name;
        ExtentCount = extentCount;
        Homes = homes;
        Budget = budget;
    }

    /// <summary>Its number.</summary>
    public RegionId Id { get; }

    /// <summary>Its name.</summary>
    public string Name { get; }

    /// <summary>What users call the protocol that keeps it coherent.</summary>
    public abstract string ProtocolName { get; }

    /// <summary>Its length in extents.</summary>
    public int ExtentCount { get; }

    /// <summary>Its length in pages.</summary>
    public ulong PageCount => (ulong)ExtentCount << ExtentNumber.PagesShift;

    /// <summary>Where its homes are, if guests of this node use it.</summary>
    public HomeMap? Homes { get; }

    /// <summary>Frames for pages whose home is elsewhere, if guests of this node use it.</summary>
    public FrameBudget? Budget { get; }

    /// <summary>Extents whose home this node is.</summary>
    public int HomeExtentCount { get; private protected set; }

    /// <summary>
    /// Counts what changes of it: homes, mirrors, which extents are in use. Whoever keeps a copy sees by it whether that is out of date.
    /// </summary>
    public virtual int LayoutChanges => Homes?.Changes ?? 0;

    /// <summary>Whether this node's guests have the extent reserved.</summary>
    public abstract bool IsOpen(ExtentNumber extent);

    /// <summary>Whether this node is the extent's home.</summary>
    public abstract bool IsHome(ExtentNumber extent);

    /// <summary>Lets this node's guests use an extent: nothing of it is here yet.</summary>
    public abstract void Open(ExtentNumber extent);

    /// <summary>Ends the use of an extent. No page of it may be in use here.</summary>
    public abstract void Close(ExtentNumber extent);

    /// <summary>Makes this node the extent's home: all its pages are zeros.</summary>
    /// <returns>False if it is already.</returns>
    public abstract bool BecomeHome(ExtentNumber extent);

    /// <summary>Ends being the extent's home; whatever it held is gone.</summary>
    /// <returns>False if this node was not its home.</returns>
    public abstract bool ResignHome(ExtentNumber extent);
}
