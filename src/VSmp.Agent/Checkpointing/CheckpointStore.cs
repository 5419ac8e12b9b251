// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing;

/// <summary>
/// The generations of a checkpoint in a storage, each in a folder of its own. A generation is there when its manifest is, which is written last; until then, and if it never
/// is, the one before is as it was.
/// </summary>
/// <remarks>
/// <code>
///   g00000012/          a generation
///     manifest          what it is made of, sealed; renamed into place when all else is safe
///     n0.pages          pages of node n0, one after the other
///     n0.index          which these are, with a checksum of each
/// </code>
/// </remarks>
/// <param name="storage">Where.</param>
internal sealed class CheckpointStore(IStorage storage)
{
    private const string NextManifest = "manifest.new";

    /// <summary>The folder of a generation.</summary>
    public static string FolderOf(uint generation) => string.Create(CultureInfo.InvariantCulture, $"g{generation:d8}");

    /// <summary>Where it is.</summary>
    public IStorage Storage => storage;

    /// <summary>Whether there is a generation, complete or not.</summary>
    public bool HasAny => Numbers().Any();

    /// <summary>The generations that are complete, as far as can be told without reading them; ascending.</summary>
    public IReadOnlyList<uint> List() => [.. Numbers().Where(n => storage.Files(FolderOf(n)).Contains(Manifest.FileName)).Order()];

    /// <summary>A number that no generation has, or was begun with: who was to write one that was given up may still be at it.</summary>
    public uint NextNumber() => Numbers().Append(0u).Max() + 1;

    /// <summary>How long all files of all generations are together, complete or not.</summary>
    /// <exception cref="IOException">One cannot be looked at.</exception>
    public ulong CountBytes()
    {
        ulong bytes = 0;
        foreach (string folder in Numbers().Select(FolderOf))
        {
            foreach (string name in storage.Files(folder))
            {
                using IStorageReader file = storage.Open(folder, name);
                bytes += (ulong)file.Length;
            }
        }
        return bytes;
    }

    /// <summary>The latest generation whose manifest is sound, and whose files are there.</summary>
    /// <param name="warn">Gets what is wrong with later ones.</param>
    /// <returns>Null: there is none.</returns>
    public Manifest? FindNewest(Action<string> warn)
    {
        foreach (uint generation in List().Reverse())
        {
            try { return Load(generation); }
            catch (Exception e) when (e is CheckpointException or IOException) { warn($"generation {generation} cannot be used: {e.Message}"); }
        }
        return null;
    }

    /// <summary>What a generation is made of; that its files are there, and as long as they should be, is looked at, not what is in them.</summary>
    /// <exception cref="CheckpointException">It is damaged, or of a newer format.</exception>
    /// <exception cref="IOException">It is not there, or cannot be read.</exception>
    public Manifest Load(uint generation)
    {
        Manifest manifest = Manifest.Read(storage, FolderOf(generation));
        if (manifest.Generation != generation) throw new CheckpointException($"{FolderOf(generation)} has the manifest of generation {manifest.Generation}");
        foreach (SavedPart part in manifest.Parts)
        {
            RequireFiles(part);
        }
        return manifest;
    }

    /// <summary>Makes the folder of a generation, empty: what a crash, or a failure, may have left there is gone.</summary>
    /// <exception cref="IOException">It could not be made.</exception>
    public string Begin(uint generation)
    {
        string folder = FolderOf(generation);
        if (storage.Folders().Contains(folder))
        {
            if (storage.Files(folder).Contains(Manifest.FileName)) throw new InvalidOperationException($"generation {generation} is there already");
            storage.DeleteFolder(folder);
        }
        storage.MakeFolder(folder); // synced when it is committed: a disk that is busy makes nobody wait
        return folder;
    }

    /// <summary>Removes what there is of a generation that was begun, unless it is there.</summary>
    /// <exception cref="IOException">It could not be removed.</exception>
    public void Discard(uint generation)
    {
        string folder = FolderOf(generation);
        if (storage.Folders().Contains(folder) && !storage.Files(folder).Contains(Manifest.FileName)) storage.DeleteFolder(folder);
    }

    /// <summary>All parts are written: from now on the generation is there.</summary>
    /// <exception cref="IOException">It could not be written: whether it is there a look will show, and the one before is in any case.</exception>
    /// <exception cref="CheckpointException">A part of it is not here: nodes that write parts have to share the folder.</exception>
    public void Commit(Manifest manifest)
    {
        string folder = FolderOf(manifest.Generation);
        try
        {
            foreach (SavedPart part in manifest.Parts) RequireFiles(part);
        }
        catch (CheckpointException e) { throw new CheckpointException($"{e.Message}: do all nodes share the folder of --checkpoints?", e); }
        storage.SyncRoot(); // the folder
        storage.SyncFolder(folder); // names of the parts
        byte[] bytes = manifest.Write();
        using (IStorageFile file = storage.Create(folder, NextManifest, bytes.Length))
        {
            file.Write(bytes);
            file.Sync();
        }
        storage.Rename(folder, NextManifest, Manifest.FileName);
        storage.SyncFolder(folder);
    }

    /// <summary>Removes a generation. Files of it that later ones need stay, until those are gone as well.</summary>
    /// <param name="generation">Which.</param>
    /// <param name="isWriting">Whether a later one is being written.</param>
    /// <exception cref="IOException">It could not be removed.</exception>
    public void Remove(uint generation, bool isWriting = false)
    {
        string folder = FolderOf(generation);
        // From then on it is none, whatever else is still there.
        storage.Delete(folder, Manifest.FileName);
        storage.SyncFolder(folder);
        Sweep(isWriting);
    }

    /// <summary>Keeps the latest generations, and removes the others. A later one may be being written.</summary>
    /// <param name="count">How many to keep; 1 at least.</param>
    /// <exception cref="IOException">One could not be removed.</exception>
    public void Retain(int count)
    {
        IReadOnlyList<uint> all = List();
        foreach (uint generation in all.Take(all.Count - Math.Max(count, 1)).ToArray()) Remove(generation, isWriting: true);
    }

    /// <summary>Removes all generations, whether complete, sound or neither.</summary>
    /// <exception cref="IOException">One could not be removed.</exception>
    public void RemoveAll()
    {
        string[] folders = [.. Numbers().Select(FolderOf)];
        // First none is there any more: one would be left without the files of another if this were stopped.
        foreach (string folder in folders.Where(folder => storage.Files(folder).Contains(Manifest.FileName)))
        {
            storage.Delete(folder, Manifest.FileName);
            storage.SyncFolder(folder);
        }
        foreach (string folder in folders) storage.DeleteFolder(folder);
        storage.SyncRoot();
    }

    /// <summary>Removes what belongs to no generation that is there.</summary>
    /// <param name="isWriting">Whether one later than all that are there is being written: that stays.</param>
    /// <exception cref="IOException">It could not be removed.</exception>
    public void Sweep(bool isWriting = false)
    {
        var needed = new Dictionary<uint, HashSet<string>>();
        foreach (uint generation in List())
        {
            Manifest manifest;
            try { manifest = Manifest.Read(storage, FolderOf(generation)); }
            catch (CheckpointException) { return; } // what a damaged one needs nobody knows: nothing is removed
            Need(generation, Manifest.FileName);
            foreach (SavedPart part in manifest.Parts)
            {
                Need(part.Generation, PartWriter.IndexName(part.Node));
                Need(part.Generation, PartWriter.PagesName(part.Node));
            }
        }
        uint latest = isWriting && needed.Count > 0 ? needed.Keys.Max() : uint.MaxValue;
        foreach (uint generation in Numbers().Where(generation => generation < latest).ToArray())
        {
            string folder = FolderOf(generation);
            if (!needed.TryGetValue(generation, out HashSet<string>? names)) storage.DeleteFolder(folder);
            else
            {
                IReadOnlyList<string> files = storage.Files(folder);
                if (files.Any(file => file.EndsWith(Parity.Suffix, StringComparison.Ordinal))) continue; // to compute a part, all others are needed
                foreach (string file in files.Where(file => !names.Contains(file)).ToArray()) storage.Delete(folder, file);
            }
        }

        void Need(uint generation, string file)
        {
            if (!needed.TryGetValue(generation, out HashSet<string>? names)) needed.Add(generation, names = []);
            names.Add(file);
        }
    }

    /// <summary>Reads all of a generation, and finds whatever is not as it was written.</summary>
    /// <param name="manifest">The generation.</param>
    /// <param name="progress">Called for each page.</param>
    /// <exception cref="CheckpointException">It is damaged.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public void Verify(Manifest manifest, Action? progress = null)
    {
        foreach (SavedPart part in manifest.Parts) VerifyPart(manifest, part, progress);
    }

    /// <summary>Reads all of one part of a generation, as <see cref="Verify"/> does of each.</summary>
    /// <param name="manifest">The generation.</param>
    /// <param name="part">The part.</param>
    /// <param name="progress">Called for each page.</param>
    /// <inheritdoc cref="Verify" path="/exception"/>
    public void VerifyPart(Manifest manifest, SavedPart part, Action? progress = null)
    {
        var had = new PageSet(manifest);
        new PartReader(storage, manifest, part).ReadPages(record =>
        {
            if (!had.Add(record)) throw new CheckpointException($"the part of node {part.Node} of generation {part.Generation} has page {record.Page.Value} of region {manifest.Regions[record.Region].Name} twice");
            return true;
        }, (_, _) => progress?.Invoke());
    }

    /// <summary>Passes on the pages that a generation has, each once. Those that it does not pass on are zero.</summary>
    /// <param name="manifest">The generation.</param>
    /// <param name="isWanted">Asked of each page; of those that are not, nothing is read.</param>
    /// <param name="take">Gets each.</param>
    /// <exception cref="CheckpointException">It is damaged. What was passed on before is sound.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public void ReadPages(Manifest manifest, Func<IndexRecord, bool> isWanted, PageTaker take)
    {
        var had = new PageSet(manifest);
        foreach (SavedPart part in manifest.Parts) new PartReader(storage, manifest, part).ReadPages(record => had.Add(record) && isWanted(record), take);
    }

    /// <summary>Passes on what a generation has of each page, without reading the pages.</summary>
    /// <inheritdoc cref="ReadPages" path="/exception"/>
    public void ReadIndex(Manifest manifest, Action<IndexRecord> take)
    {
        var had = new PageSet(manifest);
        foreach (SavedPart part in manifest.Parts)
        {
            new PartReader(storage, manifest, part).ReadIndex((record, _) =>
            {
                if (had.Add(record)) take(record);
            });
        }
    }

    private IEnumerable<uint> Numbers() => storage.Folders()
        .Where(folder => folder.Length == 9 && folder[0] == 'g')
        .Select(folder => uint.TryParse(folder.AsSpan(1), NumberStyles.None, CultureInfo.InvariantCulture, out uint number) ? number : 0)
        .Where(number => number > 0);

    private void RequireFiles(SavedPart part)
    {
        Require(part, PartWriter.IndexName(part.Node), part.Pages * IndexRecord.Bytes);
        Require(part, PartWriter.PagesName(part.Node), part.StoredPages * PageNumber.Bytes);
    }

    private void Require(SavedPart part, string name, ulong length)
    {
        string folder = FolderOf(part.Generation);
        IStorageReader file;
        try { file = storage.Open(folder, name); }
        catch (IOException e) { throw new CheckpointException($"{folder}/{name} is needed, and cannot be read: {e.Message}", e); }
        using (file)
        {
            if ((ulong)file.Length != length) throw new CheckpointException($"{folder}/{name} is damaged: it is {file.Length} bytes long, and should be {length}");
        }
    }

    /// <summary>Pages that were seen: a bit for each, of pieces of a region of which there are any.</summary>
    private sealed class PageSet(Manifest manifest)
    {
        private const int PieceShift = 15;

        private readonly ulong[]?[]?[] _regions = new ulong[manifest.Regions.Count][][];

        /// <returns>False if it was there.</returns>
        public bool Add(IndexRecord record)
        {
            ulong page = record.Page.Value;
            ulong[]?[] pieces = _regions[record.Region] ??= new ulong[]?[(manifest.Regions[record.Region].PageCount >> PieceShift) + 1];
            ulong[] bits = pieces[page >> PieceShift] ??= new ulong[(1 << PieceShift) / 64];
            ref ulong word = ref bits[page % (1 << PieceShift) / 64];
            ulong bit = 1ul << (int)(page % 64);
            if ((word & bit) != 0) return false;
            word |= bit;
            return true;
        }
    }
}
