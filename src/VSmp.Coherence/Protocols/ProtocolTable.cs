// SPDX-License-Identifier: Apache-2.0
using System.Text;

namespace VSmp.Coherence.Protocols;

/// <summary>What a protocol says of a state and an event.</summary>
public enum Verdict : byte
{
    /// <summary>The table has no such cell yet; a complete table has none of these.</summary>
    Missing = 0,
    /// <summary>Actions, then the next state.</summary>
    Handle,
    /// <summary>The event waits until the page leaves this state.</summary>
    Stall,
    /// <summary>Cannot happen; if it does, the peer or the protocol is broken.</summary>
    Impossible,
}

/// <summary>A cell: what happens to a page in some state when some event comes.</summary>
/// <typeparam name="TState">States.</typeparam>
/// <typeparam name="TAction">Actions.</typeparam>
public readonly struct Cell<TState, TAction>
    where TState : struct, Enum
    where TAction : struct, Enum
{
    private readonly TAction[]? _actions;

    internal Cell(Verdict verdict, TState next, params TAction[] actions)
    {
        Verdict = verdict;
        Next = next;
        _actions = actions;
    }

    /// <summary>Handled, stalled or impossible.</summary>
    public Verdict Verdict { get; }

    /// <summary>The state afterwards.</summary>
    public TState Next { get; }

    /// <summary>What to do, in order.</summary>
    public ReadOnlySpan<TAction> Actions => _actions;
}

/// <summary>
/// A protocol for one kind of controller as one table: every state × event cell is handled, stalled or declared impossible. The
/// same table is executed by the agents, printed into the documentation, and searched by the model checker.
/// </summary>
/// <typeparam name="TState">States of a page.</typeparam>
/// <typeparam name="TEvent">Events.</typeparam>
/// <typeparam name="TAction">Actions.</typeparam>
public sealed class ProtocolTable<TState, TEvent, TAction>
    where TState : struct, Enum
    where TEvent : struct, Enum
    where TAction : struct, Enum
{
    private static readonly TState[] AllStates = Enum.GetValues<TState>();
    private static readonly TEvent[] AllEvents = Enum.GetValues<TEvent>();
    private readonly Cell<TState, TAction>[] _cells = new Cell<TState, TAction>[AllStates.Length * AllEvents.Length];
    private readonly TState[] _states;
    private readonly TEvent[] _events;

    /// <summary>Begins a table.</summary>
    /// <param name="states">The states that pages have under this protocol, in the order in which they are printed.</param>
    /// <param name="events">The events that there are under this protocol, likewise.</param>
    public ProtocolTable(TState[] states, TEvent[] events)
    {
        _states = states;
        _events = events;
    }

    /// <summary>The protocol's states.</summary>
    public IReadOnlyList<TState> States => _states;

    /// <summary>The protocol's events.</summary>
    public IReadOnlyList<TEvent> Events => _events;

    /// <summary>The cell of a state and an event.</summary>
    public ref readonly Cell<TState, TAction> this[TState state, TEvent @event] => ref _cells[Index(state, @event)];

    /// <summary>Declares what the actions and the next state are.</summary>
    public void On(TState state, TEvent @event, TState next, params TAction[] actions) =>
        Set(state, @event, new Cell<TState, TAction>(Verdict.Handle, next, actions));

    /// <summary>Declares that events wait in a state.</summary>
    public void Stall(TState state, params TEvent[] events)
    {
        foreach (TEvent e in events) Set(state, e, new Cell<TState, TAction>(Verdict.Stall, state));
    }

    /// <summary>Declares that events cannot happen in a state.</summary>
    public void Impossible(TState state, params TEvent[] events)
    {
        foreach (TEvent e in events) Set(state, e, new Cell<TState, TAction>(Verdict.Impossible, state));
    }

    /// <summary>Declares that events cannot happen in any state for which nothing else was said of them.</summary>
    public void ImpossibleElsewhere(params TEvent[] events)
    {
        foreach (TState s in _states)
        {
            foreach (TEvent e in events)
            {
                if (this[s, e].Verdict == Verdict.Missing) Impossible(s, e);
            }
        }
    }

    /// <summary>Declares that nothing else can happen in a state.</summary>
    public void ImpossibleElsewhere(TState state)
    {
        foreach (TEvent e in _events)
        {
            if (this[state, e].Verdict == Verdict.Missing) Impossible(state, e);
        }
    }

    /// <summary>Checks that no cell is missing. What the protocol does not know becomes impossible.</summary>
    /// <exception cref="InvalidOperationException">Names the cells that are missing, or that lead out of the protocol.</exception>
    public ProtocolTable<TState, TEvent, TAction> Complete()
    {
        // Loops: every command builds tables, and what queries are made of would be compiled for each type of state and event as it starts.
        List<string> missing = [];
        foreach (TState s in _states)
        {
            foreach (TEvent e in _events)
            {
                if (this[s, e].Verdict == Verdict.Missing || !IsAmong(_states, this[s, e].Next)) missing.Add($"{s} × {e}");
            }
        }
        if (missing.Count > 0) throw new InvalidOperationException($"the protocol table lacks {string.Join(", ", missing)}");
        foreach (TState s in AllStates)
        {
            foreach (TEvent e in AllEvents)
            {
                if (this[s, e].Verdict == Verdict.Missing) _cells[Index(s, e)] = new Cell<TState, TAction>(Verdict.Impossible, s);
            }
        }
        return this;
    }

    /// <summary>A copy with another cell in one place: a bug, planted to see whether it is found.</summary>
    internal ProtocolTable<TState, TEvent, TAction> With(TState state, TEvent @event, TState next, params TAction[] actions)
    {
        var copy = new ProtocolTable<TState, TEvent, TAction>(_states, _events);
        _cells.CopyTo(copy._cells, 0);
        copy._cells[Index(state, @event)] = new Cell<TState, TAction>(Verdict.Handle, next, actions);
        return copy;
    }

    /// <summary>The table in Markdown: states down, events across; empty cells are impossible.</summary>
    public string ToMarkdown()
    {
        var text = new StringBuilder("| |");
        foreach (TEvent e in _events) text.Append(' ').Append(e).Append(" |");
        text.Append("\n|---|").Insert(text.Length, "---|", _events.Length).Append('\n');
        foreach (TState s in _states)
        {
            text.Append("| **").Append(s).Append("** |");
            foreach (TEvent e in _events) text.Append(' ').Append(Describe(s, this[s, e])).Append(" |");
            text.Append('\n');
        }
        return text.ToString();
    }

    private static string Describe(TState state, in Cell<TState, TAction> cell)
    {
        if (cell.Verdict == Verdict.Impossible) return "";
        if (cell.Verdict == Verdict.Stall) return "*stall*";
        string actions = string.Join(", ", cell.Actions.ToArray());
        string next = EqualityComparer<TState>.Default.Equals(state, cell.Next) ? "" : $"→ {cell.Next}";
        return actions.Length == 0 && next.Length == 0 ? "–" : $"{actions} {next}".Trim();
    }

    private static int Index(TState state, TEvent @event) => (Number(state) * AllEvents.Length) + Number(@event);

    private static byte Number<T>(T value)
        where T : struct, Enum => System.Runtime.CompilerServices.Unsafe.As<T, byte>(ref value);

    private static bool IsAmong<T>(T[] values, T value)
        where T : struct, Enum
    {
        foreach (T one in values)
        {
            if (Number(one) == Number(value)) return true;
        }
        return false;
    }

    private void Set(TState state, TEvent @event, Cell<TState, TAction> cell)
    {
        ref Cell<TState, TAction> slot = ref _cells[Index(state, @event)];
        if (!IsAmong(_states, state) || !IsAmong(_events, @event)) throw new InvalidOperationException($"{state} × {@event} is not of this protocol");
        if (slot.Verdict != Verdict.Missing) throw new InvalidOperationException($"{state} × {@event} is declared twice");
        slot = cell;
    }
}
