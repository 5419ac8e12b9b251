// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Net.Http.Headers;
using System.Security.Authentication;
using System.Text;
using System.Text.Json;

namespace VSmp.Agent.Membership.Etcd;

/// <summary>One request to one member of etcd, and what comes of it. Whatever answers there, it ends.</summary>
internal sealed class EtcdTransport : IDisposable
{
    /// <summary>Most bytes of an answer: etcd takes no request beyond 1.5 MiB, and base64 makes a third more of it.</summary>
    public const int MaximumReplyBytes = 8 << 20;

    private const int MaximumErrorBytes = 16 << 10;
    private const int ShownCharacters = 200;

    private static readonly MediaTypeHeaderValue Json = new("application/json");

    private readonly EtcdTimeouts _timeouts;
    private readonly HttpMessageInvoker _http;

    /// <exception cref="EtcdException">A file of the address cannot be used.</exception>
    public EtcdTransport(EtcdAddress address, EtcdTimeouts timeouts)
    {
        _timeouts = timeouts;
        SocketsHttpHandler handler = new()
        {
            ConnectTimeout = timeouts.Connect,
            PooledConnectionLifetime = TimeSpan.FromMinutes(5), // a host's address may change
            UseProxy = false,
            UseCookies = false,
            AllowAutoRedirect = false,
            ActivityHeadersPropagator = null,
        };
        if (address.IsTls) handler.SslOptions = EtcdTls.Options(address);
        _http = new HttpMessageInvoker(handler);
    }

    /// <summary>A call with one answer.</summary>
    /// <exception cref="EtcdException">There was no good one.</exception>
    public async Task<TReply> CallAsync<TRequest, TReply>(Uri member, EtcdCall<TRequest, TReply> call, TRequest request, string? token,
        CancellationToken cancellation)
        where TReply : IEtcdReply
    {
        using CancellationTokenSource attempt = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        attempt.CancelAfter(_timeouts.Attempt);
        try
        {
            byte[] body = JsonSerializer.SerializeToUtf8Bytes(request, call.Request);
            using HttpResponseMessage response = await SendAsync(member, call.Path, body, token, attempt.Token).ConfigureAwait(false);
            byte[] bytes = await ReadAsync(member, response, MaximumReplyBytes, attempt.Token).ConfigureAwait(false);
            TReply reply = JsonSerializer.Deserialize(bytes, call.Reply) ?? throw NotEtcd(member, "answers null");
            Check(member, reply);
            return reply;
        }
        catch (Exception e) when (Translate(member, e, cancellation) is { } failure)
        {
            throw failure;
        }
    }

    /// <summary>A watch of a key; it is established when this returns.</summary>
    /// <exception cref="EtcdException">It is not.</exception>
    public async Task<EtcdWatch> WatchAsync(Uri member, WatchRequest request, string? token, CancellationToken cancellation)
    {
        using CancellationTokenSource attempt = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        attempt.CancelAfter(_timeouts.Attempt);
        HttpResponseMessage? response = null;
        try
        {
            byte[] body = JsonSerializer.SerializeToUtf8Bytes(request, EtcdJson.Default.WatchRequest);
            response = await SendAsync(member, EtcdCalls.Watch, body, token, attempt.Token).ConfigureAwait(false);
            Stream stream = await response.Content.ReadAsStreamAsync(attempt.Token).ConfigureAwait(false);
            EtcdWatch watch = new(member, request.CreateRequest.Key, response, stream);
            await watch.OpenAsync(attempt.Token).ConfigureAwait(false);
            response = null;
            return watch;
        }
        catch (Exception e) when (Translate(member, e, cancellation) is { } failure)
        {
            throw failure;
        }
        finally
        {
            response?.Dispose();
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _http.Dispose();

    /// <summary>Something answers that is not etcd.</summary>
    internal static EtcdException NotEtcd(Uri member, string what) => new(StoreFailure.NotAStore,
        $"etcd at {member.GetLeftPart(UriPartial.Authority)}: something else than etcd 3.4 or newer answers there: it {what}", mayHaveRun: true);

    /// <summary>What etcd itself says of a request that it does not carry out.</summary>
    internal static EtcdException Answered(Uri member, GrpcCode code, string text)
    {
        // These say that this member cannot do it now; whether the request is still under way among the members, nobody knows. The
        // others say that it was not carried out.
        bool isPassing = code is GrpcCode.Canceled or GrpcCode.Unknown or GrpcCode.DeadlineExceeded or GrpcCode.Aborted or GrpcCode.Internal
            or GrpcCode.Unavailable || (code == GrpcCode.ResourceExhausted && text.Contains("too many requests", StringComparison.Ordinal));
        return new EtcdException(isPassing ? StoreFailure.Unreachable : StoreFailure.Refused,
            $"etcd at {member.GetLeftPart(UriPartial.Authority)} answers: {Printable(text)}", mayHaveRun: isPassing, code);
    }

    /// <summary>The connection did not hold.</summary>
    internal static EtcdException Broken(Uri member, string why) => new(StoreFailure.Unreachable,
        $"etcd at {member.GetLeftPart(UriPartial.Authority)}: {why}", mayHaveRun: true);

    /// <summary>What a failed exchange means; null if the caller itself ended it.</summary>
    internal static EtcdException? Translate(Uri member, Exception e, CancellationToken cancellation)
    {
        return e switch
        {
            EtcdException known => known,
            OperationCanceledException when cancellation.IsCancellationRequested => null,
            OperationCanceledException => Broken(member, "no answer in time"),
            JsonException => NotEtcd(member, $"answers what makes no sense ({Printable(e.Message)})"),
            HttpRequestException { HttpRequestError: HttpRequestError.SecureConnectionError }
                when e.GetBaseException() is AuthenticationException refused =>
                new EtcdException(StoreFailure.NotAStore, $"etcd at {member.GetLeftPart(UriPartial.Authority)}: {refused.Message} "
                    + "(ca=PATH names the authority of its certificate; a server without TLS is written etcd://)"),
            HttpRequestException { HttpRequestError: HttpRequestError.SecureConnectionError } => new EtcdException(StoreFailure.Unreachable,
                $"etcd at {member.GetLeftPart(UriPartial.Authority)}: {e.GetBaseException().Message} (a server without TLS is written etcd://)"),
            HttpRequestException { HttpRequestError: HttpRequestError.NameResolutionError or HttpRequestError.ConnectionError } =>
                new EtcdException(StoreFailure.Unreachable, $"etcd at {member.GetLeftPart(UriPartial.Authority)}: {e.GetBaseException().Message}"),
            HttpRequestException { HttpRequestError: HttpRequestError.InvalidResponse or HttpRequestError.ConfigurationLimitExceeded } =>
                NotEtcd(member, $"speaks no HTTP ({Printable(e.GetBaseException().Message)}); with TLS, write etcds://"),
            // What a TLS server does with a request in clear text; also what a server does that is just killed.
            HttpRequestException { HttpRequestError: HttpRequestError.ResponseEnded } when member.Scheme == Uri.UriSchemeHttp =>
                Broken(member, $"{e.GetBaseException().Message} (a server with TLS is written etcds://)"),
            HttpRequestException or IOException => Broken(member, e.GetBaseException().Message),
            _ => null,
        };
    }

    private async Task<HttpResponseMessage> SendAsync(Uri member, string path, byte[] body, string? token, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(HttpMethod.Post, new Uri(member, path)) { Content = new ByteArrayContent(body) };
        request.Content.Headers.ContentType = Json;
        // Not "Bearer": etcd wants the token as it is.
        if (token is not null) _ = request.Headers.TryAddWithoutValidation("Authorization", token);
        HttpResponseMessage response = await _http.SendAsync(request, cancellation).ConfigureAwait(false);
        if (response.StatusCode == HttpStatusCode.OK) return response;
        using (response)
        {
            byte[] bytes = await ReadAsync(member, response, MaximumErrorBytes, cancellation).ConfigureAwait(false);
            throw ReadError(member, response.StatusCode, bytes);
        }
    }

    private static EtcdException ReadError(Uri member, HttpStatusCode status, byte[] bytes)
    {
        try
        {
            EtcdError? error = JsonSerializer.Deserialize(bytes, EtcdJson.Default.EtcdError);
            if (error is { Code: > 0, Message: not null }) return Answered(member, (GrpcCode)error.Code, error.Message);
            if (error?.Error.ValueKind == JsonValueKind.Object
                && error.Error.Deserialize(EtcdJson.Default.EtcdStreamError) is { GrpcCode: > 0 } inner)
                return Answered(member, (GrpcCode)inner.GrpcCode, inner.Message ?? "");
        }
        catch (JsonException)
        {
            // Said below, with what it is.
        }
        string text = Printable(Encoding.UTF8.GetString(bytes));
        string advice = text.Contains("HTTPS server", StringComparison.Ordinal) ? "; with TLS, write etcds://" : "";
        return NotEtcd(member, $"answers with status {(int)status}, '{text}'{advice}");
    }

    private static void Check<TReply>(Uri member, TReply reply)
        where TReply : IEtcdReply
    {
        if (reply.Error is { } error) throw Answered(member, (GrpcCode)error.GrpcCode, error.Message ?? "");
        if (reply.Header is not { ClusterId: not 0 }) throw NotEtcd(member, "answers without etcd's header");
    }

    private static async Task<byte[]> ReadAsync(Uri member, HttpResponseMessage response, int maximumBytes, CancellationToken cancellation)
    {
        Stream stream = await response.Content.ReadAsStreamAsync(cancellation).ConfigureAwait(false);
        await using (stream.ConfigureAwait(false))
        {
            using MemoryStream all = new();
            byte[] some = new byte[16 << 10];
            while (true)
            {
                int got = await stream.ReadAsync(some, cancellation).ConfigureAwait(false);
                if (got == 0) return all.ToArray();
                if (all.Length + got > maximumBytes) throw NotEtcd(member, $"answers with more than {maximumBytes} bytes");
                all.Write(some, 0, got);
            }
        }
    }

    /// <summary>Foreign text for a log or a terminal: short, and without control characters.</summary>
    private static string Printable(string text)
    {
        text = text.Trim();
        string shown = text.Length > ShownCharacters ? text[..ShownCharacters] + "..." : text;
        return string.Concat(shown.Select(c => char.IsControl(c) ? ' ' : c));
    }
}
