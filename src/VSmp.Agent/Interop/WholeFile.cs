// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Interop;

/// <summary>Files that are replaced whole: whoever reads one finds what it had or what it gets, also if the writer is killed. That a power cut is survived as well is not said.</summary>
internal static class WholeFile
{
    /// <summary>What the name of a file ends with that is being written, and is none yet.</summary>
    public const string NextSuffix = ".new";

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
