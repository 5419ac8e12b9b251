// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Text;
using VSmp.Agent.Control;

namespace VSmp.Agent.Checkpointing.Files;

/// <summary>A node that had files is lost, or its agent is.</summary>
internal sealed class NodeGoneException(string message, Exception inner) : IOException(message, inner);

/// <summary>A checkpoint in the memory of a node, which may be another one. Whoever uses it waits for answers: not the reactor.</summary>
/// <param name="node">The node's name.</param>
/// <param name="checkpoint">The checkpoint's name.</param>
/// <param name="ask">Asks the node.</param>
internal sealed class NodeStorage(string node, string checkpoint, Func<FileRequest, Task<byte[]>> ask) : IStorage
{
    /// <summary>Requests that are out at most for one file: as many bytes as are in the network, and no more in the way of pages.</summary>
    private const int MostOut = 4;

    /// <summary>The node's name.</summary>
    public string Node => node;

    /// <inheritdoc/>
    public IReadOnlyList<string> Folders() => Lines(Do(new FileRequest(FileOperation.Folders, checkpoint)));

    /// <inheritdoc/>
    public IReadOnlyList<string> Files(string folder) => Lines(Do(new FileRequest(FileOperation.Files, checkpoint, folder)));

    /// <inheritdoc/>
    public void MakeFolder(string folder) => Do(new FileRequest(FileOperation.MakeFolder, checkpoint, folder));

    /// <inheritdoc/>
    public IStorageFile Create(string folder, string name, long reservedBytes)
    {
        Do(new FileRequest(FileOperation.Create, checkpoint, folder, name, Length: reservedBytes));
        return new Written(this, folder, name);
    }

    /// <inheritdoc/>
    public IStorageReader Open(string folder, string name) => new Read(this, folder, name);

    /// <inheritdoc/>
    public void Rename(string folder, string name, string newName) => Do(new FileRequest(FileOperation.Rename, checkpoint, folder, name, NewName: newName));

    /// <inheritdoc/>
    public void Delete(string folder, string name) => Do(new FileRequest(FileOperation.Delete, checkpoint, folder, name));

    /// <inheritdoc/>
    public void DeleteFolder(string folder) => Do(new FileRequest(FileOperation.DeleteFolder, checkpoint, folder));

    /// <summary>Has the node write what it has beside its part.</summary>
    /// <param name="folder">Of the generation.</param>
    /// <param name="ring">Names of all nodes that have parts, in order.</param>
    /// <returns>For <see cref="EndProtect"/>.</returns>
    public Task<byte[]> BeginProtect(string folder, IEnumerable<string> ring) => ask(new FileRequest(FileOperation.Protect, checkpoint, folder) { Data = Encoding.ASCII.GetBytes(string.Join('\n', ring)) });

    /// <summary>Waits until that is done.</summary>
    /// <param name="protecting">What began it.</param>
    /// <exception cref="IOException">It could not be.</exception>
    public void EndProtect(Task<byte[]> protecting) => _ = Await(protecting);

    /// <summary>Nothing to do: what is in memory does not outlive the node, and needs no more to outlive the agent.</summary>
    public void SyncFolder(string folder) { }

    /// <inheritdoc cref="SyncFolder"/>
    public void SyncRoot() { }

    private static string[] Lines(byte[] text) => text.Length == 0 ? [] : Encoding.ASCII.GetString(text).Split('\n');

    private byte[] Do(FileRequest request) => Await(ask(request));

    private byte[] Await(Task<byte[]> answer)
    {
        try { return answer.GetAwaiter().GetResult(); }
        catch (ControlException e) when (e.ExitCode == ExitCodes.NoAgent) { throw new NodeGoneException($"node {node}: {e.Message}", e); }
        catch (Exception e) when (e is ControlException or IOException or UnauthorizedAccessException) { throw new IOException($"node {node}: {e.Message}", e); }
    }

    private sealed class Written(NodeStorage storage, string folder, string name) : IStorageFile
    {
        private readonly Queue<Task<byte[]>> _out = [];
        private long _length;

        public void Write(ReadOnlySpan<byte> bytes)
        {
            while (!bytes.IsEmpty)
            {
                ReadOnlySpan<byte> now = bytes[..Math.Min(bytes.Length, FileRequest.MaxData)];
                if (_out.Count == MostOut) _ = storage.Await(_out.Dequeue());
                _out.Enqueue(storage.Ask(new FileRequest(FileOperation.Write, storage.Checkpoint, folder, name, _length) { Data = now.ToArray() }));
                _length += now.Length;
                bytes = bytes[now.Length..];
            }
        }

        public void Sync()
        {
            while (_out.TryDequeue(out Task<byte[]>? written)) _ = storage.Await(written);
            _ = storage.Do(new FileRequest(FileOperation.Complete, storage.Checkpoint, folder, name, Length: _length));
        }

        public void Dispose() => _out.Clear(); // whatever becomes of them
    }

    private sealed class Read : IStorageReader
    {
        private readonly NodeStorage _storage;
        private readonly string _folder, _name;

        public Read(NodeStorage storage, string folder, string name)
        {
            (_storage, _folder, _name) = (storage, folder, name);
            byte[] length = storage.Do(new FileRequest(FileOperation.Measure, storage.Checkpoint, folder, name));
            Length = length.Length == sizeof(long) ? BinaryPrimitives.ReadInt64LittleEndian(length) : throw new IOException($"node {storage.Node} does not say how long {folder}/{name} is");
        }

        public long Length { get; }

        void IStorageReader.Read(long offset, Span<byte> bytes)
        {
            var pieces = new Queue<(Task<byte[]> Answer, int At, int Count)>();
            for (int at = 0; at < bytes.Length || pieces.Count > 0;)
            {
                if (at < bytes.Length && pieces.Count < MostOut)
                {
                    int count = Math.Min(bytes.Length - at, FileRequest.MaxData);
                    pieces.Enqueue((_storage.Ask(new FileRequest(FileOperation.Read, _storage.Checkpoint, _folder, _name, offset + at, count)), at, count));
                    at += count;
                    continue;
                }
                (Task<byte[]> answer, int to, int length) = pieces.Dequeue();
                byte[] piece = _storage.Await(answer);
                if (piece.Length != length) throw new EndOfStreamException($"node {_storage.Node} has sent {piece.Length} bytes of {_folder}/{_name}, and was asked for {length}");
                piece.CopyTo(bytes[to..]);
            }
        }

        public void Dispose() { }
    }

    private string Checkpoint => checkpoint;

    private Task<byte[]> Ask(in FileRequest request) => ask(request);
}
