// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Guests;

/// <summary>
/// What an agent that a keeper has started leaves on its node of a run, for the one that is started after it: the file <c>runs/TOKEN</c> in the agent's
/// folder, JSON. It is there before anybody knows the token, and until the run has ended. It is replaced whole; that it outlives the agent's process is
/// enough.
/// </summary>
/// <param name="Format">Of the file: <see cref="CurrentFormat"/>.</param>
/// <param name="Token">What its guests show to attach.</param>
/// <param name="Request">What was asked for, as it is in force.</param>
/// <param name="LocalBytes">Its budget.</param>
/// <param name="HasLostNode">As in <see cref="Run.HasLostNode"/>.</param>
/// <param name="RegionsMade">Regions that have a name already.</param>
/// <param name="AgentRestarts">How often its agent was started again since it began.</param>
/// <param name="SharedRegions">Numbers of the regions that its ranks share with others, where it is of a job.</param>
internal sealed record RunRecord(int Format, string Token, RunRequest Request, ulong LocalBytes, bool HasLostNode, int RegionsMade, int AgentRestarts,
    ulong[] SharedRegions)
{
    /// <summary>The format that this build reads and writes.</summary>
    public const int CurrentFormat = 2;

    private const int TokenDigits = 32, MaximumBytes = PrivateFile.MaximumBytes;

    /// <summary>Whether it can be a run's token, and so the name of a file.</summary>
    public static bool IsToken(string token) => token.Length == TokenDigits && token.All(char.IsAsciiHexDigitUpper);

    /// <summary>What is to be recorded of a run.</summary>
    public static RunRecord Of(Run run) =>
        new(CurrentFormat, run.Token, run.Request, run.LocalBytes, run.HasLostNode, run.RegionsMade, run.AgentRestarts,
            [.. run.SharedRegions.Select(id => id.Value)]);

    /// <summary>Puts it in place of what the folder has of the run. The folder is made if it is not there.</summary>
    /// <exception cref="IOException">It could not be written, or is too long to be read again; what was there is as it was.</exception>
    public void Write(string folder)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(this, RunRecordJson.Default.RunRecord);
        if (json.Length > MaximumBytes) throw new IOException($"the request is {json.Length} bytes long as it is recorded, more than {MaximumBytes}");
        try
        {
            Directory.CreateDirectory(folder, WholeFile.OwnerOnly | UnixFileMode.UserExecute);
            WholeFile.Replace(Path.Combine(folder, Token), json, WholeFile.OwnerOnly);
        }
        catch (UnauthorizedAccessException e) { throw new IOException(e.Message, e); }
    }

    /// <summary>The run has ended.</summary>
    public static void Delete(string folder, string token) => WholeFile.Delete(Path.Combine(folder, token), "the record of a run that has ended");

    /// <summary>All that are there. What cannot be a run's record is reported and left out: its guests cannot be served again.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="warn">Gets what is left out, and why.</param>
    public static IReadOnlyList<RunRecord> ReadAll(string folder, Action<string> warn)
    {
        List<RunRecord> records = [];
        IReadOnlyList<string> files;
        try { files = WholeFile.In(folder); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            warn($"no run can go on: {e.Message}");
            return records;
        }
        foreach (string file in files)
        {
            try { records.Add(Read(file)); }
            catch (Exception e) when (e is InvalidDataException or PrivateFileException) { warn($"a run cannot go on: {e.Message}"); }
        }
        return records;
    }

    private static RunRecord Read(string path)
    {
        string text = PrivateFile.ReadText(path, "the record of a run", MaximumBytes, "");
        RunRecord? record;
        try { record = JsonSerializer.Deserialize(text, RunRecordJson.Default.RunRecord); }
        catch (JsonException e) { throw new InvalidDataException($"{path} is no record of a run: {e.Message}", e); }
        if (record?.WhatIsWrong(Path.GetFileName(path)) is { } wrong) throw new InvalidDataException($"{path} is no record of a run: {wrong}");
        return record ?? throw new InvalidDataException($"{path} is no record of a run: there is nothing in it");
    }

    private string? WhatIsWrong(string fileName)
    {
        if (Format != CurrentFormat) return $"its format is {Format}, this agent reads {CurrentFormat}";
        if (!IsToken(Token) || Token != fileName) return "its token is none, or another file's";
        if (string.IsNullOrEmpty(Request.Program)) return "what was asked for is no program's run";
        if (Request.Job is { } job ? job.Token != Token : SharedRegions.Length > 0) return "it is of a job, and it is not";
        if (Request.Name is { } name && !RunDirectory.IsValidName(name)) return $"'{name}' is no name for a region";
        if (Request.Redundancy is not (null or Redundancy.None or Redundancy.Mirror)) return "its redundancy is none that there is";
        if (LocalBytes < Runs.LeastLocalBytes || LocalBytes % ExtentNumber.Bytes != 0) return $"a budget of {LocalBytes} bytes is none";
        return RegionsMade < 0 || AgentRestarts < 0 ? "a count is negative" : null;
    }
}

/// <summary>The records of runs as JSON.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(RunRecord))]
internal sealed partial class RunRecordJson : JsonSerializerContext;
