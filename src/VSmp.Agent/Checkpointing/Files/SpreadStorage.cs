// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Checkpointing.Files;

/// <summary>
/// A checkpoint in the memory of several nodes, as if it were one folder: a file is there if any of them has it, and what is made here is made on all. A node that is lost meanwhile, or has just come,
/// has nothing; the others go on.
/// </summary>
/// <param name="nodes">The nodes that there are now.</param>
/// <param name="copies">Those that files are written to, each of them: what one lacks is not written, since there would be a copy less than whoever reads it counts on. Null: those that there are.</param>
internal sealed class SpreadStorage(Func<IReadOnlyList<NodeStorage>> nodes, IReadOnlyList<NodeStorage>? copies = null) : IStorage
{
    /// <inheritdoc/>
    public IReadOnlyList<string> Folders() => Union(node => node.Folders());

    /// <inheritdoc/>
    public IReadOnlyList<string> Files(string folder) => Union(node => node.Files(folder));

    /// <inheritdoc/>
    public void MakeFolder(string folder) => OnAll(node => node.MakeFolder(folder));

    /// <inheritdoc/>
    public IStorageFile Create(string folder, string name, long reservedBytes)
    {
        var files = new List<IStorageFile>();
        try { OnCopies(node => files.Add(node.Create(folder, name, reservedBytes))); }
        catch
        {
            foreach (IStorageFile file in files) file.Dispose();
            throw;
        }
        return new Written(files);
    }

    /// <inheritdoc/>
    public IStorageReader Open(string folder, string name) => new Read([.. nodes()], folder, name);

    /// <inheritdoc/>
    public void Rename(string folder, string name, string newName) => OnCopies(node => node.Rename(folder, name, newName));

    /// <inheritdoc/>
    public void Delete(string folder, string name) => OnAll(node =>
    {
        if (node.Files(folder).Contains(name)) node.Delete(folder, name);
    });

    /// <inheritdoc/>
    public void DeleteFolder(string folder) => OnAll(node => node.DeleteFolder(folder));

    /// <summary>Nothing to do, as for each node.</summary>
    public void SyncFolder(string folder) { }

    /// <inheritdoc cref="SyncFolder"/>
    public void SyncRoot() { }

    private string[] Union(Func<NodeStorage, IReadOnlyList<string>> list)
    {
        var names = new SortedSet<string>(StringComparer.Ordinal);
        OnAll(node => names.UnionWith(list(node)));
        return [.. names];
    }

    private void OnCopies(Action<NodeStorage> action)
    {
        if (copies is null) OnAll(action);
        else foreach (NodeStorage node in copies) action(node);
    }

    private void OnAll(Action<NodeStorage> action)
    {
        NodeGoneException? gone = null;
        bool isDone = false;
        foreach (NodeStorage node in nodes())
        {
            try
            {
                action(node);
                isDone = true;
            }
            catch (NodeGoneException e) { gone = e; }
        }
        if (!isDone) throw gone ?? new IOException("there is no node that has anything of the checkpoint");
    }

    private sealed class Written(List<IStorageFile> files) : IStorageFile
    {
        public void Write(ReadOnlySpan<byte> bytes)
        {
            foreach (IStorageFile file in files) file.Write(bytes);
        }

        public void Sync()
        {
            foreach (IStorageFile file in files) file.Sync();
        }

        public void Dispose()
        {
            foreach (IStorageFile file in files) file.Dispose();
        }
    }

    /// <summary>Reads from one of those that have the file; if that is lost, from another.</summary>
    private sealed class Read : IStorageReader
    {
        private readonly Queue<NodeStorage> _others;
        private readonly string _folder, _name;
        private IStorageReader _file;

        public Read(IReadOnlyList<NodeStorage> nodes, string folder, string name)
        {
            // First of those that are likely to have it: this one, which is the first, and the one that has written it.
            _others = new(nodes.Take(1).Concat(nodes.Where(node => name.StartsWith(node.Node + '.', StringComparison.Ordinal))).Concat(nodes.Skip(1)).Distinct());
            (_folder, _name) = (folder, name);
            _file = Next(null);
            Length = _file.Length;
        }

        public long Length { get; }

        void IStorageReader.Read(long offset, Span<byte> bytes)
        {
            while (true)
            {
                try
                {
                    _file.Read(offset, bytes);
                    return;
                }
                catch (NodeGoneException e)
                {
                    _file.Dispose();
                    _file = Next(e);
                }
            }
        }

        public void Dispose() => _file.Dispose();

        private IStorageReader Next(IOException? why)
        {
            while (_others.TryDequeue(out NodeStorage? node))
            {
                try { return node.Open(_folder, _name); }
                catch (IOException e) { why ??= e; }
            }
            throw why ?? new IOException($"no node has {_folder}/{_name}");
        }
    }
}
