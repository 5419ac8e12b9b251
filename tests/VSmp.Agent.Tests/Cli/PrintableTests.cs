// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Cli;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Cli;

public sealed class PrintableTests
{
    [Theory]
    [InlineData("heat", "heat")]
    [InlineData("Wärme 熱 🔥", "Wärme 熱 🔥")]
    [InlineData("a\x1b[31mb", @"a\u{1b}[31mb")]
    [InlineData("a\nb\u0085c\u2028d", @"a\u{a}b\u{85}c\u{2028}d")]
    [InlineData("\u202egnp", @"\u{202e}gnp")]
    [InlineData("\u200b", @"\u{200b}")]
    public void What_a_terminal_would_obey_is_written_as_its_number(string text, string expected) => Assert.Equal(expected, Printable.Of(text));

    [Fact]
    public void Half_a_surrogate_pair_is_shown_as_what_is_no_text() => Assert.Equal("a\ufffdb", Printable.Of("a\ud800b"));

    [Fact]
    public void Cells_of_a_picture_are_the_darker_the_more_of_their_pages_are_marked()
    {
        var picture = new RegionPicture(64 * 8);
        foreach ((ulong cell, ulong pages) in new (ulong, ulong)[] { (0, 1), (1, 2), (2, 3), (3, 5), (4, 6), (5, 7), (63, 8) })
        {
            for (ulong i = 0; i < pages; i++) picture.Mark(new PageNumber((cell * 8) + i));
        }
        Assert.Equal($"│░░▒▓▓█{new string(' ', 57)}█│", picture.ToString());
        Assert.Equal(32ul, picture.Marked);
    }

    [Theory]
    [InlineData(1ul)]
    [InlineData(3ul)]
    [InlineData(64ul)]
    [InlineData(65ul)]
    [InlineData(1000ul)]
    public void Each_page_has_a_cell(ulong pageCount)
    {
        var picture = new RegionPicture(pageCount);
        for (ulong page = 0; page < pageCount; page++) picture.Mark(new PageNumber(page));
        Assert.Equal($"│{new string('█', (int)Math.Min(pageCount, 64))}│", picture.ToString());
        _ = new RegionPicture(1ul << 35); // the largest
    }
}
