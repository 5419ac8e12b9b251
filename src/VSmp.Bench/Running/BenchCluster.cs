// SPDX-License-Identifier: Apache-2.0
using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using VSmp.Agent;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Bench.Velvet;

namespace VSmp.Bench.Running;

/// <summary>A workload could not be run; the message says why.</summary>
public sealed class BenchException(string message) : Exception(message);

/// <summary>
/// A cluster of a benchmark's own on this host: started with <c>vsmp up</c>, used with <c>vsmp spmd</c>, as a user would, and taken down
/// when it is disposed of, after an interruption as well. Or one that is up already, which stays as it is.
/// </summary>
public sealed class BenchCluster : IDisposable
{
    private readonly string _vsmp;
    private readonly List<PosixSignalRegistration> _registrations = [];
    private readonly Lock _lock = new();
    private Process? _running;
    private bool _isInterrupted;
    private bool _isUp;
    private readonly Dictionary<string, string> _environment = []; // of what is started, beside this process's own
    private readonly ScratchFolder _scratch;

    /// <summary>Starts a cluster.</summary>
    /// <param name="agents">How many agents.</param>
    /// <param name="memory">What each contributes, as <c>vsmp up --memory</c> takes it.</param>
    /// <param name="transport">What carries frames, as <c>vsmp up --transport</c> takes it; null: its default.</param>
    /// <param name="isPinned">
    /// Whether each node has a processor of its own, while there are enough (<c>native/bench/pin.h</c> says what for): its agent, and the ranks of
    /// the benchmarks' programs; and the floors as well.
    /// </param>
    /// <param name="isPlanted">Whether the agents have a bug (<see cref="Litmus.PlantedCluster"/>).</param>
    /// <param name="stagesFolder">Where the agents write, when they end, what they did when (<see cref="StageTrace"/>); null: nowhere.</param>
    /// <param name="hasCheckpoints">Whether checkpoints are in a folder of this run (<see cref="Checkpoints"/>), removed with it.</param>
    /// <exception cref="BenchException">It does not start.</exception>
    public BenchCluster(int agents, string memory, string? transport = null, bool isPinned = false, bool isPlanted = false, string? stagesFolder = null,
        bool hasCheckpoints = false)
        : this(string.Create(CultureInfo.InvariantCulture, $"bench-{Environment.ProcessId}"), isOurs: true)
    {
        Nodes = [.. Enumerable.Range(0, agents).Select(i => string.Create(CultureInfo.InvariantCulture, $"n{i}"))];
        if (stagesFolder is not null) _environment[StageTrace.Variable] = stagesFolder;
        Prepare(() =>
        {
            ScratchFolder.RemoveAbandoned(EndAbandoned);
            _isUp = true;
            StringBuilder said = new();
            List<string> up = ["up", "--agents", $"{agents}", "--memory", memory];
            if (transport is not null) up.AddRange(["--transport", transport]);
            if (hasCheckpoints) up.AddRange(["--checkpoints", Checkpoints]);
            int exitCode = isPlanted
                ? Execute(Environment.ProcessPath!, ["planted", .. up], _ => { }, line => said.AppendLine(line))
                : Execute(_vsmp, up, _ => { }, line => said.AppendLine(line));
            if (exitCode != 0) throw new BenchException($"vsmp up ended with exit code {exitCode}: {said.ToString().Trim()}");
            if (isPinned) Pin();
        });
    }

    private BenchCluster(string name, bool isOurs)
    {
        _vsmp = FindProgram("vsmp");
        Name = name;
        _scratch = new ScratchFolder(isOurs ? name : "");
        // An interruption ends what runs; then everything is taken down on the usual way out.
        foreach (PosixSignal signal in new[] { PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP })
        {
            _registrations.Add(PosixSignalRegistration.Create(signal, OnSignal));
        }
    }

    /// <summary>Its name.</summary>
    public string Name { get; }

    /// <summary>Its nodes' names.</summary>
    public IReadOnlyList<string> Nodes { get; private set; } = [];

    /// <summary>A folder for files of this run, removed with the cluster.</summary>
    public string Scratch => _scratch.Path;

    /// <summary>The folder of its checkpoints, if it has any.</summary>
    public string Checkpoints => Path.Combine(Scratch, "checkpoints");

    /// <summary>Uses a cluster that is up: one with an agent on this host, whose other nodes may be on any.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="BenchException">It cannot be asked.</exception>
    public static BenchCluster Use(string name)
    {
        BenchCluster cluster = new(name, isOurs: false);
        cluster.Prepare(() =>
        {
            StringBuilder status = new(), error = new();
            int exitCode = cluster.Execute(cluster._vsmp, ["status", "--json"], line => status.AppendLine(line), line => error.AppendLine(line));
            if (exitCode != 0) throw new BenchException($"cluster {name} cannot be used: {error.ToString().Trim()}");
            using var document = JsonDocument.Parse(status.ToString());
            cluster.Nodes = [.. document.RootElement.GetProperty("nodes").EnumerateArray()
                .Where(node => node.GetProperty("state").GetString() == "up").Select(node => node.GetProperty("name").GetString()!)];
        });
        return cluster;
    }

    /// <summary>A program that <c>make build</c> leaves: in the build folder that this one is in, or of the tree that this one is in.</summary>
    /// <exception cref="BenchException">It is in neither place.</exception>
    public static string FindProgram(string name)
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            // The ranks' programs are in the build folder only; where one is, the right vsmp is, too.
            foreach (string build in new[] { folder.FullName, Path.Combine(folder.FullName, "build") })
            {
                string path = Path.Combine(build, name);
                if (File.Exists(Path.Combine(build, "vsmp-litmus")) && File.Exists(path)) return path;
            }
        }
        throw new BenchException($"{name} is not in a build folder at or above {AppContext.BaseDirectory}: run `make build`");
    }

    /// <summary>Runs ranks of a program to their end.</summary>
    /// <param name="ranks">How many.</param>
    /// <param name="nodes">On which nodes.</param>
    /// <param name="protocol">What keeps the region coherent.</param>
    /// <param name="local">The budget of each node for copies of others' pages, or null.</param>
    /// <param name="program">The program, and its arguments.</param>
    /// <param name="onLine">Called for each line that a rank prints. What it throws ends the ranks.</param>
    /// <param name="statisticsFile">Where to write what happened at each node, or null.</param>
    /// <param name="hasInput">Whether rank 0 reads what <see cref="Tell"/> says, not what this process would read.</param>
    /// <param name="input">All that rank 0 reads, if not null.</param>
    /// <param name="options">More options of <c>vsmp spmd</c>.</param>
    /// <returns>The exit code, and what was said on standard error.</returns>
    /// <exception cref="BenchException">It was interrupted.</exception>
    public (int ExitCode, string Error) RunRanks(int ranks, IEnumerable<string> nodes, string protocol, string? local,
        IEnumerable<string> program, Action<string> onLine, string? statisticsFile = null, bool hasInput = false, string? input = null,
        IEnumerable<string>? options = null)
    {
        List<string> arguments =
        [
            "spmd", "-n", ranks.ToString(CultureInfo.InvariantCulture), "--on", string.Join(',', nodes), "--name", "bench",
            "--protocol", protocol,
        ];
        if (local is not null) arguments.AddRange(["--local", local]);
        if (statisticsFile is not null) arguments.AddRange(["--stats", statisticsFile]);
        arguments.AddRange(options ?? []);
        StringBuilder error = new();
        int exitCode = Execute(_vsmp, [.. arguments, "--", .. program], onLine, line => error.AppendLine(line), hasInput, input);
        return (exitCode, error.ToString().Trim());
    }

    /// <summary>Runs a program that has nothing to do with the cluster, to its end.</summary>
    /// <param name="program">The program.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="onLine">Called for each line that it prints.</param>
    /// <returns>The exit code, and what was said on standard error.</returns>
    /// <exception cref="BenchException">It was interrupted.</exception>
    public (int ExitCode, string Error) RunBeside(string program, IEnumerable<string> arguments, Action<string> onLine)
    {
        StringBuilder error = new();
        int exitCode = Execute(program, arguments, onLine, line => error.AppendLine(line));
        return (exitCode, error.ToString().Trim());
    }

    /// <summary>Runs a program to its end, or to the end of its patience, and throws away what it prints.</summary>
    /// <param name="command">The program, and its arguments: any, or <c>vsmp run</c> on this cluster.</param>
    /// <param name="watch">Looks at it meanwhile.</param>
    /// <returns>The exit code, and what was said on standard error.</returns>
    /// <exception cref="BenchException">It cannot be started, or was interrupted.</exception>
    internal (int ExitCode, string Error) RunWatched(IReadOnlyList<string> command, ProgramWatch watch)
    {
        StringBuilder error = new();
        try
        {
            int exitCode = Execute(command[0], command.Skip(1), _ => { }, line => error.AppendLine(line), watch: watch);
            return (exitCode, error.ToString().Trim());
        }
        catch (Win32Exception e)
        {
            throw new BenchException($"{command[0]} cannot be started: {e.Message}");
        }
    }

    /// <summary>Runs a program on this cluster to its end; it reads what <see cref="Tell"/> says.</summary>
    /// <param name="command"><c>vsmp run</c>, and its arguments.</param>
    /// <param name="onLine">Called for each line that it prints.</param>
    /// <returns>The exit code, and what was said on standard error.</returns>
    /// <exception cref="BenchException">It was interrupted.</exception>
    internal (int ExitCode, string Error) RunWithInput(IReadOnlyList<string> command, Action<string> onLine)
    {
        StringBuilder error = new();
        int exitCode = Execute(command[0], command.Skip(1), onLine, line => error.AppendLine(line), hasInput: true);
        return (exitCode, error.ToString().Trim());
    }

    /// <summary>
    /// Gives rank 0, or the program of <see cref="RunWithInput"/>, a line on its standard input, if it runs. For ranks, from their <c>onLine</c>.
    /// </summary>
    public void Tell(string line) => WithInput(input => input.WriteLine(line));

    /// <summary>Whether a program runs that reads what <see cref="Tell"/> says.</summary>
    internal bool HasInput
    {
        get
        {
            lock (_lock) return _running?.StartInfo.RedirectStandardInput == true;
        }
    }

    /// <summary>The program of <see cref="RunWithInput"/> has nothing more to read.</summary>
    internal void EndInput() => WithInput(input => input.Close());

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isUp)
        {
            _isUp = false;
            _isInterrupted = false; // this is the clearing up that an interruption asked for
            TakeDown(Name);
        }
        foreach (PosixSignalRegistration registration in _registrations) registration.Dispose();
        _registrations.Clear();
        _scratch.Dispose();
    }

    private void WithInput(Action<StreamWriter> what)
    {
        lock (_lock)
        {
            if (_running is null) return;
            try
            {
                what(_running.StandardInput);
            }
            catch (IOException)
            {
                // It has ended; its exit code says why.
            }
        }
    }

    private void TakeDown(string cluster)
    {
        int exitCode = Execute(_vsmp, ["down", "--cluster", cluster], _ => { }, Console.Error.WriteLine);
        if (exitCode != 0) Console.Error.WriteLine($"vsmp-bench: vsmp down --cluster {cluster} ended with exit code {exitCode}");
    }

    private void EndAbandoned(string folder, string cluster)
    {
        Console.Error.WriteLine($"vsmp-bench: removing what a run has left that was killed: {folder}");
        SwapSpace.EndAbandoned(folder);
        if (RunDirectory.Candidates(cluster).SelectMany(directory => directory.Agents()).Any(agent => agent.Node() is not null)) TakeDown(cluster);
    }

    private void Pin()
    {
        _environment["VSMP_BENCH_PIN"] = "1";
        foreach (AgentFolder agent in LocalAgents.Running(Name))
        {
            if (agent.Running() is not { } process) continue;
            string processor = $"{Nodes.ToList().IndexOf(agent.Name) % Environment.ProcessorCount}";
            StringBuilder said = new();
            int exitCode = Execute("taskset", ["--all-tasks", "--cpu-list", "--pid", processor, $"{process.ProcessId}"], _ => { }, line => said.AppendLine(line));
            if (exitCode != 0) throw new BenchException($"agent {agent.Name} could not be given a processor of its own: {said.ToString().Trim()}");
        }
    }

    // What begins may be interrupted, or fail, half-way.
    private void Prepare(Action begin)
    {
        try
        {
            begin();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    private int Execute(string program, IEnumerable<string> arguments, Action<string> onLine, Action<string> onError,
        bool hasInput = false, string? input = null, ProgramWatch? watch = null)
    {
        ProcessStartInfo start = new(program, arguments)
        {
            RedirectStandardInput = hasInput || input is not null,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["VSMP_CLUSTER"] = Name;
        foreach ((string name, string value) in _environment) start.Environment[name] = value;
        using Process process = new() { StartInfo = start };
        ExceptionDispatchInfo? failure = null;
        process.OutputDataReceived += (_, line) =>
        {
            try
            {
                if (line.Data is not null && failure is null) onLine(line.Data);
            }
#pragma warning disable CA1031 // it is the caller's, whatever it is; here it would end the process
            catch (Exception e)
#pragma warning restore CA1031
            {
                failure = ExceptionDispatchInfo.Capture(e);
                process.Kill();
            }
        };
        process.ErrorDataReceived += (_, line) =>
        {
            if (line.Data is not null) onError(line.Data);
        };
        Stopwatch clock = new();
        lock (_lock)
        {
            if (_isInterrupted) throw new BenchException("interrupted");
            clock.Start();
            process.Start();
            _running = process;
        }
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        if (input is not null) WriteInput(process, input);
        watch?.Await(process, clock);
        process.WaitForExit(); // and for the rest of its output
        lock (_lock)
        {
            _running = null;
            if (_isInterrupted) throw new BenchException("interrupted");
        }
        failure?.Throw();
        return process.ExitCode;
    }

    private static void WriteInput(Process process, string input)
    {
        try
        {
            process.StandardInput.Write(input);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // It has ended before it read everything; its exit code says why.
        }
    }

    private void OnSignal(PosixSignalContext context)
    {
        context.Cancel = true;
        lock (_lock)
        {
            _isInterrupted = true;
            if (_running is not { } process) return;
            // vsmp up and down finish, or undo, what they began; ranks end with their supervisor, and a floor's processes with their first.
            // vsmp run passes on to its program what it can hear.
            string? verb = process.StartInfo.ArgumentList.FirstOrDefault();
            if (verb is "run") _ = Libc.Kill(process.Id, Signals.SIGTERM);
            else if (verb is not ("up" or "down" or "planted")) process.Kill();
        }
    }
}
