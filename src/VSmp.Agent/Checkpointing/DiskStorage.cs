// SPDX-License-Identifier: Apache-2.0
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Checkpointing;

/// <summary>Checkpoints in a folder of a file system: of this host, or shared.</summary>
/// <param name="root">The folder; it is there.</param>
internal sealed class DiskStorage(string root) : IStorage
{
    // A link to a folder is none: what is in it is not the checkpoint's to delete.
    private static readonly EnumerationOptions NoLinks = new() { AttributesToSkip = FileAttributes.ReparsePoint, IgnoreInaccessible = false };

    /// <inheritdoc/>
    public IReadOnlyList<string> Folders() => Try(() => NamesOf(Directory.EnumerateDirectories(root, "*", NoLinks)));

    /// <inheritdoc/>
    public IReadOnlyList<string> Files(string folder) => Try(() => NamesOf(Directory.EnumerateFiles(Path.Combine(root, folder))));

    /// <inheritdoc/>
    public void MakeFolder(string folder) => Try(() => Directory.CreateDirectory(Path.Combine(root, folder), WholeFile.OwnerOnly | UnixFileMode.UserExecute));

    /// <inheritdoc/>
    public IStorageFile Create(string folder, string name, long reservedBytes) => Try(() => new Written(Path.Combine(root, folder, name), reservedBytes));

    /// <inheritdoc/>
    public IStorageReader Open(string folder, string name) => Try(() => new Read(Path.Combine(root, folder, name)));

    /// <inheritdoc/>
    public void Rename(string folder, string name, string newName) => Try(() =>
    {
        File.Move(Path.Combine(root, folder, name), Path.Combine(root, folder, newName), overwrite: true);
        return true;
    });

    /// <inheritdoc/>
    public void Delete(string folder, string name) => Try(() =>
    {
        File.Delete(Path.Combine(root, folder, name));
        return true;
    });

    /// <inheritdoc/>
    public void DeleteFolder(string folder) => Try(() =>
    {
        Directory.Delete(Path.Combine(root, folder), recursive: true);
        return true;
    });

    /// <inheritdoc/>
    public void SyncFolder(string folder) => Sync(Path.Combine(root, folder));

    /// <inheritdoc/>
    public void SyncRoot() => Sync(root);

    /// <summary>Runs what may not be allowed: that, too, is a storage that fails.</summary>
    private static T Try<T>(Func<T> operation)
    {
        try { return operation(); }
        catch (UnauthorizedAccessException e) { throw new IOException(e.Message, e); }
    }

    private static string[] NamesOf(IEnumerable<string> paths) => [.. paths.Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)];

    private static void Sync(string folder)
    {
        int fd = Libc.Open(folder, Libc.O_RDONLY | Libc.O_CLOEXEC, 0);
        if (fd < 0) throw new IOException($"cannot open {folder}: {Errno.Text(Errno.Last)}", Errno.Last);
        try
        {
            if (Libc.FSync(fd) < 0) throw new IOException($"cannot sync {folder}: {Errno.Text(Errno.Last)}", Errno.Last);
        }
        finally
        {
            _ = Libc.Close(fd);
        }
    }

    private sealed class Written : IStorageFile
    {
        private readonly string _path;
        private readonly SafeFileHandle _file;
        private readonly long _reserved;
        private long _length;

        public Written(string path, long reservedBytes)
        {
            _path = path;
            _reserved = reservedBytes;
            _file = File.OpenHandle(path, FileMode.Create, FileAccess.Write, FileShare.Read);
            try
            {
                File.SetUnixFileMode(_file, WholeFile.OwnerOnly);
                Reserve();
            }
            catch
            {
                _file.Dispose();
                throw;
            }
        }

        public void Write(ReadOnlySpan<byte> bytes)
        {
            RandomAccess.Write(_file, bytes, _length);
            _length += bytes.Length;
        }

        public void Sync()
        {
            if (_length < _reserved) RandomAccess.SetLength(_file, _length);
            if (Libc.FSync((int)_file.DangerousGetHandle()) < 0) throw new IOException($"cannot sync {_path}: {Errno.Text(Errno.Last)}", Errno.Last);
        }

        public void Dispose() => _file.Dispose();

        private void Reserve()
        {
            if (_reserved <= 0 || Libc.FAllocate((int)_file.DangerousGetHandle(), Libc.FALLOC_FL_KEEP_SIZE, 0, _reserved) == 0) return;
            int error = Errno.Last;
            if (error == Errno.EOPNOTSUPP) return; // not every shared file system can; there, room may run out later
            throw new IOException($"{_path} needs {_reserved >> 20} MiB: {Errno.Text(error)}", error);
        }
    }

    private sealed class Read(string path) : IStorageReader
    {
        private readonly SafeFileHandle _file = OpenRegular(path);

        public long Length => RandomAccess.GetLength(_file);

        void IStorageReader.Read(long offset, Span<byte> bytes)
        {
            while (!bytes.IsEmpty)
            {
                int got = RandomAccess.Read(_file, bytes, offset);
                if (got == 0) throw new EndOfStreamException($"{path} ends before byte {offset + bytes.Length}");
                bytes = bytes[got..];
                offset += got;
            }
        }

        public void Dispose() => _file.Dispose();

        private static SafeFileHandle OpenRegular(string path)
        {
            // To open a pipe would wait for whoever is to write into it.
            if (UnixFile.Look(path, followLink: true) is { } found && !UnixFile.IsRegular(found.Mode)) throw new IOException($"{path} is no regular file");
            return File.OpenHandle(path, options: FileOptions.SequentialScan);
        }
    }
}
