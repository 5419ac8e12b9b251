// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Membership.Etcd;
using Xunit;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>Addresses of etcd as people write them.</summary>
public sealed class EtcdAddressTests
{
    [Theory]
    [InlineData("etcd://10.0.0.1:2379", "http://10.0.0.1:2379/")]
    [InlineData("ETCD://a.example:2379,b:1/", "http://a.example:2379/ http://b:1/")]
    [InlineData("etcds://[fd00::1]:2379,[::1]:65535", "https://[fd00::1]:2379/ https://[::1]:65535/")]
    public void Members_are_hosts_with_ports_by_name_or_number(string text, string endpoints)
    {
        EtcdAddress address = EtcdAddress.Parse(text);
        Assert.Equal(endpoints, string.Join(' ', address.Endpoints));
        Assert.Equal(endpoints.StartsWith("https", StringComparison.Ordinal), address.IsTls);
        Assert.Null(address.User);
        Assert.Null(address.CaFile);
    }

    [Fact]
    public void Options_follow_as_a_query_and_paths_become_absolute()
    {
        EtcdAddress address = EtcdAddress.Parse(
            "etcds://h:2379?user=vs%26mp&password-file=pw&ca=/etc/ca%20file.pem&cert=/c+d.pem&key=../k.pem");
        Assert.Equal("vs&mp", address.User);
        Assert.Equal(Path.GetFullPath("pw"), address.PasswordFile);
        Assert.Equal("/etc/ca file.pem", address.CaFile);
        Assert.Equal("/c+d.pem", address.CertificateFile);
        Assert.Equal(Path.GetFullPath("../k.pem"), address.KeyFile);
        Assert.Equal("etcds://h:2379", address.ToString());
    }

    [Theory]
    [InlineData("10.0.0.1:2379", "does not begin with")]
    [InlineData("http://h:2379", "does not begin with")]
    [InlineData("etcd://", "lacks a host")]
    [InlineData("etcd://h:1,,g:1", "lacks a host")]
    [InlineData("etcd://:2379", "no valid host")]
    [InlineData("etcd://h", "no port behind 'h'")]
    [InlineData("etcd://[::1]", "no port behind '[::1]'")]
    [InlineData("etcd://h:", "no valid port")]
    [InlineData("etcd://h:0", "no valid port")]
    [InlineData("etcd://h:65536", "no valid port")]
    [InlineData("etcd://h:+1", "no valid port")]
    [InlineData("etcd://::1:2379", "without brackets")]
    [InlineData("etcd://[::g]:2379", "no valid host")]
    [InlineData("etcd://a b:2379", "no valid host")]
    [InlineData("etcd://h:1,h:1", "names h:1 twice")]
    [InlineData("etcd://h:1/path", "has a path")]
    [InlineData("etcd://h:1?colour=red", "unknown option 'colour'")]
    [InlineData("etcd://h:1?user", "no value for 'user'")]
    [InlineData("etcd://h:1?user=", "no value for 'user'")]
    [InlineData("etcd://h:1?user=a", "user= but no password-file=")]
    [InlineData("etcd://h:1?password-file=/a", "password-file= but no user=")]
    [InlineData("etcds://h:1?cert=/a", "cert= but no key=")]
    [InlineData("etcds://h:1?ca=/a&ca=/b", "'ca' twice")]
    [InlineData("etcd://h:1?ca=/a", "begin it with etcds://")]
    public void What_is_no_address_is_refused_with_the_reason_and_what_to_write(string text, string reason)
    {
        CommandException refusal = Assert.Throws<CommandException>(() => EtcdAddress.Parse(text));
        Assert.Equal(ExitCodes.Usage, refusal.ExitCode);
        Assert.Contains(reason, refusal.Message, StringComparison.Ordinal);
        Assert.Contains("write etcd://HOST:PORT", refusal.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("etcd://vsmp:hunter2@h:2379", "?user=NAME&password-file=PATH")]
    [InlineData("etcd://h:2379?user=vsmp&password=hunter2", "password-file=PATH")]
    public void A_password_in_it_is_refused_and_not_repeated(string text, string advice)
    {
        string message = Assert.Throws<CommandException>(() => EtcdAddress.Parse(text)).Message;
        Assert.Contains(advice, message, StringComparison.Ordinal);
        Assert.DoesNotContain("hunter2", message, StringComparison.Ordinal);
    }
}
