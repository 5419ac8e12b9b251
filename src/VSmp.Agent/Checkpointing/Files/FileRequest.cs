// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Control;

namespace VSmp.Agent.Checkpointing.Files;

/// <summary>What is done to the files of a checkpoint that a node has in its memory. Values are on the wire; <see cref="IStorage"/> says what each does.</summary>
internal enum FileOperation : byte
{
    /// <summary>Which checkpoints there are: names, a line each.</summary>
    Checkpoints = 1,
    /// <summary>Which folders: names, a line each.</summary>
    Folders = 2,
    /// <summary>Which files: names, a line each.</summary>
    Files = 3,
    /// <summary>Make a folder.</summary>
    MakeFolder = 4,
    /// <summary>Make a file; room for <see cref="FileRequest.Length"/> bytes is taken.</summary>
    Create = 5,
    /// <summary>Write at <see cref="FileRequest.Offset"/>.</summary>
    Write = 6,
    /// <summary>A file is complete, and <see cref="FileRequest.Length"/> bytes long.</summary>
    Complete = 7,
    /// <summary>How long a file is: 64 bits.</summary>
    Measure = 8,
    /// <summary>Read <see cref="FileRequest.Length"/> bytes at <see cref="FileRequest.Offset"/>.</summary>
    Read = 9,
    /// <summary>Rename a file.</summary>
    Rename = 10,
    /// <summary>Delete a file.</summary>
    Delete = 11,
    /// <summary>Delete a folder with all that is in it.</summary>
    DeleteFolder = 12,
    /// <summary>Write what this node has beside its part, so that any other part can be computed (<see cref="Parity"/>); data: names of all nodes that have parts, in order, a line each.</summary>
    Protect = 13,
}

/// <summary>A request about files of a checkpoint: <c>operation 8 │ offset 64 │ length 64 │ checkpoint, folder, name, new name: each length, then UTF-8 │ data</c></summary>
/// <param name="Operation">What to do.</param>
/// <param name="Checkpoint">Name of the checkpoint.</param>
/// <param name="Folder">Which of its folders; empty where none is meant.</param>
/// <param name="Name">Which file; empty where none is meant.</param>
/// <param name="Offset">Where in it, in bytes.</param>
/// <param name="Length">How many bytes.</param>
/// <param name="NewName">What it is to be called.</param>
internal readonly record struct FileRequest(FileOperation Operation, string Checkpoint, string Folder = "", string Name = "", long Offset = 0, long Length = 0, string NewName = "")
{
    /// <summary>What there is to write at most in one request, and to read: with the names it fits into a frame.</summary>
    public const int MaxData = 60 << 10;

    private const int MaxName = 255;

    /// <summary>What is to be written.</summary>
    public ReadOnlyMemory<byte> Data { get; init; }

    /// <summary>As bytes.</summary>
    public byte[] Write()
    {
        using MemoryStream stream = new(64 + Data.Length);
        using BinaryWriter writer = new(stream, Encoding.UTF8);
        writer.Write((byte)Operation);
        writer.Write(Offset);
        writer.Write(Length);
        foreach (string text in new[] { Checkpoint, Folder, Name, NewName }) writer.Write(text);
        writer.Write(Data.Span);
        writer.Flush();
        return stream.ToArray();
    }

    /// <summary>From bytes that anybody may have sent: names that are given are names of one file or folder, and no path anywhere else.</summary>
    /// <exception cref="ControlException">They are none.</exception>
    public static FileRequest Read(byte[] bytes)
    {
        try
        {
            using MemoryStream stream = new(bytes);
            using BinaryReader reader = new(stream, Encoding.UTF8);
            FileRequest request = new((FileOperation)reader.ReadByte(), "") { Offset = reader.ReadInt64(), Length = reader.ReadInt64(), Checkpoint = reader.ReadString(), Folder = reader.ReadString(), Name = reader.ReadString(), NewName = reader.ReadString() };
            request = request with { Data = bytes.AsMemory((int)stream.Position) };
            return request.MakesSense() ? request : throw new ControlException("a request for files of a checkpoint makes no sense");
        }
        catch (Exception e) when (e is IOException or FormatException or ArgumentException or DecoderFallbackException) { throw new ControlException("a request for files of a checkpoint cannot be read"); }
    }

    private bool MakesSense()
    {
        (bool needsFolder, bool needsName) = Operation switch
        {
            FileOperation.Checkpoints or FileOperation.Folders => (false, false),
            FileOperation.Files or FileOperation.MakeFolder or FileOperation.DeleteFolder or FileOperation.Protect => (true, false),
            _ => (true, true),
        };
        return Operation is >= FileOperation.Checkpoints and <= FileOperation.Protect
            && Offset >= 0 && Length >= 0 && Offset <= long.MaxValue - MaxData && (Operation != FileOperation.Read || Length <= MaxData) && Data.Length <= MaxData
            && (Operation == FileOperation.Checkpoints ? Checkpoint.Length == 0 : RunDirectory.IsValidName(Checkpoint))
            && (needsFolder ? IsName(Folder) : Folder.Length == 0) && (needsName ? IsName(Name) : Name.Length == 0)
            && (Operation == FileOperation.Rename ? IsName(NewName) : NewName.Length == 0);
    }

    private static bool IsName(string text) => text.Length is > 0 and <= MaxName && char.IsAsciiLetterOrDigit(text[0])
        && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-');
}
