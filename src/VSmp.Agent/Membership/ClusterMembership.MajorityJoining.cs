// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Security.Cryptography;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership;

/// <content>Founding and joining a cluster whose record is in a store of its own: the record says which, and where its members are.</content>
internal sealed partial class ClusterMembership
{
    /// <summary>Members that are asked at a time: one that stands still must not hold up a newcomer.</summary>
    private const int MembersAskedAtOnce = 3;

    /// <summary>Behind the member that a newcomer wants to be: that it takes part in a majority, and none decides for it.</summary>
    private const byte ByMajority = 1;

    /// <summary>
    /// How long a newcomer tries: more than the presence of a cluster that was killed as a whole takes to run out, also if etcd has a new leader meanwhile.
    /// </summary>
    private static readonly TimeSpan MajorityPatience = TimeSpan.FromSeconds(45);

    /// <summary>
    /// Becomes a member of the cluster that the store has a record of, or founds it if there is none; a record of which no member answers or is announced
    /// any more is replaced. Returns when all others know this node, and it has a lease. From any thread but the reactor's, which must run.
    /// </summary>
    /// <param name="store">The store; this disposes of it.</param>
    /// <param name="storeText">What people call it.</param>
    /// <param name="name">This node's name.</param>
    /// <param name="address">Where others reach it, never a wildcard.</param>
    /// <param name="contributedBytes">Memory that it gives to the pool.</param>
    /// <param name="presence">For how long the node seems to be there when it is not.</param>
    /// <exception cref="MembershipException">It did not work; the message says why.</exception>
    /// <exception cref="ViewStoreException">The store does not do its part.</exception>
    public async Task FoundOrJoinAsync(IViewStore store, string storeText, string name, IPEndPoint address, ulong contributedBytes, TimeSpan presence)
    {
        var etcd = new EtcdRecord(store, _reactor, this, _log);
        try
        {
            CheckName(name);
            if (IsWildcard(address.Address))
                throw new ArgumentException($"a node cannot tell others to reach it at {address}: listen on the address that they shall use");
            _ = await _reactor.Ask(() =>
            {
                (_decidedBy, _etcd, _storeText) = (DecidedBy.Majority, etcd, storeText);
                return true;
            }).ConfigureAwait(false);
            await new Newcomer(this, store, etcd, new Member(NodeId.None, name, address, contributedBytes), presence).EnterAsync().ConfigureAwait(false);
        }
        catch
        {
            await etcd.CloseAsync(0).ConfigureAwait(false); // so that nobody waits for this node
            throw;
        }
    }

    /// <summary>A node on its way into a cluster. On any thread.</summary>
    private sealed class Newcomer(ClusterMembership membership, IViewStore store, EtcdRecord etcd, Member wish, TimeSpan presence)
    {
        private readonly byte[] _request = [.. WriteMember(wish), ByMajority];
        private readonly long _started = Stopwatch.GetTimestamp();
        private Epoch _epoch; // of the record that was seen last
        private int _firstFree; // numbers from there on were not given yet when the record of this epoch was seen first
        private int _round;
        private bool _hasSaidThatItWaits;

        public async Task EnterAsync()
        {
            while (true)
            {
                StoredRecord? record = await store.ReadAsync(CancellationToken.None).ConfigureAwait(false);
                MembershipView? view = record is null ? null : ReadRecord(record);
                bool isIn = view is null ? await TryFoundAsync(null, 0).ConfigureAwait(false) : await TryJoinAsync(record!.Revision, view).ConfigureAwait(false);
                if (isIn) return;
                await Task.Delay(AskAgainMilliseconds).ConfigureAwait(false);
            }
        }

        private bool IsPatient => Stopwatch.GetElapsedTime(_started) < MajorityPatience;

        private static MembershipView ReadRecord(StoredRecord record) => ViewRecord.Read(record.Value.Span)
            ?? throw new MembershipException(HandshakeStatus.NotVSmp, "what etcd has in the place of the cluster's record is none; docs/etcd.md says which keys to look at");

        /// <summary>Puts a first view in place of what is there, if that is still the same.</summary>
        /// <param name="old">The view of a cluster that is no more; null: there is none.</param>
        /// <param name="revision">Its revision, or 0.</param>
        private async Task<bool> TryFoundAsync(MembershipView? old, long revision)
        {
            Epoch epoch;
            do epoch = new Epoch(BinaryPrimitives.ReadUInt32LittleEndian(RandomNumberGenerator.GetBytes(4)) | 1);
            while (epoch == old?.Epoch);
            MembershipView view = MembershipView.Found(epoch, wish.Name, wish.Address, wish.ContributedBytes);
            // First: who finds the record is to find its member alive.
            IPresence announced = await store.AnnounceAsync(wish.Name, EtcdRecord.PresenceIn(epoch), presence, CancellationToken.None).ConfigureAwait(false);
            SwapResult swap;
            try
            {
                swap = await store.TryReplaceAsync(revision, ViewRecord.Write(view), CancellationToken.None).ConfigureAwait(false);
            }
            catch
            {
                await announced.DisposeAsync().ConfigureAwait(false);
                throw;
            }
            if (!swap.IsDone)
            {
                await announced.DisposeAsync().ConfigureAwait(false);
                return false;
            }
            etcd.Announced(announced);
            membership._log(old is null
                ? $"membership: {wish.Name} has founded the cluster"
                : $"membership: {wish.Name} has founded the cluster anew: etcd had the record of one (view {old.Number.Value}, with {NamesOf(old)}) of which no member answers, and none has been announced in etcd for some time");
            await membership.EnterAsync(swap.Revision, view, MembershipView.Coordinator).ConfigureAwait(false);
            return true;
        }

        private async Task<bool> TryJoinAsync(long revision, MembershipView view)
        {
            if (view.Epoch != _epoch) (_epoch, _firstFree) = (view.Epoch, view.NextId);
            // Admitted by an answer that was lost; a member of that name and address that was there before is another.
            if (view.Find(wish.Name) is { Incarnation: 0 } self && self.Id.Value >= _firstFree && self.Address.Equals(wish.Address))
            {
                await JoinedAsync(revision, view, self.Id).ConfigureAwait(false);
                return true;
            }
            (HandshakeResult? admission, HandshakeResult? refusal, bool isAlive) = await AskMembersAsync(view).ConfigureAwait(false);
            if (admission is not null)
            {
                if (ReadAdmission(admission.Body) is not var (newRevision, id, newView)) throw Refused(HandshakeStatus.NotVSmp, "its answer makes no sense");
                await JoinedAsync(newRevision, newView, id).ConfigureAwait(false);
                return true;
            }
            if (!isAlive)
            {
                IReadOnlyList<string> present = await store.PresentAsync(EtcdRecord.PresenceIn(view.Epoch), CancellationToken.None).ConfigureAwait(false);
                if (present.Count == 0) return await TryFoundAsync(view, revision).ConfigureAwait(false);
                if (refusal is not null) throw Refused(refusal.Status, refusal.Text);
                if (!IsPatient)
                {
                    throw Refused(HandshakeStatus.Unreachable,
                        $"etcd has {string.Join(", ", present)} as present, but no member can be reached at its address ({string.Join(", ", view.Members.Select(m => $"{m.Name} {m.Address}"))})");
                }
                SayThatItWaits($"no member of view {view.Number.Value} answers; etcd still has the announcements of {string.Join(", ", present)}, which run out {presence.TotalSeconds:0} s after their end");
            }
            else if (!IsPatient)
            {
                throw Refused(refusal?.Status ?? HandshakeStatus.TimedOut, refusal?.Text ?? "its members cannot admit anybody: is a majority of them there, and etcd?");
            }
            return false;
        }

        /// <summary>Any member can propose this node; some are asked at a time, and the first good answer is taken.</summary>
        /// <returns>The admission; or why it was refused; and whether any of those that were asked is a member, and alive.</returns>
        private async Task<(HandshakeResult? Admission, HandshakeResult? Refusal, bool IsAlive)> AskMembersAsync(MembershipView view)
        {
            Member? namesake = view.Find(wish.Name);
            Member[] members = [.. view.Members.Where(m => !m.Address.Equals(wish.Address))];
            int first = members.Length == 0 ? 0 : _round++ * MembersAskedAtOnce % members.Length;
            var asked = members.Skip(first).Concat(members.Take(first)).Take(MembersAskedAtOnce).ToHashSet();
            if (namesake is not null && members.Contains(namesake)) asked.Add(namesake);
            List<Task<(Member Member, HandshakeResult Result)>> asking = [.. asked.Select(AskAsync)];
            HandshakeResult? refusal = null;
            bool isAlive = false;
            while (asking.Count > 0)
            {
                Task<(Member, HandshakeResult)> answered = await Task.WhenAny(asking).ConfigureAwait(false);
                asking.Remove(answered);
                (Member member, HandshakeResult result) = await answered.ConfigureAwait(false);
                switch (result.Status)
                {
                    case HandshakeStatus.Ok:
                        return (result, null, true);
                    case HandshakeStatus.NameTaken when member == namesake:
                        throw Refused(result.Status, result.Text);
                    case HandshakeStatus.NameTaken:
                        isAlive = true;
                        refusal = result;
                        SayThatItWaits($"{wish.Name} is a member: if that is an agent that was killed, the others exclude it soon");
                        break;
                    case HandshakeStatus.Full or HandshakeStatus.BadRequest:
                        throw Refused(result.Status, result.Text);
                    case HandshakeStatus.OtherVersion or HandshakeStatus.OtherCluster or HandshakeStatus.WrongSecret or HandshakeStatus.OtherTransport
                        or HandshakeStatus.OtherMembership:
                        refusal ??= result; // perhaps no member any more, but who has its address now
                        break;
                    case HandshakeStatus.TimedOut when result.IsAnAgent:
                        isAlive = true;
                        break;
                }
            }
            return (null, refusal, isAlive);
        }

        private async Task<(Member Member, HandshakeResult Result)> AskAsync(Member member) =>
            (member, await membership.AskToJoinAsync(member.Address, _request).ConfigureAwait(false));

        private async Task JoinedAsync(long revision, MembershipView view, NodeId self)
        {
            etcd.Announce(wish.Name, view.Epoch, presence);
            await membership.EnterAsync(revision, view, self).ConfigureAwait(false);
        }

        private void SayThatItWaits(string why)
        {
            if (_hasSaidThatItWaits) return;
            _hasSaidThatItWaits = true;
            membership._log($"membership: waiting to join: {why}");
        }

        private MembershipException Refused(HandshakeStatus status, string why) => new(status, $"cannot join the cluster of {membership._storeText}: {why}");

        private static string NamesOf(MembershipView view) => string.Join(", ", view.Members.Select(m => m.Name));
    }
}
