// SPDX-License-Identifier: Apache-2.0
//
// wordcount FILE: counts the words of a text. Rank 0 puts the text into shared memory; every rank counts the words that begin in its part of
// it and adds its counts to a hash table that all ranks fill together: a slot is taken by compare-and-swap, a count is added by
// an atomic addition. Then every rank compares its share of the table with what it counts in the whole text by itself.
using System.Runtime.InteropServices;
using VSmp.Client;

const int Slots = 1 << 16;

if (args.Length != 1)
{
    Console.Error.WriteLine("usage: wordcount FILE");
    return 2;
}
try
{
    Job.Start();
    // The length first: collective calls must agree on sizes.
    long[] length = [Job.Rank == 0 ? new FileInfo(args[0]).Length : 0];
    Job.Broadcast<long>(length, root: 0);
    SharedRegion region = Job.Attach("wordcount", length[0] + (Slots * 16) + (64 << 10));
    SharedMemory<byte> text = region.AllocateAll<byte>(length[0], alignmentBytes: 4096);
    SharedMemory<Slot> table = region.AllocateAll<Slot>(Slots, alignmentBytes: 4096);
    if (Job.Rank == 0) File.ReadAllBytes(args[0]).CopyTo(text.Span);
    Job.Barrier();

    // One copy into private memory: what is counted word by word is better not interrupted by page faults (see README.md).
    byte[] copy = text.Span.ToArray();
    long begin = length[0] * Job.Rank / Job.Size, end = length[0] * (Job.Rank + 1) / Job.Size;
    foreach (var (hash, count) in Count(copy, begin, end)) Add(table, hash, count);
    Job.Barrier();

    Dictionary<long, long> all = Count(copy, 0, length[0]);
    Dictionary<long, long> found = [];
    foreach (Slot slot in table.Span)
    {
        if (slot.Hash != 0) found.Add(slot.Hash, slot.Count);
    }
    if (found.Count != all.Count || all.Any(word => found.GetValueOrDefault(word.Key) != word.Value))
    {
        Console.Error.WriteLine($"rank {Job.Rank}: wordcount: WRONG: the table of all ranks differs from one rank's count");
        return 1;
    }
    Job.Barrier();
    if (Job.Rank == 0)
    {
        Console.WriteLine($"wordcount: {all.Values.Sum()} words, {all.Count} different ones, counted by {Job.Size} ranks; same as by one");
    }
    Job.Finish();
    return 0;
}
catch (Exception e) when (e is VsmpException or IOException or InvalidDataException or InvalidOperationException)
{
    Console.Error.WriteLine($"wordcount: {e.Message}");
    return 1;
}

// How often each word occurs that begins in this part; by hash, of which two words of one text would have to share all 64 bits to be mixed up.
static Dictionary<long, long> Count(ReadOnlySpan<byte> text, long begin, long end)
{
    Dictionary<long, long> counts = [];
    for (int at = (int)begin; at < end; at++)
    {
        if (!IsLetter(text[at]) || (at > 0 && IsLetter(text[at - 1]))) continue;
        long hash = unchecked((long)14695981039346656037);
        for (int i = at; i < text.Length && IsLetter(text[i]); i++) hash = unchecked((hash ^ (text[i] | 0x20)) * 1099511628211);
        ref long count = ref CollectionsMarshal.GetValueRefOrAddDefault(counts, hash == 0 ? 1 : hash, out _);
        count++;
    }
    return counts;
}

static void Add(SharedMemory<Slot> table, long hash, long count)
{
    for (long i = 0; i < Slots; i++)
    {
        ref Slot slot = ref table[(long)(((ulong)hash + (ulong)i) % Slots)];
        long owner = Interlocked.CompareExchange(ref slot.Hash, hash, 0);
        if (owner != 0 && owner != hash) continue; // another word's
        Interlocked.Add(ref slot.Count, count);
        return;
    }
    throw new InvalidDataException($"the text has more than {Slots} different words");
}

static bool IsLetter(byte character) => char.IsAsciiLetter((char)character) || character >= 0x80;

internal struct Slot
{
    public long Hash; // 0: free
    public long Count;
}
