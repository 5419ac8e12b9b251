// SPDX-License-Identifier: Apache-2.0
using System.Text;

namespace VSmp.Bench.Running;

/// <summary>
/// A folder for files of a run, removed with it. A run that is killed leaves its folder, and its cluster; a lock, which the kernel takes from whoever
/// ends, tells the next run so.
/// </summary>
internal sealed class ScratchFolder : IDisposable
{
    private const string Prefix = "vsmp-bench-", OwnerFile = "cluster";

    private readonly FileStream _owner;

    /// <summary>Makes one.</summary>
    /// <param name="cluster">The cluster that ends with it; empty: none.</param>
    public ScratchFolder(string cluster)
    {
        Path = Directory.CreateTempSubdirectory(Prefix).FullName;
        _owner = new FileStream(System.IO.Path.Combine(Path, OwnerFile), FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None);
        _owner.Write(Encoding.UTF8.GetBytes(cluster));
        _owner.Flush();
    }

    /// <summary>Where it is.</summary>
    public string Path { get; }

    /// <summary>Removes what runs of this user have left that were killed.</summary>
    /// <param name="end">Ends what they may have left running: told the folder, and the cluster, which may be empty, and have ended.</param>
    public static void RemoveAbandoned(Action<string, string> end)
    {
        foreach (string folder in Directory.GetDirectories(System.IO.Path.GetTempPath(), $"{Prefix}*"))
        {
            try
            {
                // Without one it is being made, or somebody else's.
                using FileStream owner = new(System.IO.Path.Combine(folder, OwnerFile), FileMode.Open, FileAccess.ReadWrite, FileShare.None);
                using StreamReader reader = new(owner);
                end(folder, reader.ReadToEnd());
                Directory.Delete(folder, recursive: true);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // It is in use, or not ours.
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Directory.Exists(Path)) Directory.Delete(Path, recursive: true);
        _owner.Dispose();
    }
}
