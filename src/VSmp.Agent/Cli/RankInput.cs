// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>The standard input of a rank that is started for another host: a pipe, and the pieces that are to go into it.</summary>
/// <param name="rank">Whose it is.</param>
internal sealed class RankInput(int rank)
{
    private readonly object _gate = new();
    private readonly Queue<byte[]> _pieces = []; // under the gate; one at most, unless the sender breaks the protocol

    /// <summary>Takes a piece; an empty one is the end.</summary>
    public void Add(byte[] piece)
    {
        lock (_gate)
        {
            _pieces.Enqueue(piece);
            Monitor.Pulse(_gate);
        }
    }

    /// <summary>Begins to fill the pipe, and asks for more whenever a piece is in it.</summary>
    /// <param name="client">Whom to ask.</param>
    /// <param name="writeEnd">The pipe; owned from now on.</param>
    public void Start(ControlClient client, int writeEnd) => new Thread(() => Pass(client, writeEnd)) { Name = "input", IsBackground = true }.Start();

    private void Pass(ControlClient client, int writeEnd)
    {
        try
        {
            while (Take() is { Length: > 0 } piece && Write(writeEnd, piece)) client.InputTaken(rank);
        }
        catch (CommandException) { } // the agent is lost; so is the rank
        _ = Libc.Close(writeEnd);
    }

    private byte[] Take()
    {
        lock (_gate)
        {
            while (_pieces.Count == 0) Monitor.Wait(_gate);
            return _pieces.Dequeue();
        }
    }

    /// <returns>False if the rank does not read any more; then nobody asks for what is left.</returns>
    private static unsafe bool Write(int fd, byte[] piece)
    {
        // SAFETY: pinned for the call; the offset stays within.
        fixed (byte* start = piece)
        {
            for (int offset = 0; offset < piece.Length;)
            {
                nint written = Libc.Write(fd, start + offset, (nuint)(piece.Length - offset));
                if (written < 0 && Errno.Last != Errno.EINTR) return false;
                offset += (int)Math.Max(written, 0);
            }
        }
        return true;
    }
}
