// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Messages;

namespace VSmp.Bench.Checking;

/// <summary>What is in a page, as far as it matters: whether it is what was written last.</summary>
internal enum Contents : byte
{
    /// <summary>Zeros: right as long as nobody has written since the page was new, or thrown away.</summary>
    Zero,
    /// <summary>Something that was overwritten since, elsewhere.</summary>
    Old,
    /// <summary>What was written last.</summary>
    Latest,
    /// <summary>No frame.</summary>
    None,
    /// <summary>What was written last before a grant under which it was overwritten, and which the home does not yet know to be installed.</summary>
    Prior,
    /// <summary>What was written last when a checkpoint was cut, and was overwritten since.</summary>
    Cut,
}

/// <summary>What a process may do with a page without being noticed.</summary>
internal enum Right : byte
{
    None,
    Read,
    Write,
}

/// <summary>A thread that waits for a page.</summary>
internal readonly record struct Access(byte Page, byte Mapping, bool Write);

/// <summary>A message under way, with the contents of the pages that it is about.</summary>
internal readonly record struct Flight(Message Message, Contents First, Contents Second)
{
    /// <summary>Of a run: the message about its first page.</summary>
    public Flight FirstPage => new(Message with { Count = 1 }, First, Contents.None);

    /// <summary>Of a run: the message about the others.</summary>
    public Flight Rest => new(Message with { Count = Message.Count - 1, Page = Message.Page.Plus(1) }, Second, Contents.None);
}
