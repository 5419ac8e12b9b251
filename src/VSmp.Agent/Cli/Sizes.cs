// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Agent.Cli;

/// <summary>Sizes as people write and read them: powers of 1024.</summary>
internal static class Sizes
{
    /// <summary>Beyond this a size is a slip of the finger: x86-64 user space ends here (128 TiB).</summary>
    public const ulong MaxBytes = 1ul << 47;

    private const string Units = "KMGTP";

    /// <summary>Reads <c>512M</c>, <c>2G</c>, <c>1.5GiB</c> or plain bytes.</summary>
    /// <param name="text">What the user wrote.</param>
    /// <param name="bytes">The size, above zero.</param>
    /// <param name="error">What is wrong with it, or null.</param>
    public static bool TryParse(string text, out ulong bytes, out string? error)
    {
        bytes = 0;
        error = null;
        string trimmed = text.Trim();
        int digits = 0;
        while (digits < trimmed.Length && (char.IsAsciiDigit(trimmed[digits]) || trimmed[digits] is '.' or '-' or '+')) digits++;
        string unit = trimmed[digits..].Trim();
        if (!decimal.TryParse(trimmed.AsSpan(0, digits), NumberStyles.AllowDecimalPoint | NumberStyles.AllowLeadingSign,
            CultureInfo.InvariantCulture, out decimal number))
        {
            // A number that long is no slip in the format.
            bool isNumber = digits > 0 && trimmed[..digits].All(char.IsAsciiDigit);
            error = isNumber ? $"'{text}' is too large a size" : $"'{text}' is no size: write it like 512M, 2G or 1.5GiB";
            return false;
        }
        int power = 0;
        if (unit.Length > 0 && !unit.Equals("B", StringComparison.OrdinalIgnoreCase))
        {
            power = Units.IndexOf(char.ToUpperInvariant(unit[0]), StringComparison.Ordinal) + 1;
            if (power == 0 || !(unit.Length == 1 || unit[1..].Equals("iB", StringComparison.OrdinalIgnoreCase)))
            {
                error = $"'{text}' has a unit that is not known: write K, M, G or T (or KiB, MiB, GiB, TiB), powers of 1024";
                return false;
            }
        }
        if (number <= 0)
        {
            error = $"'{text}' is no size: it must be above zero";
            return false;
        }
        decimal scale = 1ul << (10 * power);
        if (number > MaxBytes / scale)
        {
            error = $"'{text}' is too large a size: {Format(MaxBytes)} at most";
            return false;
        }
        bytes = (ulong)(number * scale);
        if (bytes > 0) return true;
        error = $"'{text}' is less than a byte";
        return false;
    }

    /// <summary>A size in the unit that keeps it short: <c>512 MiB</c>, <c>1.5 GiB</c>.</summary>
    public static string Format(ulong bytes)
    {
        if (bytes < 1024) return $"{bytes} B";
        double value = bytes;
        int power = 0;
        while (value >= 1023.95 && power < Units.Length)
        {
            value /= 1024;
            power++;
        }
        string format = value >= 100 || Math.Abs(value - Math.Round(value)) < 0.05 ? "0" : "0.0";
        return $"{value.ToString(format, CultureInfo.InvariantCulture)} {Units[power - 1]}iB";
    }
}
