// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp checkpoint verify</c>: whether all is as it was written.</summary>
internal static class CheckpointVerifyCommand
{
    /// <summary>The command.</summary>
    public static Command New()
    {
        Argument<string> name = CheckpointCommand.NewNameArgument();
        Option<uint?> generation = CheckpointCommand.NewGenerationOption("This one only (default: all)");
        Command command = CommandLine.NewCommand("verify", "Read all files of a checkpoint, and say of each generation whether it is as it was written. Exit code 10 if one is not.",
            "vsmp checkpoint verify heat", "vsmp checkpoint verify /mnt/backup/heat --generation 3");
        command.Arguments.Add(name);
        command.Options.Add(generation);
        command.SetAction(parsed => CheckpointCommand.Try(() => Verify(CheckpointCommand.Find(parsed, parsed.GetValue(name)!), parsed.GetValue(generation))));
        return command;
    }

    private static int Verify(CheckpointFolder folder, uint? generation)
    {
        IReadOnlyList<uint> wanted = generation is { } one ? [one] : folder.Store.List();
        if (generation is { } number) CheckpointCommand.Require(folder, number);
        if (wanted.Count == 0) return CommandLine.Fail(ExitCodes.Unsound, $"checkpoint {Printable.Of(folder.Name)} has no generation that is complete");
        var verifier = new Verifier(folder.Store);
        int unsound = wanted.Count(next => !verifier.IsSound(next));
        return unsound == 0 ? ExitCodes.Ok : ExitCodes.Unsound;
    }

    /// <summary>Verifies generations. A part that several have is read once.</summary>
    private sealed class Verifier(CheckpointStore store)
    {
        private readonly Dictionary<SavedPart, (IReadOnlyList<SavedRegion> Regions, string? Wrong)> _read = [];

        /// <summary>Verifies one, and says what it is.</summary>
        public bool IsSound(uint generation)
        {
            Manifest manifest;
            try { manifest = store.Load(generation); }
            catch (Exception e) when (e is CheckpointException or IOException)
            {
                SayUnsound(generation, e.Message);
                return false;
            }
            SavedPart[] unread = [.. manifest.Parts.Where(part => !WasRead(manifest, part)).Distinct()];
            var progress = new Progress(generation, BytesOf(unread));
            foreach (SavedPart part in unread) _read[part] = (manifest.Regions, WhatIsWrong(manifest, part, progress));
            string speed = progress.End();
            string[] wrong = [.. manifest.Parts.Select(part => _read[part].Wrong).OfType<string>().Distinct()];
            foreach (string one in wrong) SayUnsound(generation, one);
            if (wrong.Length > 0) return false;
            ulong pages = manifest.Parts.Aggregate(0ul, (sum, part) => sum + part.Pages);
            Output.Line($"generation {generation}: sound: {pages} pages in {manifest.Parts.Count} {(manifest.Parts.Count == 1 ? "part" : "parts")}, {Sizes.Format(BytesOf(manifest.Parts))}; {speed}");
            return true;
        }

        private static void SayUnsound(uint generation, string wrong) => Output.Line($"generation {generation}: not sound: {Printable.Of(wrong)}");

        private static ulong BytesOf(IEnumerable<SavedPart> parts) => parts.Aggregate(0ul, (sum, part) => sum + part.FileBytes);

        private bool WasRead(Manifest manifest, SavedPart part) => _read.TryGetValue(part, out var read) && read.Regions.SequenceEqual(manifest.Regions);

        private string? WhatIsWrong(Manifest manifest, SavedPart part, Progress progress)
        {
            try { store.VerifyPart(manifest, part, progress.PageIsRead); }
            catch (Exception e) when (e is CheckpointException or IOException) { return e.Message; }
            return null;
        }
    }

    /// <summary>How far it is: on a terminal, a line on standard error that is refreshed.</summary>
    private sealed class Progress(uint generation, ulong bytes)
    {
        private const int PagesBetweenLooks = 256;
        private const long PeriodMilliseconds = 250;

        private readonly bool _isShown = Output.IsErrorTerminal;
        private readonly Stopwatch _watch = Stopwatch.StartNew();
        private ulong _pages;
        private long _shownAt;

        public void PageIsRead()
        {
            _pages++;
            if (!_isShown || _pages % PagesBetweenLooks != 0 || _watch.ElapsedMilliseconds - _shownAt < PeriodMilliseconds) return;
            _shownAt = _watch.ElapsedMilliseconds;
            // By pages of memory: of those that are zero there is less to read.
            ulong done = Math.Min(_pages * PageNumber.Bytes, bytes);
            Output.Error(string.Create(CultureInfo.InvariantCulture, $"\r\x1b[Kvsmp: generation {generation}: {Sizes.Format(done)} of {Sizes.Format(bytes)}, {done / _watch.Elapsed.TotalSeconds / 1e9:0.00} GB/s"));
        }

        /// <summary>It is over.</summary>
        /// <returns>How fast it was.</returns>
        public string End()
        {
            double seconds = _watch.Elapsed.TotalSeconds;
            if (_shownAt > 0) Output.Error("\r\x1b[K");
            return bytes == 0 ? "all of it was read before"
                : string.Create(CultureInfo.InvariantCulture, $"{Sizes.Format(bytes)} read in {seconds:0.00} s, {bytes / Math.Max(seconds, 1e-6) / 1e9:0.00} GB/s");
        }
    }
}
