// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Checkpointing;

/// <summary>
/// Where the files of a checkpoint are: folders of files in one folder. What a crash leaves of what was not synced is anything: none of it, some of it, zeros in its place.
/// Every operation may fail with an <see cref="IOException"/>, most of all for want of room; one that has failed may have been done in part.
/// </summary>
internal interface IStorage
{
    /// <summary>The folders that there are.</summary>
    IReadOnlyList<string> Folders();

    /// <summary>The files in a folder.</summary>
    IReadOnlyList<string> Files(string folder);

    /// <summary>Makes a folder if it is not there; a crash may undo it until <see cref="SyncRoot"/>.</summary>
    void MakeFolder(string folder);

    /// <summary>Makes a file, empty; a crash may undo it until it and its folder were synced.</summary>
    /// <param name="folder">Where.</param>
    /// <param name="name">Its name; a file of that name is replaced.</param>
    /// <param name="reservedBytes">Room that it will need at most, which is taken at once.</param>
    /// <exception cref="IOException">There is not that much room, or another reason.</exception>
    IStorageFile Create(string folder, string name, long reservedBytes);

    /// <summary>Opens a file to read it.</summary>
    IStorageReader Open(string folder, string name);

    /// <summary>Gives a file another name, in place of one that may have that name: after a crash there is the one or the other.</summary>
    void Rename(string folder, string name, string newName);

    /// <summary>Deletes a file.</summary>
    void Delete(string folder, string name);

    /// <summary>Deletes a folder with all that is in it.</summary>
    void DeleteFolder(string folder);

    /// <summary>What was made, renamed and deleted in a folder so far outlives a crash.</summary>
    void SyncFolder(string folder);

    /// <summary>Which folders there are outlives a crash.</summary>
    void SyncRoot();
}

/// <summary>A file that is being written, from its beginning.</summary>
internal interface IStorageFile : IDisposable
{
    /// <summary>Writes what comes next.</summary>
    void Write(ReadOnlySpan<byte> bytes);

    /// <summary>
    /// What was written outlives a crash. Not to be tried again: the kernel may have dropped what it could not write, and says so once.
    /// </summary>
    void Sync();
}

/// <summary>A file that is being read.</summary>
internal interface IStorageReader : IDisposable
{
    /// <summary>Its length.</summary>
    long Length { get; }

    /// <summary>Reads bytes from an offset on, all of them.</summary>
    /// <exception cref="EndOfStreamException">It has not that many.</exception>
    void Read(long offset, Span<byte> bytes);
}
