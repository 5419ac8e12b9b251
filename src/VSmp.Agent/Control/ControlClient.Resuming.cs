// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Control;

/// <summary>Going on with a program's run, or with a job, when its agent was killed and is started again.</summary>
internal sealed partial class ControlClient
{
    /// <summary>How long a command waits for an agent that is being started.</summary>
    private const int StartMilliseconds = 2_000;

    /// <summary>How long a run waits for it: what the node has is adopted before the agent listens.</summary>
    private const int ResumeMilliseconds = 60_000;

    private const int RetryMilliseconds = 20;

    private volatile ControlRequest? _resume; // goes on with the run, or the job, which outlives its agent
    private volatile bool _isEndAsked; // of an agent that was there
    private volatile bool _hasEnded; // and that one has ended it
    private volatile bool _isGivenUp;

    /// <summary>Whether the run, or the job, goes on if the agent is gone: as long as there is somebody who starts it again.</summary>
    private bool MayResume => _resume is not null && _keeper is { IsAlive: true } && !_isGivenUp;

    /// <summary>As <see cref="Call"/>, of the agent that is there; again, of the next one, if that is killed meanwhile.</summary>
    private ControlReply Repeat(ControlRequest request)
    {
        ControlLink link = _link;
        while (true)
        {
            bool isBroken = link.Broken.IsCompleted;
            if (!isBroken && request.Operation is ControlOperation.EndRun or ControlOperation.EndJob) _isEndAsked = true;
            if (!isBroken && TryCall(link, request, CallTimeout) is { } reply) return reply;
            // The reader waits no longer than that for another agent; one that is there, and does not answer, could keep it for ever.
            if (!link.Next.Wait(TimeSpan.FromMilliseconds(ResumeMilliseconds) + CallTimeout)) throw Slow();
            link = link.Next.Result ?? throw (link.Refusal is { Error: { } error } refusal
                ? new CommandException(refusal.ExitCode ?? ExitCodes.Failed, error)
                : new CommandException(ExitCodes.NoAgent, $"agent {_folder.Name} closed the connection"));
        }
    }

    /// <summary>The connection has broken: waits for the agent to be back. On the reading thread.</summary>
    /// <returns>A connection on which the run goes on; null: it does not.</returns>
    private ControlLink? Resume(ControlLink broken)
    {
        if (_listener is null || !MayResume) return null;
        var away = Stopwatch.StartNew();
        while (!_isDisposed)
        {
            if (TryResume(broken) is { } link)
            {
                _listener.OnResumed(away.Elapsed);
                return link;
            }
            if (!MayResume || away.ElapsedMilliseconds >= ResumeMilliseconds) break;
            Thread.Sleep(RetryMilliseconds);
        }
        _isGivenUp = true;
        return null;
    }

    private ControlLink? TryResume(ControlLink broken)
    {
        ControlLink link;
        try { link = new ControlLink(UnixSocket.Connect(_folder.ControlSocket, UnixSocketType.Stream), agent: null); }
        catch (IOException) { return null; } // nobody listens yet, or not yet for us
        if (!Exchange(broken, link)) return null;
        int id = Interlocked.Increment(ref _lastId);
        Task<ControlReply> answer = link.Expect(id);
        _listener!.OnResuming();
        link.Send(_resume! with { Id = id });
        while (!answer.IsCompleted && link.Receive(OnLine)) { }
        link.Forget(id);
        if (answer is { IsCompletedSuccessfully: true, Result.Error: null })
        {
            link.Agent = _folder.Running();
            _link = link;
            return link;
        }
        if (answer.IsCompletedSuccessfully)
        {
            // An agent is there, and this is none of its.
            _hasEnded = _isEndAsked && answer.Result.Found == false;
            _isGivenUp = true;
        }
        _ = Exchange(link, broken);
        link.Break(); // killed again, or it has too many connections for now
        link.Dispose();
        return null;
    }

    /// <summary>Reads from another connection; false, and that one is closed: there is to be no more reading.</summary>
    private bool Exchange(ControlLink from, ControlLink to)
    {
        lock (_lock)
        {
            Debug.Assert(_reading == from);
            if (!_isDisposed)
            {
                _reading = to;
                return true;
            }
        }
        if (to != _link) to.Dispose();
        return false;
    }
}
