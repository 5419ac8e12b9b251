// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;

namespace VSmp.Agent.Membership.Etcd;

/// <summary>A watch of one key at one member of etcd: a stream of JSON objects, one a line. For one reader.</summary>
internal sealed class EtcdWatch : IDisposable
{
    private readonly byte[] _key;
    private readonly HttpResponseMessage _response;
    private readonly Stream _stream;
    private byte[] _buffer = new byte[16 << 10];
    private int _start, _end; // what was read and not yet taken

    internal EtcdWatch(Uri member, byte[] key, HttpResponseMessage response, Stream stream)
    {
        Member = member;
        _key = key;
        _response = response;
        _stream = stream;
    }

    /// <summary>Where it is watched.</summary>
    public Uri Member { get; }

    /// <summary>The next element: events of the key in order of their revisions, or the end of the watch.</summary>
    /// <exception cref="EtcdException">The stream has ended, or is none of etcd's.</exception>
    public async Task<WatchReply> ReadAsync(CancellationToken cancellation)
    {
        try
        {
            ReadOnlyMemory<byte> line = await ReadLineAsync(cancellation).ConfigureAwait(false);
            WatchElement? element = JsonSerializer.Deserialize(line.Span, EtcdJson.Default.WatchElement);
            if (element?.Error is { } error) throw EtcdTransport.Answered(Member, (GrpcCode)error.GrpcCode, error.Message ?? "");
            WatchReply reply = element?.Result is { Header.ClusterId: not 0 } result
                ? result
                : throw EtcdTransport.NotEtcd(Member, "answers without etcd's header");
            foreach (EtcdEvent? change in reply.Events)
            {
                if (change is not { Type: null or "PUT" or "DELETE", Kv: { ModRevision: > 0 } kv } || !kv.Key.AsSpan().SequenceEqual(_key))
                    throw EtcdTransport.NotEtcd(Member, "tells of changes that were not asked for");
            }
            return reply;
        }
        catch (Exception e) when (EtcdTransport.Translate(Member, e, cancellation) is { } failure)
        {
            throw failure;
        }
    }

    /// <summary>Reads the first element, which says whether there is a watch.</summary>
    internal async Task OpenAsync(CancellationToken cancellation)
    {
        WatchReply first = await ReadAsync(cancellation).ConfigureAwait(false);
        if (!first.Created) throw EtcdTransport.NotEtcd(Member, "answers to a watch with something else");
        if (!first.Canceled) return;
        // The reason is etcd's error as text: "rpc error: code = PermissionDenied desc = ...".
        string reason = first.CancelReason ?? "no reason";
        GrpcCode code = reason.Contains(nameof(GrpcCode.InvalidArgument), StringComparison.Ordinal) ? GrpcCode.InvalidArgument
            : reason.Contains("denied", StringComparison.OrdinalIgnoreCase) ? GrpcCode.PermissionDenied
            : reason.Contains(nameof(GrpcCode.Unauthenticated), StringComparison.Ordinal) ? GrpcCode.Unauthenticated
            : GrpcCode.Unavailable;
        throw EtcdTransport.Answered(Member, code, reason);
    }

    /// <inheritdoc/>
    public void Dispose() => _response.Dispose();

    private async ValueTask<ReadOnlyMemory<byte>> ReadLineAsync(CancellationToken cancellation)
    {
        int scanned = _start;
        while (true)
        {
            int length = _buffer.AsSpan(scanned, _end - scanned).IndexOf((byte)'\n');
            if (length >= 0)
            {
                ReadOnlyMemory<byte> line = _buffer.AsMemory(_start, scanned + length - _start);
                _start = scanned + length + 1;
                if (line.Span.Trim((byte)' ').Length > 0) return line;
                scanned = _start;
                continue;
            }
            scanned = _end;
            if (_end == _buffer.Length)
            {
                MakeRoom();
                scanned = _end;
            }
            int got = await _stream.ReadAsync(_buffer.AsMemory(_end), cancellation).ConfigureAwait(false);
            if (got == 0) throw EtcdTransport.Broken(Member, "it ended the watch");
            _end += got;
        }
    }

    private void MakeRoom()
    {
        int have = _end - _start;
        if (have >= EtcdTransport.MaximumReplyBytes)
            throw EtcdTransport.NotEtcd(Member, $"answers with more than {EtcdTransport.MaximumReplyBytes} bytes");
        byte[] to = have > _buffer.Length / 2 ? new byte[_buffer.Length * 2] : _buffer;
        Buffer.BlockCopy(_buffer, _start, to, 0, have);
        _buffer = to;
        (_start, _end) = (0, have);
    }
}
