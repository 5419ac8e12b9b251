// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Interop;

/// <summary>Sockets that are made anew under the path of others, while somebody tries to connect.</summary>
public sealed class UnixSocketTests
{
    [Fact]
    public async Task A_socket_that_takes_the_place_of_another_is_there_all_the_time_and_lets_in_whom_it_is_to_let_in()
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("vsmp-socket-");
        string path = Path.Combine(folder.FullName, "guest.sock");
        const UnixFileMode Wanted = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite;
        uint group = UnixFile.Look(folder.FullName, followLink: false)!.Value.GroupId;
        try
        {
            UnixSocket socket = UnixSocket.Listen(path, UnixSocketType.SequencedPacket, group);
            bool isOver = false;
            using var looks = new SemaphoreSlim(0);
            Task<string?> watcher = Task.Run(() =>
            {
                for (looks.Release(); !Volatile.Read(ref isOver);)
                {
                    if (UnixFile.Look(path, followLink: false) is not { } found) return "it is not there";
                    if ((UnixFileMode)(found.Mode & 0x1FF) != Wanted) return $"its mode is {(UnixFileMode)(found.Mode & 0x1FF)}";
                }
                return null;
            });
            await looks.WaitAsync(TestContext.Current.CancellationToken);
            for (int i = 0; i < 2000 && !watcher.IsCompleted; i++)
            {
                socket.Dispose();
                socket = UnixSocket.Listen(path, UnixSocketType.SequencedPacket, group);
            }
            Volatile.Write(ref isOver, true);
            string? seen = await watcher;
            using UnixSocket peer = UnixSocket.Connect(path, UnixSocketType.SequencedPacket);
            socket.Dispose();
            Assert.Null(seen);
            Assert.Equal([path], Directory.GetFiles(folder.FullName));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }
}
