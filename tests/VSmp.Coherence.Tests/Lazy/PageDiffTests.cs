// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Lazy;

namespace VSmp.Coherence.Tests.Lazy;

public sealed class PageDiffTests
{
    [Fact]
    public void A_diff_carries_exactly_the_bytes_that_changed()
    {
        for (int seed = 0; seed < 400; seed++)
        {
            var random = new Random(seed);
            byte[] twin = new byte[PageNumber.Bytes], other = new byte[PageNumber.Bytes], diff = new byte[PageDiff.MaxBytes];
            random.NextBytes(twin);
            random.NextBytes(other);
            byte[] page = [.. twin];
            int runs = seed < 8 ? seed : random.Next(600);
            for (int i = 0; i < runs; i++)
            {
                int at = random.Next(PageNumber.Bytes), end = Math.Min(PageNumber.Bytes, at + 1 + random.Next(20));
                for (; at < end; at++) page[at] = (byte)random.Next(256);
            }
            if (seed % 3 == 0) page[0]++;
            if (seed % 3 == 1) page[^1]++;
            int bytes = PageDiff.Write(twin, page, diff);
            Assert.Null(PageDiff.Violation(diff.AsSpan(0, bytes)));
            // On top of what somebody else wrote, only what changed is changed.
            byte[] merged = [.. other];
            PageDiff.Apply(diff.AsSpan(0, bytes), merged);
            for (int i = 0; i < PageNumber.Bytes; i++) Assert.True(merged[i] == (page[i] != twin[i] ? page[i] : other[i]), $"seed {seed}, byte {i}");
        }
    }

    [Fact]
    public void The_longest_diff_fits_and_an_unchanged_page_has_none()
    {
        byte[] twin = new byte[PageNumber.Bytes], page = new byte[PageNumber.Bytes], diff = new byte[PageDiff.MaxBytes];
        Assert.Equal(0, PageDiff.Write(twin, page, diff));
        for (int i = 0; i < page.Length; i += 2) page[i] = 1;
        Assert.Equal(PageDiff.MaxBytes, PageDiff.Write(twin, page, diff));
        Assert.Null(PageDiff.Violation(diff));
        page.AsSpan().Fill(1);
        Assert.Equal(PageDiff.RunHeaderBytes + PageNumber.Bytes, PageDiff.Write(twin, page, diff));
    }

    [Theory]
    [InlineData("000001")]
    [InlineData("00000000")] // an empty run
    [InlineData("0000020011")] // cut short
    [InlineData("0010010011")] // beyond the page
    [InlineData("FF0F02001122")]
    [InlineData("FFFFFFFF")]
    [InlineData("0500010011" + "0500010011")] // twice the same
    [InlineData("0500010011" + "0600010011")] // should be one run
    [InlineData("0500010011" + "0000010011")] // backwards
    [InlineData("0500010011" + "07")]
    public void A_diff_that_no_writer_writes_is_refused_whole(string hex) => Assert.NotNull(PageDiff.Violation(Convert.FromHexString(hex)));

    [Fact]
    public void Whatever_comes_is_refused_or_stays_within_its_page()
    {
        var random = new Random(4711);
        int accepted = 0;
        for (int i = 0; i < 20_000; i++)
        {
            byte[] bytes = new byte[random.Next(24)];
            random.NextBytes(bytes);
            for (int b = 1; b < bytes.Length; b += 2) bytes[b] &= 3; // near what is right
            if (PageDiff.Violation(bytes) is not null) continue;
            accepted++;
            PageDiff.Apply(bytes, new byte[PageNumber.Bytes]);
        }
        Assert.True(accepted > 100, $"only {accepted} were accepted");
        Assert.NotNull(PageDiff.Violation(new byte[PageDiff.MaxBytes + 1]));
    }
}
