// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>Passes our standard input on to a rank on another host, piece by piece, as fast as the rank takes it.</summary>
/// <param name="leader">Where pieces go.</param>
/// <param name="rank">Whose they are.</param>
internal sealed class SpmdInput(ControlClient leader, int rank)
{
    /// <summary>Bytes of a piece: fits into a request as base64.</summary>
    public const int PieceBytes = 16 * 1024;

    private const int InputDescriptor = 0;

    private readonly object _gate = new();
    private bool _isWanted = true; // under the gate

    /// <summary>Begins. What nobody has taken when the command ends is lost, as with a pipe.</summary>
    public void Start() => new Thread(Pass) { Name = "input", IsBackground = true }.Start();

    /// <summary>The rank has taken a piece.</summary>
    public void OnTaken()
    {
        lock (_gate)
        {
            _isWanted = true;
            Monitor.Pulse(_gate);
        }
    }

    private unsafe void Pass()
    {
        byte[] piece = new byte[PieceBytes];
        try
        {
            while (true)
            {
                AwaitWanted();
                nint got = 0;
                // A terminal that another program has would stop us, and with us all ranks: for them, it is at its end.
                if (!Terminals.IsTerminal(InputDescriptor) || Terminals.IsOurs(InputDescriptor))
                {
                    // SAFETY: pinned for the call, which writes no more than the array holds.
                    fixed (byte* start = piece)
                    {
                        do got = Libc.Read(InputDescriptor, start, PieceBytes);
                        while (got < 0 && Errno.Last == Errno.EINTR);
                    }
                }
                leader.PassInput(rank, piece[..(int)Math.Max(got, 0)]);
                if (got <= 0) return;
            }
        }
        catch (Exception e) when (e is CommandException or ObjectDisposedException) { } // the agent is lost, or the job is over
    }

    private void AwaitWanted()
    {
        lock (_gate)
        {
            while (!_isWanted) Monitor.Wait(_gate);
            _isWanted = false;
        }
    }
}
