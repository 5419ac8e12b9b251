// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Checkpointing.Files;

/// <summary>A storage of which a node's files may be gone: where others have what they can be computed from (<see cref="Parity"/>), they are read as if they were there.</summary>
/// <param name="storage">The storage.</param>
internal sealed class RepairingStorage(IStorage storage) : IStorage
{
    /// <inheritdoc/>
    public IReadOnlyList<string> Folders() => storage.Folders();

    /// <inheritdoc/>
    public IReadOnlyList<string> Files(string folder) => storage.Files(folder);

    /// <inheritdoc/>
    public void MakeFolder(string folder) => storage.MakeFolder(folder);

    /// <inheritdoc/>
    public IStorageFile Create(string folder, string name, long reservedBytes) => storage.Create(folder, name, reservedBytes);

    /// <inheritdoc/>
    public IStorageReader Open(string folder, string name)
    {
        try { return storage.Open(folder, name); }
        catch (IOException e)
        {
            if (name.EndsWith(Parity.Suffix, StringComparison.Ordinal) || name == Manifest.FileName) throw;
            return Parity.TryOpen(storage, folder, name) ?? throw new IOException(e.Message, e);
        }
    }

    /// <inheritdoc/>
    public void Rename(string folder, string name, string newName) => storage.Rename(folder, name, newName);

    /// <inheritdoc/>
    public void Delete(string folder, string name) => storage.Delete(folder, name);

    /// <inheritdoc/>
    public void DeleteFolder(string folder) => storage.DeleteFolder(folder);

    /// <inheritdoc/>
    public void SyncFolder(string folder) => storage.SyncFolder(folder);

    /// <inheritdoc/>
    public void SyncRoot() => storage.SyncRoot();
}
