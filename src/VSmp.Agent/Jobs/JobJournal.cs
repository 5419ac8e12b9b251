// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Jobs;

/// <summary>What a record of a job's journal is. Values are in the file.</summary>
internal enum JournalEntry : byte
{
    /// <summary>What job it is: the first record, JSON (<see cref="JobHeader"/>).</summary>
    Job = 1,
    /// <summary>Where it stands, JSON (<see cref="LedState"/>): what comes after happened after that.</summary>
    State = 2,
    /// <summary>A rank has called: rank 32 │ message │ what goes with it.</summary>
    Call = 3,
    /// <summary>A rank is gone, JSON (<see cref="RankGone"/>).</summary>
    Gone = 4,
    /// <summary>The job cannot go on, JSON (<see cref="JobLost"/>).</summary>
    Lost = 5,
    /// <summary>The call before got this number for a region: 64.</summary>
    RegionNumber = 6,
    /// <summary>The region that was being made is there, or cannot be; JSON (<see cref="RegionMade"/>).</summary>
    Made = 7,
    /// <summary>Where homes and mirrors of a region are, JSON (<see cref="RegionPlaces"/>).</summary>
    Places = 8,
    /// <summary>What came of a call for a checkpoint, JSON (<see cref="CheckpointTaken"/>).</summary>
    Taken = 9,
    /// <summary>The generation that was cut is safe, or was given up.</summary>
    Stored = 10,
}

/// <summary>
/// What the agent that leads a job leaves on its node for the one that is started after it: the file <c>jobs/NUMBER</c> in the agent's folder. Everything that the
/// job is told is written there before it hears of it, so before anybody can be told what came of it. A job is deterministic: told all that again, it is
/// where it was. When the file has grown long, it begins anew with where the job stands.
/// </summary>
/// <remarks>
/// <code>length of kind and payload 32 │ CRC-32C of those 32 │ CRC-32C of the eight bytes before 32 │ kind 8 │ payload, for each record, little-endian</code>
/// That it outlives the agent's process is enough; a node that loses its power loses its memory as well. An agent that is killed may leave part of a last
/// record, of which nobody has heard: it is cut off. When a record cannot be written, the file is deleted: the job then ends if the agent does.
/// </remarks>
internal sealed class JobJournal : IDisposable
{
    private const int BodyAt = 12; // where kind and payload begin
    private const int HeadBytes = BodyAt + 1;
    private const long LeastCompactBytes = 1 << 20;

    private readonly string _path;
    private readonly byte[] _header;
    private readonly Action _onLong;
    private readonly Action<string> _onFailed;
    private byte[] _buffer = new byte[256];
    private SafeFileHandle? _file;
    private long _bytes, _compactAt = LeastCompactBytes;

    private JobJournal(string path, byte[] header, Action onLong, Action<string> onFailed)
    {
        _path = path;
        _header = header;
        _onLong = onLong;
        _onFailed = onFailed;
    }

    /// <summary>Begins one, of a job that begins or (with a state) goes on.</summary>
    /// <param name="folder">Where; made if it is not there.</param>
    /// <param name="header">What job it is.</param>
    /// <param name="onLong">Called when it should begin anew (<see cref="Compact"/>): not before what was recorded is done.</param>
    /// <param name="onFailed">Called once, with the reason, if it cannot be kept any more: nothing more will be recorded.</param>
    /// <param name="state">Where the job stands.</param>
    public static JobJournal Begin(string folder, JobHeader header, Action onLong, Action<string> onFailed, LedState? state = null)
    {
        JobJournal journal = new(PathOf(folder, new JobId(header.Job)), JsonSerializer.SerializeToUtf8Bytes(header, JournalJson.Default.JobHeader), onLong, onFailed);
        try
        {
            Directory.CreateDirectory(folder, WholeFile.OwnerOnly | UnixFileMode.UserExecute);
            journal.Write(state);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { journal.GiveUp(e.Message); }
        return journal;
    }

    /// <summary>A rank calls.</summary>
    public void AppendCall(int rank, in GuestMessage call, ReadOnlySpan<byte> data)
    {
        Span<byte> payload = Reserve(sizeof(int) + GuestMessage.Bytes + data.Length);
        BinaryPrimitives.WriteInt32LittleEndian(payload, rank);
        Unsafe.WriteUnaligned(ref payload[sizeof(int)], call);
        data.CopyTo(payload[(sizeof(int) + GuestMessage.Bytes)..]);
        Append(JournalEntry.Call, payload.Length);
    }

    /// <summary>A rank is gone.</summary>
    public void Append(RankGone gone) => Append(JournalEntry.Gone, JsonSerializer.SerializeToUtf8Bytes(gone, JournalJson.Default.RankGone));

    /// <summary>The job cannot go on.</summary>
    public void Append(JobLost lost) => Append(JournalEntry.Lost, JsonSerializer.SerializeToUtf8Bytes(lost, JournalJson.Default.JobLost));

    /// <summary>A region that was being made is there, or cannot be.</summary>
    public void Append(RegionMade made) => Append(JournalEntry.Made, JsonSerializer.SerializeToUtf8Bytes(made, JournalJson.Default.RegionMade));

    /// <summary>Homes and mirrors are elsewhere.</summary>
    public void Append(RegionPlaces places) => Append(JournalEntry.Places, JsonSerializer.SerializeToUtf8Bytes(places, JournalJson.Default.RegionPlaces));

    /// <summary>What came of a call for a checkpoint.</summary>
    public void Append(CheckpointTaken taken) => Append(JournalEntry.Taken, JsonSerializer.SerializeToUtf8Bytes(taken, JournalJson.Default.CheckpointTaken));

    /// <summary>The generation that was cut is safe, or was given up.</summary>
    public void AppendStored() => Append(JournalEntry.Stored, 0);

    /// <summary>The call that was recorded last gets a number for a region.</summary>
    public void AppendRegionNumber(ulong number)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(Reserve(sizeof(ulong)), number);
        Append(JournalEntry.RegionNumber, sizeof(ulong));
    }

    /// <summary>Begins anew.</summary>
    /// <param name="state">Where the job stands.</param>
    public void Compact(LedState state)
    {
        if (_file is null) return;
        try { Write(state); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { GiveUp(e.Message); }
    }

    /// <summary>The job is over, or is not to outlive this agent: the file is deleted, and nothing more recorded.</summary>
    public void Delete()
    {
        Dispose();
        Delete(_path);
    }

    /// <summary>Deletes a file that an agent before this one has left.</summary>
    public static void Delete(string path) => WholeFile.Delete(path, "the journal of a job");

    /// <inheritdoc/>
    public void Dispose()
    {
        _file?.Dispose();
        _file = null;
    }

    /// <summary>Reads one.</summary>
    /// <exception cref="InvalidDataException">It is none, or damaged.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public static (JobHeader Header, List<JournalRecord> Records) Read(string path) => Read(path, File.ReadAllBytes(path));

    /// <summary>As above, of what the file has.</summary>
    /// <exception cref="InvalidDataException">It is none, or damaged.</exception>
    public static (JobHeader Header, List<JournalRecord> Records) Read(string path, byte[] bytes)
    {
        var records = new List<JournalRecord>();
        for (int at = 0; bytes.Length - at >= BodyAt;)
        {
            ReadOnlySpan<byte> rest = bytes.AsSpan(at);
            int length = BinaryPrimitives.ReadInt32LittleEndian(rest);
            if (Crc32C.Compute(rest[..8]) != BinaryPrimitives.ReadUInt32LittleEndian(rest[8..]) || length <= 0) throw new InvalidDataException($"{path} is damaged at byte {at}");
            if (length > rest.Length - BodyAt) break; // the last record, in part
            ReadOnlySpan<byte> body = rest.Slice(BodyAt, length);
            if (Crc32C.Compute(body) != BinaryPrimitives.ReadUInt32LittleEndian(rest[4..])) throw new InvalidDataException($"{path} is damaged at byte {at}");
            records.Add(new JournalRecord((JournalEntry)body[0], body[1..].ToArray()));
            at += BodyAt + length;
        }
        if (records.Count == 0 || records[0].Kind != JournalEntry.Job) throw new InvalidDataException($"{path} is no journal of a job");
        JobHeader header = records[0].Read(JournalJson.Default.JobHeader);
        if (header.Format != JobHeader.CurrentFormat) throw new InvalidDataException($"{path} has format {header.Format}, this agent reads {JobHeader.CurrentFormat}");
        if (Path.GetFileName(path) != NameOf(new JobId(header.Job))) throw new InvalidDataException($"{path} is of another job");
        records.RemoveAt(0);
        return (header, records);
    }

    private static string PathOf(string folder, JobId job) => Path.Combine(folder, NameOf(job));

    private static string NameOf(JobId job) => job.Value.ToString("x16", CultureInfo.InvariantCulture);

    private void Write(LedState? state)
    {
        var bytes = new MemoryStream();
        Put(bytes, JournalEntry.Job, _header);
        if (state is not null) Put(bytes, JournalEntry.State, JsonSerializer.SerializeToUtf8Bytes(state, JournalJson.Default.LedState));
        WholeFile.Replace(_path, bytes.GetBuffer().AsSpan(0, (int)bytes.Length), WholeFile.OwnerOnly);
        _file?.Dispose();
        _file = File.OpenHandle(_path, FileMode.Open, FileAccess.Write);
        _bytes = bytes.Length;
        _compactAt = Math.Max(LeastCompactBytes, 2 * _bytes); // what is written anew was written once more at least
    }

    private static void Put(MemoryStream to, JournalEntry kind, byte[] payload)
    {
        byte[] record = new byte[HeadBytes + payload.Length];
        payload.CopyTo(record, HeadBytes);
        Seal(record, kind);
        to.Write(record);
    }

    private Span<byte> Reserve(int payloadBytes)
    {
        if (_buffer.Length < HeadBytes + payloadBytes) _buffer = new byte[(HeadBytes + payloadBytes) * 2];
        return _buffer.AsSpan(HeadBytes, payloadBytes);
    }

    private void Append(JournalEntry kind, byte[] payload)
    {
        payload.CopyTo(Reserve(payload.Length));
        Append(kind, payload.Length);
    }

    private void Append(JournalEntry kind, int payloadBytes)
    {
        if (_file is null) return;
        Span<byte> record = _buffer.AsSpan(0, HeadBytes + payloadBytes);
        Seal(record, kind);
        try { RandomAccess.Write(_file, record, _bytes); }
        catch (IOException e)
        {
            GiveUp(e.Message);
            return;
        }
        bool wasShort = _bytes < _compactAt;
        _bytes += record.Length;
        if (wasShort && _bytes >= _compactAt) _onLong();
    }

    private static void Seal(Span<byte> record, JournalEntry kind)
    {
        record[BodyAt] = (byte)kind;
        BinaryPrimitives.WriteInt32LittleEndian(record, record.Length - BodyAt);
        BinaryPrimitives.WriteUInt32LittleEndian(record[4..], Crc32C.Compute(record[BodyAt..]));
        BinaryPrimitives.WriteUInt32LittleEndian(record[8..], Crc32C.Compute(record[..8]));
    }

    private void GiveUp(string why)
    {
        // Should it not go away: from now on it would lie, and an empty one is refused.
        if (_file is not null) RandomAccess.SetLength(_file, 0);
        Delete();
        _onFailed(why);
    }
}

/// <summary>A record of a journal.</summary>
/// <param name="Kind">What it is.</param>
/// <param name="Payload">What it says.</param>
internal readonly record struct JournalRecord(JournalEntry Kind, byte[] Payload)
{
    /// <summary>What it says, where that is JSON.</summary>
    /// <exception cref="InvalidDataException">It is none.</exception>
    public T Read<T>(System.Text.Json.Serialization.Metadata.JsonTypeInfo<T> type)
    {
        try { return JsonSerializer.Deserialize(Payload, type) ?? throw new InvalidDataException($"a record ({Kind}) is empty"); }
        catch (JsonException e) { throw new InvalidDataException($"a record ({Kind}) makes no sense: {e.Message}", e); }
    }

    /// <summary>A rank's call.</summary>
    /// <exception cref="InvalidDataException">It is none.</exception>
    public (int Rank, GuestMessage Call, byte[] Data) ReadCall()
    {
        const int MessageAt = sizeof(int), DataAt = MessageAt + GuestMessage.Bytes;
        if (Payload.Length < DataAt) throw new InvalidDataException($"a call of {Payload.Length} bytes is none");
        return (BinaryPrimitives.ReadInt32LittleEndian(Payload), RankMessages.Read(Payload.AsSpan(MessageAt, GuestMessage.Bytes)), Payload[DataAt..]);
    }

    /// <summary>A region's number.</summary>
    /// <exception cref="InvalidDataException">It is none.</exception>
    public ulong ReadRegionNumber() =>
        Payload.Length == sizeof(ulong) ? BinaryPrimitives.ReadUInt64LittleEndian(Payload) : throw new InvalidDataException("a number for a region is none");
}
