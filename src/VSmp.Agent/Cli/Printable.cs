// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text;

namespace VSmp.Agent.Cli;

/// <summary>Texts from files that anybody may have written, for a terminal.</summary>
internal static class Printable
{
    /// <summary>The text, with what a terminal would obey, or would not show as it stands, written as its number: <c>\u{1b}</c>.</summary>
    public static string Of(string text)
    {
        StringBuilder shown = new(text.Length);
        foreach (Rune rune in text.EnumerateRunes()) // what is none comes as U+FFFD
        {
            bool isSafe = Rune.GetUnicodeCategory(rune) is not (UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator
                or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned);
            if (isSafe) shown.Append(rune);
            else shown.Append(CultureInfo.InvariantCulture, $"\\u{{{rune.Value:x}}}");
        }
        return shown.ToString();
    }
}
