// SPDX-License-Identifier: Apache-2.0
using System.Reflection;
using System.Text.RegularExpressions;
using Xunit;

namespace VSmp.Client.Tests;

/// <summary>The client says what vsmp.h says, and needs nothing else.</summary>
public sealed partial class HeaderTests
{
    private static readonly string Header = ReadHeader();

    [Fact]
    public void The_client_references_nothing_of_ours()
    {
        string?[] names = [.. typeof(Job).Assembly.GetReferencedAssemblies().Select(name => name.Name)];
        Assert.DoesNotContain(names, name => name!.Contains("vsmp", StringComparison.OrdinalIgnoreCase));
    }

    [Fact]
    public void Every_function_of_the_header_is_imported_with_its_parameters_and_nothing_else_is()
    {
        Dictionary<string, string> declared = Declarations().Matches(Header).ToDictionary(
            match => match.Groups["name"].Value,
            match => $"{Translate(match.Groups["type"].Value)}({string.Join(", ", Parameters(match.Groups["parameters"].Value))})");
        Dictionary<string, string> imported = typeof(NativeMethods).GetMethods(BindingFlags.Static | BindingFlags.NonPublic)
            .Where(method => method.Name.StartsWith("vsmp_", StringComparison.Ordinal))
            .ToDictionary(method => method.Name,
                method => $"{Describe(method.ReturnType)}({string.Join(", ", method.GetParameters().Select(p => Describe(p.ParameterType)))})");
        Assert.True(declared.Count > 15, $"the header was not understood: {declared.Count} functions");
        Assert.Equal(declared.OrderBy(pair => pair.Key, StringComparer.Ordinal), imported.OrderBy(pair => pair.Key, StringComparer.Ordinal));
    }

    [Fact]
    public void The_version_is_the_headers() =>
        Assert.Contains($"#define VSMP_API_VERSION {NativeMethods.ApiVersion}\n", Header, StringComparison.Ordinal);

    [Fact]
    public void Memory_is_bounded_by_its_length()
    {
        SharedMemory<long> memory = new(0x1000, 10);
        Assert.Throws<ArgumentOutOfRangeException>(() => memory[10]);
        Assert.Throws<ArgumentOutOfRangeException>(() => memory[-1]);
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Slice(8, 3));
        Assert.Equal(new SharedMemory<long>(0x1040, 2), memory.Slice(8, 2));
    }

    private static IEnumerable<string> Parameters(string text) => text.Trim() == "void"
        ? []
        : text.Split(',').Select(parameter => Translate(ParameterName().Replace(parameter.Trim(), "")));

    // The type of .NET that a type of the header must be.
    private static string Translate(string type) => type.Replace(" ", "", StringComparison.Ordinal) switch
    {
        "int" => "Int32",
        "size_t" => "UIntPtr",
        "uint64_t" => "UInt64",
        "uint64_t*" => "UInt64*",
        "int64_t" => "Int64",
        "int64_t*" => "Int64*",
        "void*" => "Void*",
        "constchar*" => "char*",
        "structvsmp_region*" or "conststructvsmp_region*" => "IntPtr",
        "structvsmp_region**" => "IntPtr&",
        string other => throw new InvalidOperationException($"the header uses '{other}'"),
    };

    // A string is the same to the header going in (a String here) and coming out (bytes here).
    private static string Describe(Type type) => type == typeof(string) || type == typeof(byte).MakePointerType() ? "char*" : type.Name;

    private static string ReadHeader()
    {
        using Stream stream = typeof(HeaderTests).Assembly.GetManifestResourceStream("vsmp.h")!;
        using StreamReader reader = new(stream);
        return reader.ReadToEnd();
    }

    [GeneratedRegex(@"^VSMP_API (?<type>[a-z0-9_ ]*?[ *]+)(?<name>vsmp_\w+)\((?<parameters>[^)]*)\);", RegexOptions.Multiline)]
    private static partial Regex Declarations();

    [GeneratedRegex(@"\w+$")]
    private static partial Regex ParameterName();
}
