"""Links of bridges: each form that people send is read, written in one way, and refused with one line that helps."""

from __future__ import annotations

import base64
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.address import Target
from outlast.errors import UsageError
from outlast.rooms.reach.proto.bridge import (
    Bridge,
    PluggedBridge,
    ProxyBridge,
    ShadowsocksBridge,
    TorBridge,
    Tricks,
    WebBridge,
)
from outlast.rooms.reach.proto.links import (
    KEY_BYTES_2022,
    LINK_MAX_CHARS,
    bridge_id,
    label_of,
    read_bridge,
    read_bridges,
    write_bridge,
)

CERT = base64.b64encode(bytes(range(52))).decode().rstrip("=")
PRINT = "0123456789ABCDEF0123456789ABCDEF01234567"
AT = Target("192.0.2.7", 8443)
KEY = base64.b64encode(bytes(range(32))).decode()

names = st.from_regex(r"[a-z0-9]{1,10}(\.[a-z][a-z0-9]{0,10}){0,3}[a-z]", fullmatch=True)
hosts = names | st.ip_addresses().map(str).filter(lambda text: "%" not in text)
targets = st.builds(Target, hosts, st.integers(1, 65535))
printable = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=40)
labels = printable.map(label_of)
secrets = st.binary(min_size=32, max_size=32)
nothing_or_key = st.just(b"") | secrets
args = st.dictionaries(
    st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True), st.from_regex(r"[!-~]{0,40}", fullmatch=True), max_size=4
)
methods = st.sampled_from(["aes-128-gcm", "aes-256-gcm", "chacha20-ietf-poly1305"])


def key_for(method: str) -> st.SearchStrategy[str]:
    size = KEY_BYTES_2022[method]
    return st.binary(min_size=size, max_size=size).map(lambda key: base64.b64encode(key).decode())


bridges: st.SearchStrategy[Bridge] = st.one_of(
    st.builds(WebBridge, targets, hosts, secrets, nothing_or_key, nothing_or_key, labels),
    st.builds(
        PluggedBridge, targets, st.sampled_from(["snowflake", "meek_lite"]), args, secrets, nothing_or_key, labels
    ),
    st.builds(ShadowsocksBridge, targets, methods, printable.filter(bool), labels),
    st.sampled_from(sorted(KEY_BYTES_2022)).flatmap(
        lambda method: st.builds(ShadowsocksBridge, targets, st.just(method), key_for(method), labels)
    ),
    st.builds(
        TorBridge,
        st.builds(Target, st.ip_addresses().map(str).filter(lambda text: "%" not in text), st.integers(1, 65535)),
        st.sampled_from(["snowflake", "webtunnel"]),
        st.sampled_from(["", PRINT]),
        args,
    ),
    st.builds(lambda name, port: TorBridge(Target(str(name), port)), st.ip_addresses(v=4), st.integers(1, 65535)),
    st.builds(ProxyBridge, targets, st.sampled_from(["socks5", "http"]), printable.filter(bool), printable),
    st.builds(ProxyBridge, targets, st.sampled_from(["socks5", "http"])),
    st.builds(
        Tricks,
        st.builds(Target, st.ip_addresses().map(str).filter(lambda text: "%" not in text), st.integers(1, 65535)),
        st.just("") | hosts,
        st.sampled_from(["/dns-query", "/", "/a/b.c"]),
    ),
)


@given(bridges)
def test_what_is_written_is_read_and_written_the_same(bridge: Bridge) -> None:
    text = write_bridge(bridge)
    assert read_bridge(text) == bridge
    assert write_bridge(read_bridge(text)) == text
    assert len(text) <= LINK_MAX_CHARS


@given(bridges.filter(lambda bridge: not isinstance(bridge, TorBridge)), st.data())
def test_what_people_and_programs_put_around_a_link_is_passed_over(bridge: Bridge, data: st.DataObject) -> None:
    text = write_bridge(bridge)
    at = data.draw(st.integers(text.index("://") + 3, len(text)))
    broken = text[:at] + data.draw(st.sampled_from(["\u200b", "\u00ad", "\r\n", ""])) + text[at:]
    around = data.draw(st.sampled_from(["{}", "<{}>", "«{}».", "  {}\n", '"{}",', "[{}]", "({})!"]))
    # A label keeps its words apart, so that what breaks a line inside it is seen as a space.
    if "#" not in text[:at]:
        assert read_bridge(around.format(broken)) == bridge


def test_a_line_may_break_within_the_beginning_of_a_link() -> None:
    bridge = WebBridge(Target("192.0.2.1", 443), "news.example", bytes(32))
    text = write_bridge(bridge)
    for at in range(text.index("://") + 3, len(text)):
        assert read_bridge(f"({text[:at]}\r\n{text[at:]})!") == bridge


@given(bridges)
def test_a_bridge_has_the_same_id_whatever_it_is_called(bridge: Bridge) -> None:
    found = bridge_id(bridge)
    assert len(found) == 16
    assert set(found) <= set("0123456789abcdef")
    if isinstance(bridge, ShadowsocksBridge):
        assert bridge_id(ShadowsocksBridge(bridge.at, bridge.method, bridge.password, "another name")) == found
        assert bridge_id(ShadowsocksBridge(bridge.at, "aes-256-gcm", KEY, "")) != found


@pytest.mark.parametrize(
    ("text", "bridge"),
    [
        # The two examples of SIP002.
        (
            "ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888#Example1",
            ShadowsocksBridge(Target("192.168.100.1", 8888), "aes-128-gcm", "test", "Example1"),
        ),
        (
            f"ss://2022-blake3-aes-256-gcm:{quote(KEY, safe='')}@192.168.100.1:8888/#Example%203",
            ShadowsocksBridge(Target("192.168.100.1", 8888), "2022-blake3-aes-256-gcm", KEY, "Example 3"),
        ),
        (
            f"ss://2022-blake3-aes-256-gcm:{KEY}@192.168.100.1:8888",
            ShadowsocksBridge(Target("192.168.100.1", 8888), "2022-blake3-aes-256-gcm", KEY),
        ),
        (
            "SS://" + base64.b64encode(b"chacha20-ietf-poly1305:a@b:c?").decode() + "@[2001:DB8:0::1]:443/?plugin=",
            ShadowsocksBridge(Target("2001:db8::1", 443), "chacha20-ietf-poly1305", "a@b:c?"),
        ),
        (
            "ss://YWVzLTEyOC1nY206dGVzdA%3D%3D@Example.ORG.:8888/?outline=1&plugin=none#%D0%9C",
            ShadowsocksBridge(Target("example.org", 8888), "aes-128-gcm", "test", "М"),
        ),
        (
            "ss://" + base64.b64encode(b"aes-256-gcm:p@ss/word@192.0.2.7:8443").decode() + "#old",
            ShadowsocksBridge(AT, "aes-256-gcm", "p@ss/word", "old"),
        ),
        (  # as channels that pass links on write them
            "ss://YWVzLTEyOC1nY206dGVzdA@192.0.2.7:8443?path=---@one---@two&security=none#@name",
            ShadowsocksBridge(AT, "aes-128-gcm", "test", "@name"),
        ),
        (
            f"obfs4 192.0.2.7:8443 {PRINT} cert={CERT} iat-mode=0",
            TorBridge(AT, "obfs4", PRINT, {"cert": CERT, "iat-mode": "0"}),
        ),
        (
            f"Bridge obfs4 [2001:db8::1]:443 {PRINT.lower()}\n cert={CERT}  iat-mode=0\n",
            TorBridge(Target("2001:db8::1", 443), "obfs4", PRINT, {"cert": CERT, "iat-mode": "0"}),
        ),
        (f"[2001:db8::1]:443 ${PRINT}", TorBridge(Target("2001:db8::1", 443), "", PRINT)),
        ("192.0.2.7:8443.", TorBridge(AT)),
        (
            f"webtunnel 192.0.2.7:8443 {PRINT} url=https://a.example/b?c=d ver=0.0.1",
            TorBridge(AT, "webtunnel", PRINT, {"url": "https://a.example/b?c=d", "ver": "0.0.1"}),
        ),
        ("socks5h://192.0.2.7:8443", ProxyBridge(AT, "socks5")),
        ("socks://192.0.2.7:8443#name", ProxyBridge(AT, "socks5")),
        ("socks://user:p%40ss@192.0.2.7:8443", ProxyBridge(AT, "socks5", "user", "p@ss")),
        ("socks://dXNlcjpwQHNzOjE%3D@192.0.2.7:8443", ProxyBridge(AT, "socks5", "user", "p@ss:1")),
        ("http://us%3Aer:p%40ss@192.0.2.7:8443/", ProxyBridge(AT, "http", "us:er", "p@ss")),
        ("tricks://192.0.2.7:8443", Tricks(AT)),
        ("tricks://Dns.Example@[2001:db8::1]:443/q.", Tricks(Target("2001:db8::1", 443), "dns.example", "/q")),
        ("<socks5://user@[::1]:1080>", ProxyBridge(Target("::1", 1080), "socks5", "user")),
    ],
)
def test_the_forms_that_others_write_are_read(text: str, bridge: Bridge) -> None:
    assert read_bridge(text) == bridge
    assert read_bridge(write_bridge(bridge)) == bridge


SS = "ss://YWVzLTEyOC1nY206dGVzdA@192.0.2.7:8443"
OBFS4 = f"obfs4 192.0.2.7:8443 {PRINT} cert={CERT} iat-mode=0"
WEBTUNNEL = f"webtunnel [2001:db8::1]:443 {PRINT} url=https://a.example/b"


@pytest.mark.parametrize(
    ("text", "links", "wrong"),
    [
        (SS, [SS], []),
        (f"Bridge {OBFS4}\nBridge {WEBTUNNEL}\r\n\n{OBFS4.replace('.7:', '.8:')}", [OBFS4, WEBTUNNEL, "192.0.2.8"], []),
        (
            f"Fresh, at 17:30 \N{WAVING BLACK FLAG}\N{VARIATION SELECTOR-16}\n{SS}#one two\nvmess://eyJ2IjoiMiJ9#x\n"
            f"@channel\n<socks5://192.0.2.9:1080> {SS}9\nhttps://t.example/channel",
            [f"{SS}#one%20two", "socks5://192.0.2.9:1080"],
            ["vmess:// is no way out", "no number from 1 to 65535", "https:// is no way out"],
        ),
        (f"take this:\n{SS}\nand tell me", [SS], []),
        (f"['{OBFS4}', '{WEBTUNNEL}']", [OBFS4, WEBTUNNEL], []),  # the QR codes of Tor's own site
        (OBFS4.replace(PRINT, "") + "\n" + OBFS4.replace(".7", ".8"), [f"{AT.host}:8443 cert", "192.0.2.8"], []),
        ("192.0.2.7:443\n[2001:db8::1]:443\n", ["192.0.2.7:443", "[2001:db8::1]:443"], []),
        (f"{SS}#a\nvless://b@c:1#d", [f"{SS}#a"], ["vless:// is no way out"]),
        # One bridge may stand in several lines.
        (SS[:30] + "\n" + SS[30:], [SS], []),
        (SS[:-2] + "\n" + SS[-2:], [SS], []),
        (OBFS4.replace(" cert", "\n cert"), [OBFS4], []),
        (WEBTUNNEL.replace(" url", "\nurl"), [WEBTUNNEL], []),
    ],
)
def test_a_text_may_hold_several_bridges(text: str, links: list[str], wrong: list[str]) -> None:
    found, problems = read_bridges(text)
    assert len(found) == len(links)
    assert all(link in write_bridge(bridge) for link, bridge in zip(links, found, strict=True))
    assert len(problems) == len(wrong)
    assert all(says in str(problem) for says, problem in zip(wrong, problems, strict=True))


@pytest.mark.parametrize(
    "link",
    [SS, "socks5://192.0.2.7:1080", "http://192.0.2.7:3128", write_bridge(WebBridge(AT, "a.example", bytes(32)))],
)
@pytest.mark.parametrize("behind", [" thanks!", ", it works well.", " (since 12 May)\nAnna"])
def test_words_may_stand_behind_a_link_in_one_piece(link: str, behind: str) -> None:
    assert read_bridges(f"Hello Vera, take {link}{behind}") == ([read_bridge(link)], [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "this is no bridge"),
        ("hello\nthere", "this is no bridge"),
        ("https://a.example/\nvmess://eyJ2IjoiMiJ9", "https:// is no way out"),
        ("x" * 32_001, "at most 32000 characters at once"),
    ],
)
def test_a_text_without_a_bridge_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_bridges(text)


@given(st.text(alphabet="s:/.@#?\n\r= 1aA[]<", max_size=60) | st.text(max_size=60))
def test_any_text_is_read_as_several_or_refused(text: str) -> None:
    with suppress(UsageError):
        found, _ = read_bridges(text)
        assert found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "this is no bridge"),
        ("hello", "this is no bridge"),
        ("outlast://contact/kg", "no bridge: one begins with outlast://bridge/"),
        ("outlast://bridge/", "incomplete or damaged"),
        ("outlast://bridge/kwI", "incomplete or damaged"),
        (write_bridge(WebBridge(AT, "a.example", bytes(32)))[:-7], "incomplete or damaged"),
        ("outlast://bridge/kgKjd2Vi", "made by a newer Outlast"),
        ("vmess://eyJ2IjoiMiJ9", "vmess:// is no way out that Outlast has"),
        ("https://192.0.2.7:8443", "https:// is no way out that Outlast has"),
        ("ssconf://a.example/key", "ask for the ss:// link itself"),
        ("ss://YWVzLTEyOC1nY206dGVzdA@192.0.2.7", "names no port"),
        ("ss://YWVzLTEyOC1nY206dGVzdA@192.0.2.7:70000", "no number from 1 to 65535"),
        ("ss://YWVzLTEyOC1nY206dGVzdA@2001:db8::1:443", "names no port"),
        ("ss://YWVzLTEyOC1nY206dGVzdA@bücher.example:443", "begins with xn--"),
        ("ss://YWVzLTEyOC1nY206dGVzdA@1.2.3:443", "neither a name nor an address"),
        ("ss://YWVzLTEyOC1nY206dGVzdA@a.example:443?plugin=obfs-local%3Bobfs%3Dhttp", "needs the plugin 'obfs-local'"),
        ("ss://YWVzLTEyOC1nY206@192.0.2.7:1", "has no password"),
        ("ss://YWVzLTEyOC1jZmI6dGVzdA@192.0.2.7:1", "does not speak this link's method"),
        ("ss://2022-blake3-aes-256-gcm:dGVzdA@192.0.2.7:1", "is not the 32 bytes of 2022-blake3-aes-256-gcm"),
        ("ss://!!!", "incomplete or damaged"),
        ("ss://YWVzLTEyOC1nY206dGVzdA", "incomplete or damaged"),
        (f"obfs4 192.0.2.7:8443 {PRINT}", "no cert="),
        (f"obfs4 192.0.2.7:8443 {PRINT} cert={CERT[:-3]}", "is incomplete"),
        (f"obfs4 192.0.2.7:8443 {PRINT[:-1]} cert={CERT}", "has not its 40 digits"),
        (f"obfs4 192.0.2.7:8443 {PRINT} cert={CERT} iat", "KEY=VALUE"),
        ("obfs4 a.example:8443", "has an IP address and a port, no name"),
        ("192.0.2.7:8443 a=b", "has arguments and no transport"),
        ("tricks://dns.example:443/dns-query", "needs the address of a resolver"),
        ("tricks://192.0.2.7:443/a?b", "incomplete or damaged"),
        ("http://192.0.2.7:80/index.html", "this is the address of a page"),
        ("socks://eA@192.0.2.7:80:1", "names no port"),
        ("socks://e@192.0.2.7:80", "incomplete or damaged"),
        ("socks5://:word@192.0.2.7:80", "has a password and no user"),
        ("socks5://" + "u" * 256 + "@192.0.2.7:80", "at most 255 bytes"),
        ("socks5://192.0.2.7:0", "no number from 1 to 65535"),
        ("webtunnel 192.0.2.7:1 a=" + "b" * 2000, "at most 2000 characters"),
        ("x" * 9000, "at most 2000 characters"),
    ],
)
def test_a_bad_link_is_refused_with_a_line_that_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_bridge(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(printable.filter(lambda text: len(text) > 12), st.data())
def test_no_error_repeats_a_secret(password: str, data: st.DataObject) -> None:
    text = write_bridge(
        data.draw(
            st.sampled_from(
                [ShadowsocksBridge(AT, "aes-256-gcm", password), ProxyBridge(AT, "socks5", "user", password)]
            )
        )
    )
    cut = text[: data.draw(st.integers(0, len(text) - 5))]
    with pytest.raises(UsageError) as caught:
        read_bridge(cut)
    with pytest.raises(UsageError) as to_anybody:
        read_bridge("")
    said = str(caught.value).replace(str(to_anybody.value), "")
    assert password[:12] not in said
    assert quote(password)[:12] not in said


@given(st.text() | st.text("ss://@:#?%=[] 1a").map("ss://".__add__) | st.text().map("outlast://bridge/".__add__))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        bridge = read_bridge(text)
    except UsageError:
        return
    assert read_bridge(write_bridge(bridge)) == bridge
