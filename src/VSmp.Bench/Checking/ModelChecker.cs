// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Coherence;

namespace VSmp.Bench.Checking;

/// <summary>What a search found.</summary>
/// <param name="States">Different states.</param>
/// <param name="Moves">Transitions tried.</param>
/// <param name="Depth">Moves to the farthest state.</param>
/// <param name="Elapsed">Time taken.</param>
/// <param name="IsExhausted">Whether every state was searched; if not, the limit of states was reached.</param>
/// <param name="Violation">What is wrong, and the shortest way there; null if nothing is.</param>
internal sealed record CheckResult(int States, long Moves, int Depth, TimeSpan Elapsed, bool IsExhausted, Violation? Violation);

/// <summary>A broken invariant.</summary>
/// <param name="What">Which, in words.</param>
/// <param name="Path">The shortest sequence of moves that breaks it.</param>
internal sealed record Violation(string What, IReadOnlyList<Move> Path);

/// <summary>
/// Exhaustive breadth-first search: from the state in which nobody has touched anything, every move from every state, until no
/// state is new. The code that is searched is the code that ships.
/// </summary>
internal sealed class ModelChecker
{
    private const int BatchStates = 64;

    /// <summary>One state in so many is let run out, without new accesses, to see that everything ends.</summary>
    private const int RunOutOneIn = 64;

    /// <summary>Deliveries within which everything must have ended.</summary>
    private const int RunOutLimit = 2_000;

    private readonly Scenario _scenario;
    private readonly int _maxStates;
    private readonly StateSet _states;
    private readonly Lock _lock = new();
    private Frontier _current = new();
    private Frontier _next = new();
    private int _taken; // of the current frontier
    private long _moves;
    private (int Parent, Move[] Moves, string What)? _violation;

    private ModelChecker(Scenario scenario, StateSet states, int maxStates)
    {
        _scenario = scenario;
        _states = states;
        _maxStates = maxStates;
    }

    /// <summary>Searches.</summary>
    /// <param name="scenario">The bounds.</param>
    /// <param name="maxStates">Give up beyond so many states.</param>
    /// <param name="threads">Threads to search with.</param>
    /// <param name="progress">Told after each depth: depth, states so far, states still to be searched.</param>
    public static CheckResult Run(Scenario scenario, int maxStates = int.MaxValue, int threads = 1, Action<int, int, int>? progress = null) =>
        new ModelChecker(scenario, new StateSet(), maxStates).Search(threads, progress);

    /// <summary>Searches, and keeps what was seen: all states that so many moves lead to as the result says.</summary>
    public static CheckResult Run(Scenario scenario, StateSet states, int maxStates) =>
        new ModelChecker(scenario, states, maxStates).Search(1, null);

    private CheckResult Search(int threads, Action<int, int, int>? progress)
    {
        var watch = Stopwatch.StartNew();
        var codec = new WorldCodec(new World(_scenario));
        ReadOnlySpan<byte> start = codec.Save();
        (ulong low, ulong high) = StateSet.Hash(start);
        _current.Add(_states.TryAdd(low, high, -1, 0), start);
        int depth = 0;
        while (_current.Count > 0 && _violation is null && _states.Count < _maxStates)
        {
            _taken = 0;
            if (threads == 1 || _current.Count < BatchStates * 2)
            {
                new Worker(this).Run();
            }
            else
            {
                Task[] workers = [.. Enumerable.Range(0, threads).Select(_ => Task.Run(new Worker(this).Run))];
                Task.WaitAll(workers);
            }
            (_current, _next) = (_next, _current);
            _next.Clear();
            if (_current.Count > 0) depth++;
            progress?.Invoke(depth, _states.Count, _current.Count);
        }
        Violation? violation = _violation is { } v ? new Violation(v.What, [.. _states.PathTo(v.Parent), .. v.Moves]) : null;
        return new CheckResult(_states.Count, _moves, depth, watch.Elapsed, _current.Count == 0 && violation is null, violation);
    }

    /// <summary>Takes states off the current frontier and puts those that follow from them on the next.</summary>
    private sealed class Worker
    {
        private readonly ModelChecker _checker;
        private readonly World _world;
        private readonly WorldCodec _codec;
        private readonly List<Move> _possible = [];
        private readonly List<(int Parent, Move Move, ulong Low, ulong High, int At, int Length)> _found = [];
        private readonly byte[] _delivered = new byte[WorldCodec.MaxBytes]; // the state after the last delivery
        private readonly Right[] _mapped;
        private int _deliveredBytes;
        private byte[] _bytes = new byte[1 << 16];
        private int _used;
        private long _moves;

        public Worker(ModelChecker checker)
        {
            _checker = checker;
            _world = new World(checker._scenario);
            _codec = new WorldCodec(_world);
            _mapped = new Right[_world.Mapped.Length];
        }

        public void Run()
        {
            while (true)
            {
                int first, count;
                lock (_checker._lock)
                {
                    Flush();
                    if (_checker._violation is not null) return;
                    first = _checker._taken;
                    count = Math.Min(BatchStates, _checker._current.Count - first);
                    _checker._taken += count;
                }
                if (count <= 0) return;
                for (int i = first; i < first + count; i++) Expand(i);
            }
        }

        private void Expand(int at)
        {
            (int index, ReadOnlyMemory<byte> state) = _checker._current[at];
            _codec.Load(state.Span);
            _world.ListMoves(_possible);
            if (index % RunOutOneIn == 0) RunOut(index, state.Span);
            for (int i = 0; i < _possible.Count; i++)
            {
                Move move = _possible[i];
                _moves++;
                try
                {
                    _codec.Load(state.Span);
                    _world.Do(move);
                    if (move.Kind == MoveKind.DeliverRefused && IsCovered()) continue;
                    if (i + 1 < _possible.Count && _possible[i + 1].Kind == MoveKind.DeliverRefused) Remember();
                    int points = _world.Points;
                    Found(index, move, _codec.Save());
                    if (move.Kind != MoveKind.Restart) KillMeanwhile(index, state.Span, ref move, points);
                }
                catch (Exception e) when (e is InvariantException or ProtocolViolationException or InvalidOperationException)
                {
                    lock (_checker._lock) _checker._violation ??= (index, [move], e.Message);
                    return;
                }
            }
        }

        /// <summary>
        /// Whether the state after a refused delivery differs from that after the delivery only in mapping less. Then what
        /// follows from it follows, as bad or worse, from the other, and it need not be searched.
        /// </summary>
        /// <remarks>
        /// Nothing decides by what is mapped but the guests: who has more mapped can do all that who has less can. Where the
        /// agent copies a page that is mapped writable, a guest is made to write; that leaves every other copy old, and the
        /// frame, which is mapped and was therefore right, right: what is wrong without that write is wrong with it. Every
        /// invariant that breaks with less mapped breaks with more.
        /// </remarks>
        private bool IsCovered()
        {
            for (int i = 0; i < _mapped.Length; i++)
            {
                if (_world.Mapped[i] > _mapped[i]) return false;
            }
            return _codec.SaveAsIs(leavesOutRights: true).SequenceEqual(_delivered.AsSpan(0, _deliveredBytes));
        }

        private void Remember()
        {
            _world.Mapped.CopyTo(_mapped, 0);
            ReadOnlySpan<byte> state = _codec.SaveAsIs(leavesOutRights: true);
            state.CopyTo(_delivered);
            _deliveredBytes = state.Length;
        }

        /// <summary>Without new accesses, everything that is under way ends.</summary>
        private void RunOut(int index, ReadOnlySpan<byte> state)
        {
            var moves = new List<Move>();
            foreach (bool fromTheEnd in (ReadOnlySpan<bool>)[false, true])
            {
                _codec.Load(state);
                for (int steps = 0; ; steps++)
                {
                    _world.ListMoves(moves);
                    moves.RemoveAll(m => m.Kind is not (MoveKind.Deliver or MoveKind.Unhold or MoveKind.Learn
                        or MoveKind.CheckpointStep or MoveKind.CheckpointCopy or MoveKind.CheckpointCommit));
                    if (moves.Count == 0) break;
                    if (steps == RunOutLimit)
                    {
                        lock (_checker._lock)
                            _checker._violation ??= (index, [], $"from here messages follow messages: after {RunOutLimit} of them, without a new access, it has not come to an end");
                        return;
                    }
                    try { _world.Do(fromTheEnd ? moves[^1] : moves[0]); }
                    catch (Exception e) when (e is InvariantException or ProtocolViolationException or InvalidOperationException)
                    {
                        break; // the search comes by here as well, and by the shortest way
                    }
                }
            }
        }

        /// <summary>The same move, and its agent is killed on the way, wherever it can be.</summary>
        private void KillMeanwhile(int index, ReadOnlySpan<byte> state, ref Move move, int points)
        {
            for (int point = 1; point <= points; point++)
            {
                _codec.Load(state);
                if (_world.Restarts >= _world.Scenario.Restarts) return;
                move = move with { KillAt = checked((byte)point) };
                _moves++;
                _world.Do(move);
                Found(index, move, _codec.Save());
            }
        }

        private void Found(int parent, Move move, ReadOnlySpan<byte> state)
        {
            (ulong low, ulong high) = StateSet.Hash(state);
            if (_used + state.Length > _bytes.Length) Array.Resize(ref _bytes, _bytes.Length * 2);
            state.CopyTo(_bytes.AsSpan(_used));
            _found.Add((parent, move, low, high, _used, state.Length));
            _used += state.Length;
        }

        /// <summary>Under the lock.</summary>
        private void Flush()
        {
            foreach (var f in _found)
            {
                int index = _checker._states.TryAdd(f.Low, f.High, f.Parent, f.Move.Packed);
                if (index >= 0) _checker._next.Add(index, _bytes.AsSpan(f.At, f.Length));
            }
            _checker._moves += _moves;
            _moves = 0;
            _found.Clear();
            _used = 0;
        }
    }

    /// <summary>States of one depth, in full.</summary>
    private sealed class Frontier
    {
        private const int SlabBytes = 1 << 24;
        private readonly List<byte[]> _slabs = [];
        private readonly List<(int Index, int Slab, int At, int Length)> _items = [];
        private int _slab = -1;
        private int _used = SlabBytes;

        public int Count => _items.Count;

        public (int Index, ReadOnlyMemory<byte> State) this[int i]
        {
            get
            {
                var (index, slab, at, length) = _items[i];
                return (index, _slabs[slab].AsMemory(at, length));
            }
        }

        public void Add(int index, ReadOnlySpan<byte> state)
        {
            if (_used + state.Length > SlabBytes)
            {
                if (++_slab == _slabs.Count) _slabs.Add(new byte[SlabBytes]);
                _used = 0;
            }
            state.CopyTo(_slabs[_slab].AsSpan(_used));
            _items.Add((index, _slab, _used, state.Length));
            _used += state.Length;
        }

        public void Clear()
        {
            _items.Clear();
            _slab = -1;
            _used = SlabBytes;
        }
    }
}
