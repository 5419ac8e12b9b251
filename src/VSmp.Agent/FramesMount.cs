// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent;

/// <summary>The agent's own tmpfs, capped to what the node contributes: it cannot take more, whatever goes wrong.</summary>
internal sealed class FramesMount : IDisposable
{
    private const ulong MS_NOSUID = 2, MS_NODEV = 4, MS_NOEXEC = 8;

    /// <summary>Room for the file system's own blocks, beside the frames.</summary>
    private const ulong SlackBytes = 1 << 20;

    /// <summary>
    /// Room for what outlives an agent: state files, of which those of the node's own memory take up less than one percent (<see cref="RecordsShare"/>, as its
    /// inverse), and copies that are kept.
    /// </summary>
    private const ulong RecordsBytes = 64 << 20, RecordsShare = 100;

    private readonly string _path;

    private FramesMount(string path) => _path = path;

    /// <summary>Mounts it.</summary>
    /// <param name="path">Where.</param>
    /// <param name="bytes">What the node contributes.</param>
    /// <param name="isRecording">Whether what the agent knows is to lie there as well.</param>
    /// <exception cref="CommandException">Not permitted, or the kernel refuses.</exception>
    public static FramesMount Create(string path, ulong bytes, bool isRecording)
    {
        ulong size = bytes + SlackBytes + (isRecording ? RecordsBytes + (bytes / RecordsShare) : 0);
        Directory.CreateDirectory(path);
        if (Libc.Mount("vsmp", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, $"size={size},mode=0700,huge=never") < 0)
        {
            int error = Errno.Last;
            string advice = error == Errno.EPERM ? ": run the agent as root (or with CAP_SYS_ADMIN)" : "";
            throw new CommandException(error == Errno.EPERM ? ExitCodes.NotPermitted : ExitCodes.Failed,
                $"cannot mount a tmpfs of {bytes >> 20} MiB at {path}: {Errno.Text(error)}{advice}");
        }
        return new FramesMount(path);
    }

    /// <summary>Takes over the one that an agent before this one has mounted, with what is in it.</summary>
    /// <exception cref="CommandException">It is not there.</exception>
    public static FramesMount TakeOver(string path) => UnixFile.IsMounted(path)
        ? new FramesMount(path)
        : throw new CommandException(ExitCodes.AgentLost, $"{path}, where the frames of the agent that was killed are, is not mounted any more");

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Libc.Unmount(_path, 0) < 0 && Libc.Unmount(_path, Libc.MNT_DETACH) < 0)
        {
            Log.Error($"cannot unmount {_path}: {Errno.Text(Errno.Last)}");
            return;
        }
        Directory.Delete(_path);
    }
}
