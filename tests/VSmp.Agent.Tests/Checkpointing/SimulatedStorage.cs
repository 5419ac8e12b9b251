// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Tests.Checkpointing;

/// <summary>What is to go wrong.</summary>
internal enum Fault
{
    None,
    /// <summary>The process is killed; what it wrote is there.</summary>
    Kill,
    /// <summary>The power fails: of what was not synced anything may be there.</summary>
    PowerLoss,
    /// <summary>There is no room, once.</summary>
    NoRoom,
    /// <summary>A sync fails, once, and what was to be synced is gone from the cache's conscience.</summary>
    FailedSync,
}

/// <summary>The process, or the machine, has stopped.</summary>
internal sealed class StoppedException : Exception;

/// <summary>A storage in memory, that knows what would outlive a power loss, and in which an operation can go wrong.</summary>
internal sealed class SimulatedStorage(Random random) : IStorage
{
    private const int SectorBytes = 512;

    private Dictionary<string, SimulatedFolder> _folders = [];
    private readonly Dictionary<string, SimulatedFolder> _deleted = []; // and may come back
    private HashSet<string> _durableFolders = [];

    /// <summary>Operations so far that can go wrong.</summary>
    public int Operations { get; private set; }

    /// <summary>Which one goes wrong, counted from 0.</summary>
    public int FaultAt { get; set; } = -1;

    /// <summary>And how.</summary>
    public Fault Fault { get; set; }

    /// <summary>Whether it has.</summary>
    public bool HasFailed { get; private set; }

    public IReadOnlyList<string> Folders() => [.. _folders.Keys];

    public IReadOnlyList<string> Files(string folder) => [.. Find(folder).Files.Keys];

    public void MakeFolder(string folder)
    {
        Operate();
        if (_folders.TryAdd(folder, new SimulatedFolder())) _ = _deleted.Remove(folder);
    }

    public IStorageFile Create(string folder, string name, long reservedBytes)
    {
        Operate();
        var file = new SimulatedFile();
        Find(folder).Files[name] = file;
        return new Written(this, file);
    }

    public IStorageReader Open(string folder, string name) => Find(folder).Files.TryGetValue(name, out SimulatedFile? file)
        ? new Reader(file) : throw new FileNotFoundException($"there is no {folder}/{name}");

    public void Rename(string folder, string name, string newName)
    {
        Operate();
        SimulatedFolder where = Find(folder);
        if (!where.Files.Remove(name, out SimulatedFile? file)) throw new FileNotFoundException(name);
        where.Files[newName] = file;
        where.Changes.Add(files =>
        {
            if (!files.Remove(name, out SimulatedFile? durable)) durable = file;
            files[newName] = durable;
        });
    }

    public void Delete(string folder, string name)
    {
        Operate();
        SimulatedFolder where = Find(folder);
        _ = where.Files.Remove(name);
        where.Changes.Add(files => files.Remove(name));
    }

    public void DeleteFolder(string folder)
    {
        // As rm -r: file by file.
        foreach (string file in Files(folder).ToArray()) Delete(folder, file);
        Operate();
        if (_folders.Remove(folder, out SimulatedFolder? gone) && _durableFolders.Contains(folder)) _deleted[folder] = gone;
    }

    public void SyncFolder(string folder)
    {
        Operate(isSync: true);
        SimulatedFolder where = Find(folder);
        where.Durable = new(where.Files);
        where.Changes.Clear();
    }

    public void SyncRoot()
    {
        Operate(isSync: true);
        _durableFolders = [.. _folders.Keys];
        _deleted.Clear();
    }

    /// <summary>Flips a bit of a file.</summary>
    public void Flip(string folder, string name, long bit)
    {
        List<byte> bytes = Find(folder).Files[name].Bytes;
        bytes[(int)(bit / 8)] ^= (byte)(1 << (int)(bit % 8));
    }

    /// <summary>A file's length.</summary>
    public long LengthOf(string folder, string name) => Find(folder).Files[name].Bytes.Count;

    /// <summary>What the next process, or the machine that is switched on again, finds.</summary>
    public SimulatedStorage Restart()
    {
        var next = new SimulatedStorage(random);
        IEnumerable<KeyValuePair<string, SimulatedFolder>> folders = _folders;
        if (Fault == Fault.PowerLoss) folders = folders.Concat(_deleted.Where(d => !_folders.ContainsKey(d.Key) && random.Next(2) == 0));
        foreach ((string name, SimulatedFolder folder) in folders.ToArray())
        {
            if (Fault == Fault.PowerLoss && !_durableFolders.Contains(name) && random.Next(2) == 0) continue;
            var files = Fault == Fault.PowerLoss ? folder.AfterPowerLoss(random) : folder.Files;
            var found = new SimulatedFolder();
            foreach ((string file, SimulatedFile content) in files)
            {
                found.Files[file] = new SimulatedFile();
                found.Files[file].Bytes.AddRange(Fault == Fault.PowerLoss ? content.AfterPowerLoss(random) : [.. content.Bytes]);
                found.Files[file].SyncedBytes = [.. found.Files[file].Bytes];
            }
            found.Durable = new(found.Files);
            next._folders[name] = found;
            next._durableFolders.Add(name);
        }
        return next;
    }

    private SimulatedFolder Find(string folder) => _folders.TryGetValue(folder, out SimulatedFolder? there) ? there : throw new DirectoryNotFoundException(folder);

    private void Operate(bool isSync = false)
    {
        if (HasFailed && Fault is Fault.Kill or Fault.PowerLoss && HasFailed) throw new StoppedException();
        if (Fault == Fault.FailedSync && !isSync) return; // only syncs are counted
        if (Operations++ != FaultAt || Fault == Fault.None) return;
        HasFailed = true;
        throw Fault switch
        {
            Fault.NoRoom => new IOException("there is no room", Errno.ENOSPC),
            Fault.FailedSync => new IOException("the disk did not take it", Errno.EIO),
            _ => new StoppedException(),
        };
    }

    private sealed class SimulatedFolder
    {
        public Dictionary<string, SimulatedFile> Files { get; } = [];

        public Dictionary<string, SimulatedFile> Durable { get; set; } = [];

        /// <summary>Names that have changed since it was synced, in order.</summary>
        public List<Action<Dictionary<string, SimulatedFile>>> Changes { get; } = [];

        /// <summary>Some first part of what was changed is there; of new names, any.</summary>
        public Dictionary<string, SimulatedFile> AfterPowerLoss(Random random)
        {
            Dictionary<string, SimulatedFile> files = new(Durable);
            foreach ((string name, SimulatedFile file) in Files)
            {
                if (!files.ContainsKey(name) && random.Next(2) == 0) files[name] = file;
            }
            foreach (var change in Changes.Take(random.Next(Changes.Count + 1))) change(files);
            return files;
        }
    }

    private sealed class SimulatedFile
    {
        public List<byte> Bytes { get; } = [];

        public byte[] SyncedBytes { get; set; } = [];

        /// <summary>What was synced is there; of the rest each sector, zeros, or nothing from somewhere on.</summary>
        public byte[] AfterPowerLoss(Random random)
        {
            byte[] bytes = [.. Bytes];
            SyncedBytes.CopyTo(bytes, 0);
            for (int at = SyncedBytes.Length / SectorBytes * SectorBytes; at < bytes.Length; at += SectorBytes)
            {
                if (random.Next(2) == 0) bytes.AsSpan(Math.Max(at, SyncedBytes.Length), Math.Max(0, Math.Min(at + SectorBytes, bytes.Length) - Math.Max(at, SyncedBytes.Length))).Clear();
            }
            return bytes[..random.Next(SyncedBytes.Length, bytes.Length + 1)];
        }
    }

    private sealed class Written(SimulatedStorage storage, SimulatedFile file) : IStorageFile
    {
        private bool _isBroken;

        public void Write(ReadOnlySpan<byte> bytes)
        {
            // An operation that goes wrong may have been done in part.
            try { storage.Operate(); }
            catch
            {
                file.Bytes.AddRange(bytes[..storage.NextPart(bytes.Length)]);
                throw;
            }
            file.Bytes.AddRange(bytes);
        }

        public void Sync()
        {
            try { storage.Operate(isSync: true); }
            catch
            {
                _isBroken = true;
                throw;
            }
            if (!_isBroken) file.SyncedBytes = [.. file.Bytes]; // once it has failed, it says that all is well, and nothing is
        }

        public void Dispose()
        {
        }
    }

    private int NextPart(int length) => random.Next(length);

    private sealed class Reader(SimulatedFile file) : IStorageReader
    {
        public long Length => file.Bytes.Count;

        public void Read(long offset, Span<byte> bytes)
        {
            if (offset + bytes.Length > file.Bytes.Count) throw new EndOfStreamException();
            System.Runtime.InteropServices.CollectionsMarshal.AsSpan(file.Bytes).Slice((int)offset, bytes.Length).CopyTo(bytes);
        }

        public void Dispose()
        {
        }
    }
}
