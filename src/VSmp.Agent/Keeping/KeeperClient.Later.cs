// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;

namespace VSmp.Agent.Keeping;

/// <content>Requests for whose answers nobody waits: they are sent in order, and answered through the reactor.</content>
internal sealed partial class KeeperClient
{
    private readonly Queue<Waiting> _waiting = new(); // have had no room yet
    private readonly Queue<Unanswered> _unanswered = new(); // the keeper answers in order
    private readonly Queue<(Action<int> Done, int Status)> _answers = new();

    private bool IsWaiting => !_isLost && !_isDisposed && (_unanswered.Count > 0 || _waiting.Count > 0);

    /// <summary>
    /// Has the keeper hold copies of descriptors: it has them when it is <em>told</em> so. Nobody waits. What was asked for before is done before.
    /// </summary>
    /// <param name="key">What it is to be known by; not 0.</param>
    /// <param name="kind">What it is; says what the first descriptor must be.</param>
    /// <param name="descriptors">1 to 4, which stay the caller's, and may be closed when this returns.</param>
    /// <param name="data">What is to come back with it; at most 4096 bytes.</param>
    /// <param name="guest">Of a mapping: the guest, whose hold was asked for before.</param>
    /// <param name="done">Is told 0 or the error that <see cref="Hold"/> answers, or EPIPE: the keeper is lost. On the reactor's thread, never
    /// before this returns.</param>
    public void HoldLater(HoldKey key, HoldKind kind, ReadOnlySpan<int> descriptors, ReadOnlySpan<byte> data, HoldKey guest, Action<int> done) =>
        SendLater(NewHold(key, kind, descriptors, data, guest), descriptors, data, done);

    /// <summary>Has the keeper close what it holds, after all that was asked for before. That there is no such hold is no error.</summary>
    public void DropLater(HoldKey key)
    {
        ArgumentOutOfRangeException.ThrowIfZero(key.Value);
        SendLater(new KeeperMessage { Type = KeeperRequest.Drop, Key = key.Value }, default, default, static _ => { });
    }

    private void SendLater(KeeperMessage request, ReadOnlySpan<int> descriptors, ReadOnlySpan<byte> data, Action<int> done)
    {
        if (_isLost)
        {
            Answer(done, Errno.EPIPE);
            return;
        }
        if (_waiting.Count > 0 || !TrySendLater(request, descriptors, data, done)) Wait(request, descriptors, data, done);
    }

    private bool TrySendLater(KeeperMessage request, ReadOnlySpan<int> descriptors, ReadOnlySpan<byte> data, Action<int> done)
    {
        request.Serial = NextSerial();
        try
        {
            if (TrySend(request, descriptors, data) != 0) return false;
            _unanswered.Enqueue(new Unanswered(request.Type, request.Serial, done, Now));
        }
        catch (IOException) when (_isLost)
        {
            Answer(done, Errno.EPIPE); // the loss itself is told by the event
        }
        return true;
    }

    private void Wait(KeeperMessage request, ReadOnlySpan<int> descriptors, ReadOnlySpan<byte> data, Action<int> done)
    {
        var copies = new int[descriptors.Length];
        for (int i = 0; i < copies.Length; i++) copies[i] = UnixSocket.Duplicate(descriptors[i]);
        _waiting.Enqueue(new Waiting(request, copies, data.ToArray(), done, Now));
        if (_waiting.Count == 1) _reactor?.Change(_socket.Descriptor, EpollEvents.Readable | EpollEvents.Writable);
    }

    private void SendWaiting()
    {
        while (_waiting.TryPeek(out Waiting? next))
        {
            if (!TrySendLater(next.Request, next.Descriptors, next.Data, next.Done)) return;
            _ = _waiting.Dequeue();
            foreach (int fd in next.Descriptors) _ = Libc.Close(fd);
        }
        if (!_isLossTold) _reactor?.Change(_socket.Descriptor, EpollEvents.Readable);
    }

    /// <summary>Whether the message is the answer that is due next.</summary>
    private bool TryKeepAnswer(in KeeperMessage message)
    {
        if (!_unanswered.TryPeek(out Unanswered? due) || due.Serial != message.Serial || message.Type != (due.Type | KeeperRequest.Reply)) return false;
        _ = _unanswered.Dequeue();
        Answer(due.Done, message.Status);
        return true;
    }

    private void Answer(Action<int> done, int status)
    {
        _answers.Enqueue((done, status));
        if (_answers.Count == 1) _reactor?.Post(Deliver); // on a turn of its own, if nothing else delivers it before
    }

    private void DeliverAnswers()
    {
        while (_answers.TryDequeue(out var answer)) answer.Done(answer.Status);
    }

    private void FailAll()
    {
        while (_unanswered.TryDequeue(out Unanswered? due)) due.Done(Errno.EPIPE);
        while (_waiting.TryDequeue(out Waiting? next))
        {
            foreach (int fd in next.Descriptors) _ = Libc.Close(fd);
            next.Done(Errno.EPIPE);
        }
        DeliverAnswers();
    }

    private void CloseWaiting()
    {
        while (_waiting.TryDequeue(out Waiting? next))
        {
            foreach (int fd in next.Descriptors) _ = Libc.Close(fd);
        }
    }

    /// <summary>A keeper that does not answer stops nobody when the lease ends, and is as good as lost.</summary>
    private void CheckAnswers()
    {
        OnReady(EpollEvents.Readable | EpollEvents.Writable); // what came, or could have gone, while this agent itself stood still counts
        if (!IsWaiting) return;
        long since = _unanswered.TryPeek(out Unanswered? due) ? due.SinceMilliseconds : _waiting.Peek().SinceMilliseconds;
        if (Now - since > PatienceMilliseconds) _ = Lose("it does not answer");
    }

    private static long Now => Environment.TickCount64;

    private sealed record Unanswered(KeeperRequest Type, uint Serial, Action<int> Done, long SinceMilliseconds);

    private sealed record Waiting(KeeperMessage Request, int[] Descriptors, byte[] Data, Action<int> Done, long SinceMilliseconds);
}
