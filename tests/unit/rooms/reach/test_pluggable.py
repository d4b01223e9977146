"""The contract of pluggable transports, by the text of pt-spec and its examples."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.address import Target
from outlast.errors import UsageError
from outlast.rooms.reach.proto.pluggable import (
    ARGS_MAX_BYTES,
    LINE_MAX_BYTES,
    ClientDemand,
    CMethod,
    CMethodError,
    CMethodsDone,
    Contract,
    DemandError,
    EnvError,
    Log,
    Message,
    PluggableError,
    Proxy,
    ProxyDone,
    ProxyError,
    ServerDemand,
    SMethod,
    SMethodError,
    SMethodsDone,
    Status,
    Version,
    VersionError,
    decode_args,
    encode_args,
    read_address,
    read_demand,
    read_line,
    write_demand,
    write_line,
)

NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
ARGS = st.dictionaries(WORDS, WORDS, max_size=4)
PLACES = st.builds(Target, st.ip_addresses().map(str), st.integers(1, 65535))
CLIENT = {
    "TOR_PT_MANAGED_TRANSPORT_VER": "1",
    "TOR_PT_STATE_LOCATION": "/var/lib/tor/pt_state/",
    "TOR_PT_EXIT_ON_STDIN_CLOSE": "1",
    "TOR_PT_PROXY": "socks5://127.0.0.1:8001",
    "TOR_PT_CLIENT_TRANSPORTS": "obfs3,obfs4",
}
SERVER = {
    "TOR_PT_MANAGED_TRANSPORT_VER": "2b,1",
    "TOR_PT_STATE_LOCATION": "/var/lib/tor/pt_state",
    "TOR_PT_SERVER_TRANSPORTS": "obfs3,scramblesuit",
    "TOR_PT_SERVER_TRANSPORT_OPTIONS": r"scramblesuit:key=banana;automata:rule=110;automata:de\:p\=th=3\;\\",
    "TOR_PT_SERVER_BINDADDR": "obfs3-198.51.100.1:1984,scramblesuit-[2001:db8::1]:4891",
    "TOR_PT_ORPORT": "127.0.0.1:9001",
    "TOR_PT_EXTENDED_SERVER_PORT": "127.0.0.1:4200",
    "TOR_PT_AUTH_COOKIE_FILE": "/var/lib/tor/extended_orport_auth_cookie",
}


def test_the_client_environment_of_the_specification_is_read() -> None:
    assert read_demand(CLIENT) == ClientDemand(
        "/var/lib/tor/pt_state/", True, ("obfs3", "obfs4"), Proxy("socks5", Target("127.0.0.1", 8001))
    )


def test_the_server_environment_of_the_specification_is_read() -> None:
    assert read_demand(SERVER) == ServerDemand(
        "/var/lib/tor/pt_state",
        False,
        ("obfs3", "scramblesuit"),
        Target("127.0.0.1", 9001),
        {"obfs3": Target("198.51.100.1", 1984), "scramblesuit": Target("2001:db8::1", 4891)},
        {"scramblesuit": {"key": "banana"}, "automata": {"rule": "110", "de:p=th": "3;\\"}},
        Target("127.0.0.1", 4200),
        "/var/lib/tor/extended_orport_auth_cookie",
    )


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"TOR_PT_MANAGED_TRANSPORT_VER": None}, EnvError),
        ({"TOR_PT_MANAGED_TRANSPORT_VER": "2,3"}, VersionError),
        ({"TOR_PT_MANAGED_TRANSPORT_VER": "1,,2"}, VersionError),
        ({"TOR_PT_STATE_LOCATION": None}, EnvError),
        ({"TOR_PT_CLIENT_TRANSPORTS": None}, EnvError),
        ({"TOR_PT_CLIENT_TRANSPORTS": "obfs4,../x"}, EnvError),
        ({"TOR_PT_CLIENT_TRANSPORTS": "a" * 70_000}, EnvError),
        ({"TOR_PT_SERVER_TRANSPORTS": "obfs4"}, EnvError),
        ({"TOR_PT_PROXY": "socks9://127.0.0.1:1"}, ProxyError),
        ({"TOR_PT_PROXY": "http://proxy.example:1"}, ProxyError),
        ({"TOR_PT_PROXY": "http://127.0.0.1:1/there"}, ProxyError),
        ({"TOR_PT_PROXY": "http://127.0.0.1"}, ProxyError),
        ({"TOR_PT_PROXY": "http://[::1:1"}, ProxyError),
    ],
)
def test_an_environment_that_cannot_be_is_answered_by_the_right_message(
    change: dict[str, str | None], answer: type[Message]
) -> None:
    environ = {name: value for name, value in (CLIENT | change).items() if value is not None}
    with pytest.raises(DemandError) as caught:
        read_demand(environ)
    assert isinstance(caught.value.message, answer)


@pytest.mark.parametrize(
    "change",
    [
        {"TOR_PT_ORPORT": "", "TOR_PT_EXTENDED_SERVER_PORT": ""},
        {"TOR_PT_AUTH_COOKIE_FILE": ""},
        {"TOR_PT_ORPORT": "localhost:9001"},
        {"TOR_PT_SERVER_BINDADDR": "obfs3"},
        {"TOR_PT_SERVER_BINDADDR": "obfs3-127.0.0.1:1,obfs3-127.0.0.1:2"},
        {"TOR_PT_SERVER_TRANSPORT_OPTIONS": "obfs3"},
        {"TOR_PT_SERVER_TRANSPORT_OPTIONS": "obfs3:key"},
        {"TOR_PT_SERVER_TRANSPORT_OPTIONS": "obfs3:key=a\\"},
        {"TOR_PT_SERVER_TRANSPORT_OPTIONS": ";".join(f"a{i}:k=v" for i in range(100))},
        {"TOR_PT_SERVER_TRANSPORT_OPTIONS": ";".join(f"a:k{i}=v" for i in range(100))},
    ],
)
def test_a_server_environment_that_cannot_be_is_an_error_of_the_environment(change: dict[str, str]) -> None:
    with pytest.raises(DemandError) as caught:
        read_demand(SERVER | change)
    assert isinstance(caught.value.message, EnvError)


@given(
    st.booleans(),
    st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple),
    st.none() | st.builds(Proxy, st.sampled_from(["socks5", "socks4a", "http"]), PLACES, WORDS, WORDS),
)
def test_a_client_reads_what_a_parent_writes(ends: bool, names: tuple[str, ...], proxy: Proxy | None) -> None:
    demand = ClientDemand("/state", ends, names, proxy)
    assert read_demand(write_demand(demand)) == demand


@given(NAMES, PLACES, ARGS.filter(bool), st.none() | PLACES)
def test_a_server_reads_what_a_parent_writes(
    name: str, at: Target, options: dict[str, str], extended: Target | None
) -> None:
    cookie = "/cookie" if extended else ""
    demand = ServerDemand("/state", True, (name,), at, {name: at}, {name: options}, extended, cookie)
    assert read_demand(write_demand(demand)) == demand


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"VERSION 1", Version()),
        (b"VERSION-ERROR no-version", VersionError()),
        (b"ENV-ERROR No TOR_PT_AUTH_COOKIE_FILE", EnvError("No TOR_PT_AUTH_COOKIE_FILE")),
        (b"PROXY DONE", ProxyDone()),
        (b"PROXY-ERROR SOCKS 4 upstream proxies unsupported.", ProxyError("SOCKS 4 upstream proxies unsupported.")),
        (b"CMETHOD trebuchet socks5 127.0.0.1:19999", CMethod("trebuchet", "socks5", Target("127.0.0.1", 19999))),
        (b"CMETHOD-ERROR trebuchet no rocks available", CMethodError("trebuchet", "no rocks available")),
        (b"CMETHODS DONE", CMethodsDone()),
        (b"SMETHOD trebuchet 198.51.100.1:19999", SMethod("trebuchet", Target("198.51.100.1", 19999))),
        (
            rb"SMETHOD rot_by_N 198.51.100.1:2323 OTHER:x ARGS:N=13,a\,b=c\=d",
            SMethod("rot_by_N", Target("198.51.100.1", 2323), {"N": "13", "a,b": "c=d"}),
        ),
        (b"SMETHOD-ERROR trebuchet no cows available", SMethodError("trebuchet", "no cows available")),
        (b"SMETHODS DONE", SMethodsDone()),
        (rb'LOG SEVERITY=debug MESSAGE="a \"b\" \\ \101"', Log("debug", 'a "b" \\ A')),
        (
            b'STATUS TRANSPORT=snowflake ADDRESS=[::1]:1 TEXT="two words"',
            Status({"TRANSPORT": "snowflake", "ADDRESS": "[::1]:1", "TEXT": "two words"}),
        ),
    ],
)
def test_every_message_of_the_specification_is_read_and_written(line: bytes, message: Message) -> None:
    assert read_line(line) == message
    assert read_line(write_line(message).rstrip(b"\n")) == message


@pytest.mark.parametrize("line", [b"CMETHODS MAYBE", b"PROXY", b"NEWS of the day", b"METHOD obfs4"])
def test_keywords_that_are_not_known_are_passed_over(line: bytes) -> None:
    assert read_line(line) is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b" VERSION 1",
        b"CMETHOD",
        b"CMETHOD obfs4 socks5 localhost:1",
        b"CMETHOD obfs4 socks5 127.0.0.1:0",
        b"CMETHOD obfs4 socks5 127.0.0.1:65536",
        b"CMETHOD obfs4 socks5 127.0.0.1:" + b"9" * 5000,
        b"CMETHOD obfs4 socks5 [127.0.0.1]:1",
        b"CMETHOD obfs4 socks5 ::1:1",
        b"CMETHOD obfs4 http 127.0.0.1:1",
        b"CMETHOD ../x socks5 127.0.0.1:1",
        b"CMETHOD-ERROR",
        b"SMETHOD obfs4 1.2.3.4:5 ARGS:novalue",
        b"SMETHOD obfs4 1.2.3.4:5 ARGS:a=b\\",
        b"SMETHOD obfs4 1.2.3.4:5 ARGS:" + b",".join(b"k%d=v" % i for i in range(100)),
        b"LOG SEVERITY=error",
        b'LOG SEVERITY=error MESSAGE="no end',
        b"X" * (LINE_MAX_BYTES + 1),
    ],
)
def test_garbled_lines_break_the_contract(line: bytes) -> None:
    with pytest.raises(PluggableError) as caught:
        read_line(line)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@given(NAMES, PLACES, ARGS, TEXTS)
def test_what_a_child_writes_a_parent_reads(name: str, at: Target, args: dict[str, str], text: str) -> None:
    for message in (SMethod(name, at, args), CMethod(name, "socks5", at), Log("notice", text.strip())):
        line = write_line(message)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert read_line(line[:-1]) == message


@given(ARGS)
def test_a_bridges_arguments_come_through_socks_as_they_were(args: dict[str, str]) -> None:
    user, password = encode_args(args)
    assert len(user) <= 255 >= len(password) > 0
    assert decode_args(user, password) == args


def test_arguments_are_escaped_and_parted_as_the_specification_says() -> None:
    example = {"shared-secret": "rahasia", "secrets-file": "/tmp/blob"}
    assert encode_args(example) == (b"shared-secret=rahasia;secrets-file=/tmp/blob", b"\0")
    assert encode_args({"a": "=;\\"}) == (rb"a=\=\;\\", b"\0")
    user, password = encode_args({"k": "v" * 400})
    assert (user, password) == (b"k=" + b"v" * 253, b"v" * 147)


def test_a_value_with_a_bare_equal_sign_is_read_as_tor_sends_it() -> None:
    assert decode_args(b"cert=abc=;url=https://a.example/?q=1", b"\0") == {
        "cert": "abc=",
        "url": "https://a.example/?q=1",
    }


@pytest.mark.parametrize(
    ("user", "password"),
    [(b"novalue", b"\0"), (b"=v", b"\0"), (b"a=\xff", b"\0"), (b"a=b\\", b"\0"), (b"a=\n", b"\0"), (b"a=b;", b"\0")],
)
def test_arguments_that_are_none_are_refused(user: bytes, password: bytes) -> None:
    with pytest.raises(PluggableError):
        decode_args(user, password)


@pytest.mark.parametrize("args", [{"k": "v" * ARGS_MAX_BYTES}, {"": "v"}, {"k": "a\nCMETHODS DONE"}])
def test_arguments_that_cannot_be_handed_on_are_the_persons_error(args: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        encode_args(args)


@pytest.mark.parametrize(
    "text", ["", ":", "1.2.3.4", "1.2.3.4:", "1.2.3.4:-1", "1.2.3.4:٣", "[fe80::1%eth0]:1", "[]:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(PluggableError):
        read_address(text)


WANTED = ClientDemand("/state", True, ("obfs4", "snowflake"))
OFFERED = ServerDemand("/state", True, ("obfs4",), Target("127.0.0.1", 1))


def contract(demand: ClientDemand | ServerDemand, *lines: bytes) -> Contract:
    judge = Contract(demand)
    for line in lines:
        judge.take(line)
    return judge


def test_methods_are_known_when_the_child_has_named_them_all() -> None:
    judge = contract(WANTED, b"VERSION 1", b"CMETHOD-ERROR snowflake no flakes", b"CMETHOD obfs4 socks5 127.0.0.1:4")
    assert not judge.ready
    judge.take(b"CMETHODS DONE")
    assert judge.ready
    assert judge.methods == {"obfs4": CMethod("obfs4", "socks5", Target("127.0.0.1", 4))}
    assert judge.errors == {"snowflake": "no flakes"}
    assert judge.take(b"LOG SEVERITY=warning MESSAGE=hi") == Log("warning", "hi")


def test_of_a_transport_that_the_child_passes_over_it_is_said_so() -> None:
    assert contract(OFFERED, b"VERSION 1", b"SMETHODS DONE").errors == {"obfs4": "it does not know this transport"}


def test_a_method_that_nobody_asked_for_is_none() -> None:
    judge = contract(WANTED, b"VERSION 1", b"CMETHOD meek socks5 127.0.0.1:4", b"CMETHOD snowflake socks4 127.0.0.1:5")
    assert judge.methods == {}
    assert judge.errors == {"snowflake": "it speaks SOCKS 4 only"}


PROXIED = WANTED._replace(proxy=Proxy("socks5", Target("127.0.0.1", 9)))


@pytest.mark.parametrize(
    ("demand", "lines"),
    [
        (WANTED, [b"VERSION 2"]),
        (WANTED, [b"ENV-ERROR no"]),
        (WANTED, [b"VERSION-ERROR no-version"]),
        (WANTED, [b"VERSION 1", b"PROXY-ERROR no"]),
        (WANTED, [b"CMETHOD obfs4 socks5 127.0.0.1:4"]),
        (WANTED, [b"VERSION 1", b"CMETHOD obfs4 socks5 192.0.2.1:4"]),
        (WANTED, [b"VERSION 1", b"CMETHOD obfs4 socks5 127.0.0.1:4", b"CMETHOD obfs4 socks5 127.0.0.1:5"]),
        (WANTED, [b"VERSION 1", b"SMETHODS DONE"]),
        (WANTED, [b"VERSION 1", b"CMETHODS DONE", b"CMETHOD obfs4 socks5 127.0.0.1:4"]),
        (OFFERED, [b"VERSION 1", b"CMETHODS DONE"]),
        (PROXIED, [b"VERSION 1", b"CMETHOD obfs4 socks5 127.0.0.1:4", b"CMETHODS DONE"]),
    ],
)
def test_a_child_that_lies_or_speaks_out_of_turn_breaks_the_contract(
    demand: ClientDemand | ServerDemand, lines: list[bytes]
) -> None:
    judge = contract(demand, *lines[:-1])
    with pytest.raises(PluggableError):
        judge.take(lines[-1])


def test_a_child_that_says_so_may_use_the_proxy() -> None:
    assert contract(PROXIED, b"VERSION 1", b"PROXY DONE", b"CMETHODS DONE").ready


@given(st.lists(st.binary(max_size=60) | st.from_regex(rb"[CS]METHOD[A-Z -]*[ -~]{0,40}", fullmatch=True), max_size=8))
def test_no_child_makes_the_judge_fail_otherwise(lines: list[bytes]) -> None:
    judge = contract(WANTED, b"VERSION 1")
    for line in lines:
        with suppress(PluggableError):
            judge.take(line)
    assert all(method.at.host in ("127.0.0.1", "::1") for method in judge.methods.values())
