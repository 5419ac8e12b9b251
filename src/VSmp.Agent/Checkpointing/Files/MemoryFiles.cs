// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Text;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Checkpointing.Files;

/// <summary>
/// Files of checkpoints in this node's memory: in a folder of the tmpfs that frames are in, so that they outlive the agent as frames do, and out of what the node contributes. To be used by any
/// thread but the reactor's, since it asks that for room.
/// </summary>
internal sealed class MemoryFiles
{
    private readonly string _root;
    private readonly Func<ulong, bool> _tryTake;
    private readonly Action<ulong> _giveBack;
    private readonly Dictionary<string, ulong> _taken = []; // by path: bytes
    private readonly Lock _lock = new();

    /// <summary>Makes it, with what an agent before this one has left.</summary>
    /// <param name="root">The folder; made when it is needed.</param>
    /// <param name="tryTake">Takes bytes of what the node contributes, if there are as many free.</param>
    /// <param name="giveBack">Gives some back.</param>
    /// <param name="left">How many bytes are taken by what was left.</param>
    public MemoryFiles(string root, Func<ulong, bool> tryTake, Action<ulong> giveBack, out ulong left)
    {
        (_root, _tryTake, _giveBack) = (root, tryTake, giveBack);
        if (Directory.Exists(root))
        {
            foreach (FileInfo file in new DirectoryInfo(root).EnumerateFiles("*", SearchOption.AllDirectories)) _taken.Add(file.FullName, (ulong)file.Length);
        }
        left = _taken.Values.Aggregate(0ul, (sum, bytes) => sum + bytes);
    }

    /// <summary>Does what is asked.</summary>
    /// <returns>What was asked for; empty where nothing was.</returns>
    /// <exception cref="IOException">It cannot be done.</exception>
    public byte[] Do(in FileRequest request)
    {
        string folder = Path.Combine(_root, request.Checkpoint, request.Folder), path = Path.Combine(folder, request.Name);
        switch (request.Operation)
        {
            case FileOperation.Checkpoints or FileOperation.Folders:
                return Lines(Directory.Exists(folder) ? Directory.EnumerateDirectories(folder) : []);
            case FileOperation.Files:
                return Lines(Directory.Exists(folder) ? Directory.EnumerateFiles(folder) : []);
            case FileOperation.MakeFolder:
                MakeFolder(folder);
                return [];
            case FileOperation.Create:
                Create(folder, path, (ulong)request.Length);
                return [];
            case FileOperation.Write:
                Write(path, request.Offset, request.Data.Span);
                return [];
            case FileOperation.Complete:
                Complete(path, request.Length);
                return [];
            case FileOperation.Measure:
                byte[] length = new byte[sizeof(long)];
                BinaryPrimitives.WriteInt64LittleEndian(length, new FileInfo(path).Length);
                return length;
            case FileOperation.Read:
                return Read(path, request.Offset, (int)request.Length);
            case FileOperation.Rename:
                Rename(path, Path.Combine(folder, request.NewName));
                return [];
            case FileOperation.Delete:
                File.Delete(path);
                Forget(path);
                return [];
            case FileOperation.DeleteFolder:
                DeleteFolder(folder);
                return [];
            default:
                throw new IOException($"there is no operation {request.Operation} of files");
        }
    }

    private static byte[] Lines(IEnumerable<string> paths) => Encoding.ASCII.GetBytes(string.Join('\n', paths.Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)));

    // Not while another request removes what has become empty.
    private void MakeFolder(string folder)
    {
        lock (_lock) _ = Directory.CreateDirectory(folder, WholeFile.OwnerOnly | UnixFileMode.UserExecute);
    }

    private void Create(string folder, string path, ulong bytes)
    {
        MakeFolder(folder);
        Take(path, bytes);
        try
        {
            using var file = File.OpenHandle(path, FileMode.Create, FileAccess.Write);
            File.SetUnixFileMode(file, WholeFile.OwnerOnly);
        }
        catch
        {
            Forget(path);
            throw;
        }
    }

    private static byte[] Read(string path, long offset, int length)
    {
        byte[] bytes = new byte[length];
        using var file = File.OpenHandle(path);
        for (int got = 0; got < length;)
        {
            int now = RandomAccess.Read(file, bytes.AsSpan(got), offset + got);
            if (now == 0) throw new EndOfStreamException($"{path} ends before byte {offset + length}");
            got += now;
        }
        return bytes;
    }

    private void Write(string path, long offset, ReadOnlySpan<byte> bytes)
    {
        lock (_lock)
        {
            if (_taken.GetValueOrDefault(path) < (ulong)(offset + bytes.Length)) throw new IOException($"{path} is written beyond the room that was taken for it");
        }
        using var file = File.OpenHandle(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        RandomAccess.Write(file, bytes, offset);
    }

    private void Complete(string path, long length)
    {
        ulong less;
        lock (_lock)
        {
            if (!_taken.TryGetValue(path, out ulong taken) || taken < (ulong)length) throw new IOException($"{path} is longer than the room that was taken for it");
            using var file = File.OpenHandle(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
            RandomAccess.SetLength(file, length);
            _taken[path] = (ulong)length;
            less = taken - (ulong)length;
        }
        _giveBack(less);
    }

    private void Rename(string path, string newPath)
    {
        File.Move(path, newPath, overwrite: true);
        Forget(newPath);
        lock (_lock)
        {
            if (_taken.Remove(path, out ulong taken)) _taken.Add(newPath, taken);
        }
    }

    private void DeleteFolder(string folder)
    {
        if (Directory.Exists(folder))
        {
            foreach (string path in Directory.GetFiles(folder))
            {
                File.Delete(path);
                Forget(path);
            }
        }
        string checkpoint = Path.GetDirectoryName(folder)!;
        lock (_lock)
        {
            if (Directory.Exists(folder)) Directory.Delete(folder);
            // Nothing is left of a checkpoint that has no generation.
            if (Directory.Exists(checkpoint) && !Directory.EnumerateFileSystemEntries(checkpoint).Any()) Directory.Delete(checkpoint);
        }
    }

    private void Take(string path, ulong bytes)
    {
        Forget(path);
        if (!_tryTake(bytes)) throw new IOException($"the pool has no room for {Sizes.Format(bytes)} of a checkpoint on this node");
        lock (_lock) _taken[path] = bytes;
    }

    private void Forget(string path)
    {
        ulong bytes;
        lock (_lock)
        {
            if (!_taken.Remove(path, out bytes)) return;
        }
        _giveBack(bytes);
    }
}
