// SPDX-License-Identifier: Apache-2.0
using System.Text;

namespace VSmp.Bench.Litmus;

/// <summary>
/// What x86 promises, as an abstract machine that is searched exhaustively: x86-TSO (Sewell, Sarkar, Owens, Zappa Nardelli, Myreen,
/// CACM 2010). Each thread has a FIFO store buffer; a load takes the newest buffered store of its own thread to that place, else memory; a
/// buffered store reaches memory at any later time; MFENCE and locked instructions wait for an empty buffer, and a locked instruction
/// happens at once. An access that is not locked and spans two pages (or cache lines) is two accesses, in either order.
/// </summary>
public sealed class TsoModel
{
    private const byte LowHalf = 0x0f, HighHalf = 0xf0, Both = 0xff;
    private readonly LitmusTest _test;
    private readonly bool _isSequential;
    private readonly HashSet<string> _visited = [];
    private readonly HashSet<LitmusOutcome> _outcomes = [];

    private TsoModel(LitmusTest test, bool isSequential)
    {
        _test = test;
        _isSequential = isSequential;
    }

    /// <summary>Every outcome that x86-TSO allows.</summary>
    public static IReadOnlySet<LitmusOutcome> Allowed(LitmusTest test, LitmusLayout layout, LitmusKind kind)
    {
        ArgumentNullException.ThrowIfNull(test);
        TsoModel model = new(test, isSequential: false);
        bool isTorn = layout == LitmusLayout.Crossing && kind != LitmusKind.Rmw;
        foreach (Instruction[][] program in Programs(test, kind, isTorn)) model.Search(program);
        return model._outcomes;
    }

    /// <summary>Every outcome of interleaving the threads' accesses, with nothing torn and nothing buffered.</summary>
    public static IReadOnlySet<LitmusOutcome> SequentiallyConsistent(LitmusTest test)
    {
        ArgumentNullException.ThrowIfNull(test);
        TsoModel model = new(test, isSequential: true);
        foreach (Instruction[][] program in Programs(test, LitmusKind.Plain, isTorn: false)) model.Search(program);
        return model._outcomes;
    }

    /// <summary>Every outcome of running the threads one after the other, in any order: those that need no concurrency.</summary>
    public static IReadOnlySet<LitmusOutcome> Serial(LitmusTest test)
    {
        ArgumentNullException.ThrowIfNull(test);
        TsoModel model = new(test, isSequential: true);
        Instruction[][] program = Programs(test, LitmusKind.Plain, isTorn: false).Single();
        model.RunSerially(new State(program, test), 0);
        return model._outcomes;
    }

    private void RunSerially(State state, int ran)
    {
        if (ran == (1 << _test.Threads.Count) - 1)
        {
            _outcomes.Add(state.Outcome());
            return;
        }
        for (int thread = 0; thread < _test.Threads.Count; thread++)
        {
            if ((ran & (1 << thread)) != 0) continue;
            State next = state.Clone();
            while (!next.IsAtEnd(thread)) next.Execute(thread, _isSequential);
            RunSerially(next, ran | (1 << thread));
        }
    }

    private void Search(Instruction[][] program)
    {
        _visited.Clear();
        Stack<State> todo = new([new State(program, _test)]);
        while (todo.TryPop(out State? state))
        {
            if (!_visited.Add(state.Key())) continue;
            if (state.IsFinal())
            {
                _outcomes.Add(state.Outcome());
                continue;
            }
            for (int thread = 0; thread < program.Length; thread++)
            {
                if (state.CanExecute(thread))
                {
                    State next = state.Clone();
                    next.Execute(thread, _isSequential);
                    todo.Push(next);
                }
                if (state.HasBuffered(thread))
                {
                    State next = state.Clone();
                    next.Drain(thread);
                    todo.Push(next);
                }
            }
        }
    }

    // The programs of a test: one, or, where accesses are torn, one for each order of their halves.
    private static IEnumerable<Instruction[][]> Programs(LitmusTest test, LitmusKind kind, bool isTorn)
    {
        int register = 0;
        IEnumerable<IEnumerable<Instruction>>[] alternatives = new IEnumerable<IEnumerable<Instruction>>[test.Threads.Count];
        for (int thread = 0; thread < alternatives.Length; thread++)
        {
            IEnumerable<IEnumerable<Instruction>> prefixes = [[]];
            for (int i = 0; i < test.Threads[thread].Count; i++)
            {
                LitmusAccess access = test.Threads[thread][i];
                Instruction whole = Translate(access, kind, access.IsStore ? -1 : register++);
                Instruction[] fence = i > 0 && kind == LitmusKind.Mfence ? [new Instruction { Operation = Operation.Fence }] : [];
                Instruction low = whole with { Mask = LowHalf }, high = whole with { Mask = HighHalf };
                // A store that is locked is not torn, nor is a load in its company: see Allowed.
                bool isHalved = whole.Operation is Operation.Load or Operation.Store;
                Instruction[][] orders = isTorn && isHalved ? [[low, high], [high, low]] : [[whole]];
                prefixes = [.. prefixes.SelectMany(prefix => orders, (prefix, order) => prefix.Concat(fence).Concat(order).ToArray())];
            }
            alternatives[thread] = prefixes;
        }
        IEnumerable<Instruction[][]> programs = [[]];
        foreach (IEnumerable<IEnumerable<Instruction>> threads in alternatives)
        {
            programs = [.. programs.SelectMany(program => threads, (program, thread) => (Instruction[][])[.. program, [.. thread]])];
        }
        return programs;
    }

    private static Instruction Translate(LitmusAccess access, LitmusKind kind, int register) => new()
    {
        Operation = (access.IsStore, kind) switch
        {
            (true, LitmusKind.Xchg or LitmusKind.Rmw) => Operation.LockedStore,
            (true, _) => Operation.Store,
            (false, LitmusKind.Rmw) => Operation.LockedLoad,
            _ => Operation.Load,
        },
        Variable = access.Variable,
        Mask = Both,
        Value = LitmusOutcome.Whole(access.Value),
        Register = register,
    };

    private enum Operation
    {
        Load,
        Store,
        Fence,
        LockedLoad,
        LockedStore,
    }

    private readonly record struct Instruction
    {
        public Operation Operation { get; init; }
        public int Variable { get; init; }
        public byte Mask { get; init; }
        public byte Value { get; init; }
        public int Register { get; init; }

        public byte Into(byte before) => (byte)((before & ~Mask) | (Value & Mask));
    }

    private sealed class State
    {
        private readonly Instruction[][] _program;
        private readonly int[] _next;
        private readonly Instruction[][] _buffers; // oldest first
        private readonly byte[] _memory;
        private readonly byte[] _registers;

        public State(Instruction[][] program, LitmusTest test)
            : this(program, new int[program.Length], [.. program.Select(_ => Array.Empty<Instruction>())],
                new byte[test.VariableCount], new byte[test.LoadCount])
        {
        }

        private State(Instruction[][] program, int[] next, Instruction[][] buffers, byte[] memory, byte[] registers)
        {
            _program = program;
            _next = next;
            _buffers = buffers;
            _memory = memory;
            _registers = registers;
        }

        // Buffers are never changed, only replaced.
        public State Clone() => new(_program, [.. _next], [.. _buffers], [.. _memory], [.. _registers]);

        public bool IsAtEnd(int thread) => _next[thread] == _program[thread].Length;

        public bool HasBuffered(int thread) => _buffers[thread].Length > 0;

        public bool IsFinal() => Enumerable.Range(0, _next.Length).All(thread => IsAtEnd(thread) && !HasBuffered(thread));

        public bool CanExecute(int thread) => !IsAtEnd(thread)
            && (_program[thread][_next[thread]].Operation is Operation.Load or Operation.Store || !HasBuffered(thread));

        public void Execute(int thread, bool isSequential)
        {
            Instruction instruction = _program[thread][_next[thread]++];
            switch (instruction.Operation)
            {
                case Operation.Load or Operation.LockedLoad:
                    byte seen = _memory[instruction.Variable];
                    foreach (Instruction store in _buffers[thread])
                    {
                        if (store.Variable == instruction.Variable) seen = store.Into(seen);
                    }
                    ref byte register = ref _registers[instruction.Register];
                    register = (byte)((register & ~instruction.Mask) | (seen & instruction.Mask));
                    break;
                case Operation.Store when !isSequential:
                    _buffers[thread] = [.. _buffers[thread], instruction];
                    break;
                case Operation.Store or Operation.LockedStore:
                    _memory[instruction.Variable] = instruction.Into(_memory[instruction.Variable]);
                    break;
            }
        }

        public void Drain(int thread)
        {
            Instruction store = _buffers[thread][0];
            _memory[store.Variable] = store.Into(_memory[store.Variable]);
            _buffers[thread] = _buffers[thread][1..];
        }

        public LitmusOutcome Outcome() => new(_registers, _memory);

        public string Key()
        {
            StringBuilder key = new();
            foreach (int next in _next) key.Append((char)next);
            foreach (byte value in _memory) key.Append((char)value);
            foreach (byte value in _registers) key.Append((char)value);
            foreach (Instruction[] buffer in _buffers)
            {
                key.Append((char)buffer.Length);
                foreach (Instruction store in buffer) key.Append((char)store.Variable).Append((char)store.Mask).Append((char)store.Value);
            }
            return key.ToString();
        }
    }
}
