// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

// What there is more to worlds in which checkpoints are taken.
internal sealed partial class WorldCodec
{
    private const byte IsCutZero = 1, IsWritten = 2, IsPriorCut = 4;
    private const int IsDone = 8;

    private readonly bool[] _isNeverGranted; // by page, in a world that was loaded

    private void WriteCheckpoint(ReadOnlySpan<byte> old)
    {
        Put((byte)(_world.CheckpointsBegun | _world.GiveUpsDone << 3));
        Put((byte)(_world.Led?.Step ?? 0));
        for (int page = 0; page < _world.Scenario.Pages; page++)
        {
            // When no more checkpoints are taken, what is in those that were does not matter.
            Put((byte)((byte)ContentsOf(_world.Captured[page], page) | (_world.MayBeTaken ? (byte)ContentsOf(_world.Composed[page], page) : 0) << 4));
            Put((byte)((_world.CutIsZero[page] ? IsCutZero : 0) | (_world.IsWrittenSinceCut[page] ? IsWritten : 0) | (_world.IsPriorCut[page] ? IsPriorCut : 0)));
        }
        foreach (byte node in old)
        {
            CheckpointMember? member = _world.Members[node];
            Put(member is null ? (byte)0 : (byte)((byte)member.Step | (member.IsDone ? IsDone : 0)));
            if (_isOrdered) Put((byte)(member?.Generations[0].Value ?? 0));
            RegionCapture capture = _world.Regions[node].Capture!;
            int bits = 0;
            for (int page = 0; page < _world.Scenario.Pages; page++)
            {
                PageNumber at = new((ulong)page);
                bits |= ((capture.IsPending(at) ? 1 : 0) | (capture.IsSaved(at) ? 2 : 0)) << (2 * page);
            }
            Put((byte)bits);
        }
    }

    /// <summary>Versions are only compared for equality, but for the first one: a page that has that, and is zero, no checkpoint copies.</summary>
    private bool IsNeverGranted(int page) => _world.Scenario.Checkpoints > 0 && _world.Regions[0].EntryAt(new PageNumber((ulong)page)).Version.Value == 0;

    private void LoadCheckpoint()
    {
        byte counts = Byte();
        _world.CheckpointsBegun = counts & 7;
        _world.GiveUpsDone = counts >> 3;
        var step = (CheckpointStep)Byte();
        for (int page = 0; page < _world.Scenario.Pages; page++)
        {
            byte contents = Byte(), flags = Byte();
            _world.Captured[page] = (Contents)(contents & 15);
            _world.Composed[page] = (Contents)(contents >> 4);
            _world.CutIsZero[page] = (flags & IsCutZero) != 0;
            _world.IsWrittenSinceCut[page] = (flags & IsWritten) != 0;
            _world.IsPriorCut[page] = (flags & IsPriorCut) != 0;
        }
        int awaited = 0, all = 0;
        for (int node = 0; node < _world.Scenario.Nodes; node++)
        {
            byte state = Byte();
            Generation generation = new(_isOrdered ? Byte() : 0u);
            CheckpointMember? member = state == 0 ? null : _world.NewMember(node);
            member?.Restore((CheckpointStep)(state & (IsDone - 1)), state >= IsDone, generation);
            _world.Members[node] = member;
            _world.HoldAsMember(node);
            if (member is not null) all |= 1 << node;
            if (member is not null && (member.Step != step || !member.IsDone)) awaited |= 1 << node;
            byte bits = Byte();
            for (int page = 0; page < _world.Scenario.Pages; page++)
                _world.Regions[node].Capture!.Restore(new PageNumber((ulong)page), (bits >> (2 * page) & 1) != 0, (bits >> (2 * page) & 2) != 0);
        }
        // Who took part, and is lost, has no part in what can still become of it: that is to be given up.
        _world.Led = step == 0 ? null : new CheckpointLeader(World.NodesOf(all));
        _world.Led?.Restore(step, World.NodesOf(awaited));
    }
}
