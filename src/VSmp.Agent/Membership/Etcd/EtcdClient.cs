// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Membership.Etcd;

/// <summary>
/// etcd, version 3.4 or newer, over its JSON gateway. Each call goes to the member that answered last, then to the others in turn, and
/// round again until one answers or the call's time is over: so <em>every</em> call may be carried out more than once, and is to be such
/// that this does no harm. For any thread.
/// </summary>
internal sealed class EtcdClient : IDisposable
{
    private const int FirstPauseMilliseconds = 50, LongestPauseMilliseconds = 1000;

    private readonly EtcdAddress _address;
    private readonly EtcdTimeouts _timeouts;
    private readonly EtcdTransport _transport;
    private readonly SemaphoreSlim _authenticating = new(1, 1);
    // Shared by all calls, each written as a whole.
    private volatile string? _token;
    private volatile int _member; // index of the one that answered last
    private ulong _clusterId;
    private volatile string? _problem;
    private long _revision; // the highest that etcd's majority has confirmed

    /// <param name="address">Where etcd is.</param>
    /// <param name="timeouts">How long it is waited for.</param>
    /// <exception cref="EtcdException">A file that the address names cannot be used.</exception>
    public EtcdClient(EtcdAddress address, EtcdTimeouts timeouts)
    {
        _address = address;
        _timeouts = timeouts;
        if (address.User is not null) _ = address.ReadPassword(); // what is wrong with it is said now
        _transport = new EtcdTransport(address, timeouts);
    }

    /// <summary>How long etcd is waited for.</summary>
    public EtcdTimeouts Timeouts => _timeouts;

    /// <summary>Why no member gives a good answer; null if the last that was asked did.</summary>
    public string? Problem => _problem;

    /// <summary>Carries out a call.</summary>
    /// <exception cref="EtcdException">It was refused, or there was no answer in time.</exception>
    public async Task<EtcdAnswer<TReply>> CallAsync<TRequest, TReply>(EtcdCall<TRequest, TReply> call, TRequest request,
        CancellationToken cancellation)
        where TReply : IEtcdReply
    {
        return await AskMembersAsync(
            async (member, token, cancel) =>
            {
                TReply reply = await _transport.CallAsync(member, call, request, token, cancel).ConfigureAwait(false);
                CheckCluster(member, reply.Header!);
                return reply;
            }, cancellation).ConfigureAwait(false);
    }

    /// <summary>Reads keys, or changes them on a condition, as etcd's majority sees them.</summary>
    /// <exception cref="EtcdException">Also if etcd knows less than it has confirmed before.</exception>
    public async Task<EtcdAnswer<TReply>> CallMajorityAsync<TRequest, TReply>(EtcdCall<TRequest, TReply> call, TRequest request,
        CancellationToken cancellation)
        where TReply : IEtcdReply
    {
        // What was confirmed before the call began must show in its answer.
        long least = Volatile.Read(ref _revision);
        EtcdAnswer<TReply> answer = await CallAsync(call, request, cancellation).ConfigureAwait(false);
        long revision = answer.Reply.Header!.Revision;
        if (revision < least) throw WentBack(revision, least);
        long known = Volatile.Read(ref _revision);
        while (known < revision)
        {
            long seen = Interlocked.CompareExchange(ref _revision, revision, known);
            if (seen == known) break;
            known = seen;
        }
        return answer;
    }

    /// <summary>Watches a key, from a revision on (that one included).</summary>
    /// <exception cref="EtcdException">It was refused, or there was no answer in time.</exception>
    public async Task<EtcdWatch> WatchAsync(byte[] key, long fromRevision, CancellationToken cancellation)
    {
        WatchRequest request = new() { CreateRequest = new WatchCreate { Key = key, StartRevision = fromRevision } };
        return (await AskMembersAsync((member, token, cancel) => _transport.WatchAsync(member, request, token, cancel), cancellation)
            .ConfigureAwait(false)).Reply;
    }

    /// <summary>Begins with another member next time: this one is not what it should be.</summary>
    public void Avoid(Uri member)
    {
        int at = _member;
        if (_address.Endpoints[at] == member) _member = (at + 1) % _address.Endpoints.Count;
    }

    /// <summary>etcd, as the user wrote it.</summary>
    public override string ToString() => _address.ToString();

    /// <inheritdoc/>
    public void Dispose()
    {
        _transport.Dispose();
        _authenticating.Dispose();
    }

    /// <summary>etcd knows less than it has confirmed.</summary>
    internal EtcdException WentBack(long revision, long least) => new(StoreFailure.WentBack,
        $"{_address} is at revision {revision}, but has already confirmed {least}: it was emptied or restored from a backup, so it does not "
        + "know what the cluster agreed on; stop all agents of the cluster, then start them anew");

    private async Task<EtcdAnswer<T>> AskMembersAsync<T>(Func<Uri, string?, CancellationToken, Task<T>> ask, CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(_timeouts.Call);
        IReadOnlyList<Uri> members = _address.Endpoints;
        var failures = new EtcdException?[members.Count];
        bool mayHaveRun = false;
        int pause = FirstPauseMilliseconds;
        while (true)
        {
            int first = _member;
            bool isHopeful = false;
            for (int i = 0; i < members.Count; i++)
            {
                int at = (first + i) % members.Count;
                try
                {
                    T reply = await AskAsync(members[at], ask, deadline.Token).ConfigureAwait(false);
                    _member = at;
                    _problem = null;
                    return new EtcdAnswer<T>(reply, mayHaveRun);
                }
                catch (EtcdException e) when (e.Failure is StoreFailure.Unreachable or StoreFailure.NotAStore)
                {
                    failures[at] = e;
                    mayHaveRun |= e.MayHaveRun;
                    isHopeful |= e.Failure == StoreFailure.Unreachable;
                }
                catch (EtcdException e) when (mayHaveRun)
                {
                    throw new EtcdException(e.Failure, e.Message, mayHaveRun: true, e.Code);
                }
                catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
                {
                    failures[at] ??= EtcdTransport.Broken(members[at], "no answer in time");
                    EtcdException late = NoAnswer(failures, mayHaveRun: true);
                    _problem = late.Message;
                    throw late;
                }
            }
            EtcdException noAnswer = NoAnswer(failures, mayHaveRun);
            _problem = noAnswer.Message;
            if (!isHopeful) throw noAnswer;
            try
            {
                await Task.Delay(pause, deadline.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
                throw noAnswer;
            }
            pause = Math.Min(pause * 2, LongestPauseMilliseconds);
        }
    }

    private static EtcdException NoAnswer(EtcdException?[] failures, bool mayHaveRun) => new(
        failures.All(f => f is null or { Failure: StoreFailure.NotAStore }) ? StoreFailure.NotAStore : StoreFailure.Unreachable,
        string.Join("; ", failures.Where(f => f is not null).Select(f => f!.Message)), mayHaveRun);

    /// <summary>Asks one member; with a new token if that is what it wants.</summary>
    private async Task<T> AskAsync<T>(Uri member, Func<Uri, string?, CancellationToken, Task<T>> ask, CancellationToken cancellation)
    {
        string? token = _address.User is null ? null : _token ?? await AuthenticateAsync(member, null, cancellation).ConfigureAwait(false);
        try
        {
            return await ask(member, token, cancellation).ConfigureAwait(false);
        }
        catch (EtcdException e) when (e.AsksForToken && token is null)
        {
            throw new EtcdException(StoreFailure.Refused,
                $"{e.Message}: it wants a user and a password, ?user=NAME&password-file=PATH behind its address", mayHaveRun: false, e.Code);
        }
        catch (EtcdException e) when (token is not null && (e.AsksForToken || e.Code == GrpcCode.PermissionDenied))
        {
            // Some versions call a watch with an old token a lack of permission.
            token = await AuthenticateAsync(member, token, cancellation).ConfigureAwait(false);
            return await ask(member, token, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>A token other than the given one. Checking a password is made expensive, so calls that need one share it.</summary>
    private async Task<string> AuthenticateAsync(Uri member, string? outdated, CancellationToken cancellation)
    {
        await _authenticating.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (_token is { } known && known != outdated) return known;
            AuthenticateRequest request = new() { Name = _address.User!, Password = _address.ReadPassword() };
            AuthenticateReply reply = await _transport.CallAsync(member, EtcdCalls.Authenticate, request, null, cancellation)
                .ConfigureAwait(false);
            CheckCluster(member, reply.Header!);
            // It becomes a header of requests.
            if (reply.Token is not { Length: > 0 and < 4096 } token || token.Any(c => c is <= ' ' or > '~'))
                throw EtcdTransport.NotEtcd(member, "gives no token for the password");
            return _token = token;
        }
        catch (EtcdException e) when (e.Code == GrpcCode.InvalidArgument)
        {
            throw new EtcdException(StoreFailure.Refused, $"{e.Message} (user {_address.User}, password from {_address.PasswordFile})",
                mayHaveRun: false, e.Code);
        }
        catch (EtcdException e) when (e.Code == GrpcCode.FailedPrecondition)
        {
            throw new EtcdException(StoreFailure.Refused,
                $"{e.Message}: leave out user= and password-file=, or switch authentication on in etcd", mayHaveRun: false, e.Code);
        }
        finally
        {
            _ = _authenticating.Release();
        }
    }

    /// <summary>All members belong to one etcd cluster: two would agree on two different things.</summary>
    private void CheckCluster(Uri member, EtcdHeader header)
    {
        ulong known = Interlocked.CompareExchange(ref _clusterId, header.ClusterId, 0);
        if (known != 0 && known != header.ClusterId)
            throw new EtcdException(StoreFailure.Refused,
                $"etcd at {member.GetLeftPart(UriPartial.Authority)} belongs to another cluster of etcd ({header.ClusterId:x}) than the one "
                + $"that answered before ({known:x}): correct the address {_address}", mayHaveRun: true);
    }
}

/// <summary>An answer of etcd.</summary>
/// <param name="Reply">What it says.</param>
/// <param name="MayHaveRunBefore">The request was sent before as well, with an outcome that is not known.</param>
internal readonly record struct EtcdAnswer<TReply>(TReply Reply, bool MayHaveRunBefore);
