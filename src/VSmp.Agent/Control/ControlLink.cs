// SPDX-License-Identifier: Apache-2.0
using System.Collections.Concurrent;
using System.Text.Json;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Control;

/// <summary>
/// One connection of a <see cref="ControlClient"/>: lines to and fro, and who waits for which answer. Any thread sends; one receives.
/// </summary>
internal sealed class ControlLink(UnixSocket socket, ProcessIdentity? agent) : IDisposable
{
    private const int MaxLineBytes = 16 * 1024 * 1024;

    private readonly Lock _sendLock = new();
    private readonly ConcurrentDictionary<int, TaskCompletionSource<ControlReply>> _pending = new();
    private readonly TaskCompletionSource _broken = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<ControlLink?> _next = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly List<int> _received = [];
    private byte[] _buffer = new byte[16 * 1024]; // the receiver's, like the next
    private int _buffered;
    private bool _isClosed; // under the lock
    private volatile ControlReply? _refusal;
    private volatile object? _agent = agent;

    /// <summary>The agent's process, if it is of interest.</summary>
    public ProcessIdentity? Agent
    {
        get => (ProcessIdentity?)_agent;
        set => _agent = value;
    }

    /// <summary>Why the agent does not serve this connection, if it has said so.</summary>
    public ControlReply? Refusal => _refusal;

    /// <summary>Ends when the connection has.</summary>
    public Task Broken => _broken.Task;

    /// <summary>Ends some time after <see cref="Broken"/>: the connection that has taken this one's place, or null.</summary>
    public Task<ControlLink?> Next => _next.Task;

    /// <summary>Descriptors that have come along with lines, and are the receiver's.</summary>
    public Queue<int> Descriptors { get; } = new();

    /// <summary>There will be an answer of that number.</summary>
    public Task<ControlReply> Expect(int id)
    {
        TaskCompletionSource<ControlReply> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _pending[id] = answer;
        return answer.Task;
    }

    /// <summary>It is waited for no more.</summary>
    public void Forget(int id) => _ = _pending.TryRemove(id, out _);

    /// <summary>A reply, of a call or of the connection as a whole.</summary>
    public void OnReply(ControlReply reply)
    {
        if (reply.Id is int id && _pending.TryGetValue(id, out TaskCompletionSource<ControlReply>? answer)) _ = answer.TrySetResult(reply);
        else if (reply.Error is not null) _refusal = reply;
    }

    /// <summary>Sends a request. Whether the agent is there to take it, the receiver learns, and with luck of the reason why not.</summary>
    public void Send(ControlRequest request)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(request, ControlJson.Default.ControlRequest);
        Array.Resize(ref json, json.Length + 1);
        json[^1] = (byte)'\n';
        lock (_sendLock)
        {
            for (int offset = 0; offset < json.Length && !_isClosed;)
            {
                int sent = socket.Send(json.AsSpan(offset), -1, wait: true);
                if (sent < 0) return;
                offset += sent;
            }
        }
    }

    /// <summary>Waits for something to come and takes it.</summary>
    /// <param name="onLine">Is told each message; false: it makes no sense, and the connection is not to be read any more.</param>
    /// <returns>Whether there may be more.</returns>
    public bool Receive(Func<ControlLink, ControlReply, bool> onLine)
    {
        if (_buffered == _buffer.Length)
        {
            if (_buffer.Length >= MaxLineBytes) return false;
            Array.Resize(ref _buffer, _buffer.Length * 2);
        }
        _received.Clear();
        int bytes = socket.Receive(_buffer.AsSpan(_buffered), _received);
        _received.ForEach(Descriptors.Enqueue);
        if (bytes <= 0) return false;
        _buffered += bytes;
        int start = 0, length;
        while ((length = _buffer.AsSpan(start, _buffered - start).IndexOf((byte)'\n')) >= 0)
        {
            ControlReply? reply;
            try { reply = JsonSerializer.Deserialize(_buffer.AsSpan(start, length), ControlJson.Default.ControlReply); }
            catch (JsonException) { return false; }
            if (reply is null || !onLine(this, reply)) return false;
            start += length + 1;
        }
        _buffer.AsSpan(start, _buffered - start).CopyTo(_buffer);
        _buffered -= start;
        return true;
    }

    /// <summary>Nothing more is received: whoever waits for an answer is told.</summary>
    public void Break()
    {
        while (Descriptors.TryDequeue(out int descriptor)) _ = Libc.Close(descriptor);
        _broken.SetResult();
    }

    /// <summary>Says what takes its place.</summary>
    public void SetNext(ControlLink? next) => _next.SetResult(next);

    /// <summary>Ends the connection both ways: the receiver sees its end.</summary>
    public void ShutDown() => socket.ShutDown();

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_sendLock)
        {
            _isClosed = true;
            socket.Dispose();
        }
    }
}
