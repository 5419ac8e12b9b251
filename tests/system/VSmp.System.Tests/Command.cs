// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text;

namespace VSmp.SystemTests;

/// <summary>How a command ended.</summary>
internal sealed record Outcome(string Command, int ExitCode, string Output, string Error)
{
    /// <summary>The outcome, if the command succeeded; fails the test with all that it said otherwise.</summary>
    public Outcome Succeeded()
    {
        Assert.True(ExitCode == 0, $"{Command}\nended with exit code {ExitCode}\n--- output\n{Tail(Output)}\n--- error\n{Tail(Error)}");
        return this;
    }

    /// <summary>The outcome, if the command ended with this code and says why in one line, with these words.</summary>
    public Outcome FailedWith(int exitCode, string words)
    {
        string said = $"{Command}\nended with exit code {ExitCode}, expected {exitCode}\n--- output\n{Tail(Output)}\n--- error\n{Tail(Error)}";
        Assert.True(ExitCode == exitCode, said);
        // A command's line begins with its name; an agent's, which goes to its log, with the time and the level.
        string[] lines = [.. Error.Split('\n').Where(line => line.StartsWith("vsmp: ", StringComparison.Ordinal)
            || line.Contains("Z error ", StringComparison.Ordinal))];
        Assert.True(lines.Length == 1, $"expected one line that says what failed\n{said}");
        Assert.True(lines[0].Contains(words, StringComparison.OrdinalIgnoreCase), $"expected '{words}' in the message\n{said}");
        Assert.False(Error.Contains("   at ", StringComparison.Ordinal), $"a stack trace is no message for a user\n{said}");
        return this;
    }

    private static string Tail(string text) => text.Length <= 4000 ? text : "…" + text[^4000..];
}

/// <summary>A command that runs; its output is collected as it comes.</summary>
internal sealed class Command : IDisposable
{
    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly StringBuilder _error = new();
    private readonly string _text;

    /// <summary>Starts a program with arguments and changes to the environment.</summary>
    public Command(string program, IEnumerable<string> arguments, IReadOnlyDictionary<string, string>? environment = null,
        string? workingDirectory = null)
    {
        ProcessStartInfo start = new(program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = workingDirectory ?? "/",
        };
        foreach (var (name, value) in environment ?? new Dictionary<string, string>()) start.Environment[name] = value;
        _text = $"{program} {string.Join(' ', start.ArgumentList)}";
        _process = Process.Start(start)!;
        _process.OutputDataReceived += (_, line) => Append(_output, line.Data);
        _process.ErrorDataReceived += (_, line) => Append(_error, line.Data);
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
    }

    /// <summary>The program's process.</summary>
    public int ProcessId => _process.Id;

    /// <summary>Whether it is still running.</summary>
    public bool IsRunning => !_process.HasExited;

    /// <summary>What it printed so far.</summary>
    public string Output
    {
        get { lock (_output) return _output.ToString(); }
    }

    /// <summary>What it said on standard error so far.</summary>
    public string Error
    {
        get { lock (_error) return _error.ToString(); }
    }

    /// <summary>Closes its input.</summary>
    public void EndInput() => _process.StandardInput.Close();

    /// <summary>Writes to its input.</summary>
    public void Type(string text)
    {
        _process.StandardInput.Write(text);
        _process.StandardInput.Flush();
    }

    /// <summary>Waits until it printed this; fails the test if it ends first, or takes too long.</summary>
    public void WaitFor(string text, int seconds = 60) =>
        Wait.Until(() => Output.Contains(text, StringComparison.Ordinal) || !IsRunning, seconds, () => $"'{text}' from {Report()}",
            then: () => Assert.True(Output.Contains(text, StringComparison.Ordinal), $"it ended without '{text}': {Report()}"));

    /// <summary>Waits for its end; kills it and fails the test if that takes too long.</summary>
    public Outcome WaitForEnd(int seconds = 60)
    {
        if (!_process.WaitForExit(TimeSpan.FromSeconds(seconds)))
        {
            string report = Report();
            _process.Kill(entireProcessTree: true);
            Assert.Fail($"still running after {seconds} s: {report}");
        }
        _process.WaitForExit(); // the readers of its output, too
        return new Outcome(_text, _process.ExitCode, Output, Error);
    }

    /// <summary>Sends it a signal by number.</summary>
    public void Signal(int number) => Assert.Equal(0, Native.Kill(_process.Id, number));

    /// <inheritdoc/>
    public void Dispose()
    {
        if (IsRunning)
        {
            _process.Kill(entireProcessTree: true);
            _process.WaitForExit();
        }
        _process.Dispose();
    }

    /// <summary>Runs a program to its end.</summary>
    public static Outcome Run(string program, IEnumerable<string> arguments, IReadOnlyDictionary<string, string>? environment = null,
        int seconds = 60, string? workingDirectory = null)
    {
        using Command command = new(program, arguments, environment, workingDirectory);
        command.EndInput();
        return command.WaitForEnd(seconds);
    }

    private string Report() => $"{_text}\n--- output\n{Output}\n--- error\n{Error}";

    private static void Append(StringBuilder to, string? line)
    {
        if (line is null) return;
        lock (to) to.Append(line).Append('\n');
    }
}

/// <summary>Waiting for what nobody announces: files, mounts, processes of others.</summary>
internal static class Wait
{
    /// <summary>Looks until the condition holds; fails the test with the description after so many seconds.</summary>
    public static void Until(Func<bool> condition, int seconds, Func<string> description, Action? then = null)
    {
        long deadline = Environment.TickCount64 + (seconds * 1000L);
        while (!condition())
        {
            if (Environment.TickCount64 > deadline) Assert.Fail($"not within {seconds} s: {description()}");
            Thread.Sleep(20);
        }
        then?.Invoke();
    }
}
