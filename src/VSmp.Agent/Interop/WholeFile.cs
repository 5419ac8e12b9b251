// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Interop;

/// <summary>Files that are replaced whole: whoever reads one finds what it had or what it gets, also if the writer is killed. That a power cut is survived as well is not said.</summary>
internal static class WholeFile
{
    /// <summary>What the name of a file ends with that is being written, and is none yet.</summary>
    public const string NextSuffix = ".new";

    /// <summary>The owner may read and write it, and nobody else.</summary>
    public const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>The files in a folder, in the order of their names; none if it is not there. One that was being written when the writer was killed is none: what it was to replace is there.</summary>
    /// <exception cref="IOException">The folder cannot be read.</exception>
    /// <exception cref="UnauthorizedAccessException">As above.</exception>
    public static IReadOnlyList<string> In(string folder) => !Directory.Exists(folder) ? []
        : [.. Directory.EnumerateFileSystemEntries(folder).Where(path => !path.EndsWith(NextSuffix, StringComparison.Ordinal)).Order(StringComparer.Ordinal)];

    /// <summary>Deletes a file, if it is there, and what was to replace it; where it cannot be deleted, the log says so.</summary>
    /// <param name="path">The file.</param>
    /// <param name="what">What it is, for the log.</param>
    public static void Delete(string path, string what)
    {
        try
        {
            File.Delete(path);
            File.Delete(path + NextSuffix);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { Log.Warn($"{what} stays: {e.Message}"); }
    }

    /// <summary>Puts bytes in place of what the file had, if there is one.</summary>
    /// <param name="path">The file.</param>
    /// <param name="bytes">What it gets.</param>
    /// <param name="mode">Who may use it; null: as the umask has it.</param>
    /// <exception cref="IOException">It could not be written; the file is as it was.</exception>
    /// <exception cref="UnauthorizedAccessException">As above.</exception>
    public static void Replace(string path, ReadOnlySpan<byte> bytes, UnixFileMode? mode = null)
    {
        string next = path + NextSuffix;
        using (FileStream file = new(next, new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write, UnixCreateMode = mode })) file.Write(bytes);
        File.Move(next, path, overwrite: true);
    }
}
