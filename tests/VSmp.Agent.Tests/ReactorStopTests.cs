// SPDX-License-Identifier: Apache-2.0
using Xunit;

namespace VSmp.Agent.Tests;

public sealed class ReactorStopTests
{
    /// <remarks>Whoever stops a reactor has closed things by it just before.</remarks>
    [Fact]
    public void What_was_posted_before_it_is_stopped_is_done()
    {
        for (int i = 0; i < 2000; i++)
        {
            using Reactor reactor = new(maxSpinMicroseconds: 0);
            bool isDone = false;
            reactor.AtTurnEnd(() => Thread.SpinWait(i % 50)); // the loop is anywhere when it is told
            Thread loop = new(reactor.Run);
            loop.Start();
            for (int turn = 0; turn < i % 7; turn++) reactor.Post(static () => { });
            reactor.Post(() => isDone = true);
            reactor.Stop();
            loop.Join();
            Assert.True(isDone, $"not the {i}. time");
        }
    }
}
