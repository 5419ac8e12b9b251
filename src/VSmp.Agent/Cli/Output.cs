// SPDX-License-Identifier: Apache-2.0
using System.Text;
using Spectre.Console;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>
/// What the command says. Not by way of <see cref="Console"/>, which on its first use puts the terminal into a mode of its own:
/// that is not ours to touch while another program has it, and stops a command in the background.
/// </summary>
internal static unsafe class Output
{
    private const int OutputDescriptor = 1, ErrorDescriptor = 2;

    /// <summary>Whether a person looks at standard output.</summary>
    public static bool IsTerminal => Terminals.IsTerminal(OutputDescriptor);

    /// <summary>Whether a person looks at standard error.</summary>
    public static bool IsErrorTerminal => Terminals.IsTerminal(ErrorDescriptor);

    /// <summary>Columns of the terminal.</summary>
    public static int Columns => Terminals.Size(OutputDescriptor).Columns;

    /// <summary>Standard output, for what wants to write itself.</summary>
    public static TextWriter Writer { get; } = new DescriptorWriter();

    /// <summary>The terminal, for tables.</summary>
    public static IAnsiConsole NewConsole() => AnsiConsole.Create(new AnsiConsoleSettings { Out = new TerminalOutput() });

    /// <summary>A line on standard output.</summary>
    public static void Line(string text) => Write(OutputDescriptor, text + "\n");

    /// <summary>A line on standard error.</summary>
    public static void ErrorLine(string text) => Write(ErrorDescriptor, text + "\n");

    /// <summary>Text on standard error.</summary>
    public static void Error(string text) => Write(ErrorDescriptor, text);

    /// <summary>What a rank on another host has printed, on standard output (1) or error (2).</summary>
    public static void Pass(int stream, byte[] data) => Write(stream == ErrorDescriptor ? ErrorDescriptor : OutputDescriptor, data);

    private static void Write(int fd, string text) => Write(fd, Encoding.UTF8.GetBytes(text));

    private static void Write(int fd, byte[] bytes)
    {
        // SAFETY: pinned for the call; the offset stays within. Whoever does not read us any more misses nothing.
        fixed (byte* start = bytes)
        {
            for (int offset = 0; offset < bytes.Length;)
            {
                nint written = Libc.Write(fd, start + offset, (nuint)(bytes.Length - offset));
                if (written < 0 && Errno.Last != Errno.EINTR) return;
                offset += (int)Math.Max(written, 0);
            }
        }
    }

    private sealed class DescriptorWriter : TextWriter
    {
        public override Encoding Encoding => Encoding.UTF8;

        public override void Write(char value) => Output.Write(OutputDescriptor, value.ToString());

        public override void Write(string? value) => Output.Write(OutputDescriptor, value ?? "");

        public override void Write(char[] buffer, int index, int count) =>
            Output.Write(OutputDescriptor, new string(buffer, index, count));

        public override void WriteLine(string? value) => Line(value ?? "");
    }

    private sealed class TerminalOutput : IAnsiConsoleOutput
    {
        public TextWriter Writer => Output.Writer;

        public bool IsTerminal => Output.IsTerminal;

        public int Width => Columns;

        public int Height => Terminals.Size(OutputDescriptor).Rows;

        public void SetEncoding(Encoding encoding)
        {
            // It is UTF-8.
        }
    }
}
