"""Measurements of any age: the same events in each of the forms in which probes wrote them, and nothing that raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlast.rooms.watch.proto.classify import classify
from outlast.rooms.watch.proto.measurement import (
    EVENTS_MAX,
    Measurement,
    MeasurementError,
    from_object,
    host_of,
    port_of,
    read,
)
from tests.real import real


def measured(test_name: str = "web_connectivity", given: object = "http://a.example/", **keys: Any) -> Measurement:
    """A measurement with these test keys."""
    return from_object({"test_name": test_name, "input": given, "test_keys": keys})


def response(**fields: Any) -> dict[str, Any]:
    """A request that went well."""
    return {"failure": None, "request": {"url": "http://a.example/"}, "response": {"code": 200, **fields}}


@pytest.mark.parametrize(
    "headers",
    [
        {"headers": {"Server": "box", "X-A": "1"}},
        {"headers_list": [["Server", "box"], ["X-A", "1"]]},
        {"headers": [["Server", ["box"]], [], ["X-A", ["1"]]]},
        {"headers": {"Server": {"format": "base64", "data": "Ym94"}, "X-A": "1"}},
    ],
    ids=["object", "list of pairs", "names with lists", "base64"],
)
def test_headers_of_any_age_are_the_same(headers: dict[str, Any]) -> None:
    [exchange] = measured(requests=[response(**headers)]).exchanges
    assert exchange.headers == {"Server": "box", "X-A": "1"}


@pytest.mark.parametrize(
    ("body", "content"),
    [
        ("hi", b"hi"),
        ({"format": "base64", "data": "aGk="}, b"hi"),
        ({"format": "base64", "data": "aGk"}, b"hi"),
        ({"format": "base64", "data": "\u20ac"}, b""),
        (None, b""),
        (7, b""),
    ],
)
def test_a_body_is_text_or_base64_with_or_without_its_padding(body: object, content: bytes) -> None:
    [exchange] = measured(requests=[response(body=body)]).exchanges
    assert exchange.body == content


def test_numbers_as_text_and_missing_fields_are_forgiven() -> None:
    found = measured(
        queries=[{"hostname": "a.example", "answers": [{"answer_type": "A", "ipv4": "1.2.3.4", "ttl": "299"}]}],
        tcp_connect=[{"ip": "1.2.3.4", "port": "80", "status": {"success": False}}, None, "noise"],
    )
    assert found.lookups[0].addresses == ("1.2.3.4",)
    assert (found.connects[0].port, found.connects[0].failure) == (80, "unknown_failure")
    assert len(found.connects) == 1


def test_several_inputs_are_one_text() -> None:
    assert measured("meek_fronted_requests_test", ["a.example", "b.example"]).input == "a.example b.example"


@pytest.mark.parametrize("control_failure", ["connection_refused", ""])
def test_a_control_that_was_not_reached_is_none(control_failure: str) -> None:
    keys = {"control": {"dns": {"failure": None, "addrs": None}, "http_request": {"failure": None}}}
    assert measured(**keys).control is not None
    assert measured(**keys, control_failure=control_failure).control is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "test_name"),
        (b'{"test_name": "tor"}', "test_keys"),
        (b'{"test_name": "tor", "test_keys": null}', "test_keys"),
        (b'{"test_name": ["tor"], "test_keys": {}}', "test_name"),
    ],
)
def test_what_is_no_measurement_is_refused_with_one_line(data: bytes, problem: str) -> None:
    with pytest.raises(MeasurementError, match=problem) as refused:
        read(data)
    assert "\n" not in str(refused.value)


PLAUSIBLE = st.sampled_from(
    (
        *(
            "1.2.3.4",
            "127.0.0.1",
            "::1",
            "A",
            "AAAA",
            "http://a.example/",
            "https://b.example/",
            "a.example",
            "or_port",
        ),
        *(
            "generic_timeout_error",
            "dns_nxdomain_error",
            "dns_no_answer",
            "1.2.3.4:80",
            "getaddrinfo",
            "doh",
            "connect",
        ),
    )
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | PLAUSIBLE
ODD = LEAF | st.lists(LEAF, max_size=3) | st.dictionaries(PLAUSIBLE, LEAF, max_size=3)


def object_of(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects that have some of these fields, each as it should be or not."""
    return st.fixed_dictionaries({}, optional={name: ODD | value for name, value in fields.items()})


def fields_of(names: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with simple fields, tags and a transaction, and some more."""
    tags = st.lists(st.sampled_from(["depth=0", "depth=1", "depth=x", "fetch_body=true", "classic"]), max_size=3)
    given: dict[str, st.SearchStrategy[Any]] = {name: LEAF for name in names.split()}
    return object_of(**given, tags=tags, transaction_id=st.integers(0, 3), failure=st.none(), **more)


CODE = st.sampled_from([200, 302, 403, 0])
MESSAGE = object_of(url=PLAUSIBLE, code=CODE, headers=ODD, body=ODD, tor=object_of(is_tor=st.booleans()))
ANSWER = object_of(answer_type=st.sampled_from(["A", "AAAA"]), ipv4=PLAUSIBLE, ipv6=PLAUSIBLE, asn=st.integers(0, 9))
EVENTS = {
    "queries": fields_of("hostname engine query_type resolver_hostname", answers=st.lists(ANSWER, max_size=3)),
    "requests": fields_of("address", request=MESSAGE, response=MESSAGE),
    "tcp_connect": fields_of("ip port", status=object_of(failure=st.none(), success=st.booleans())),
    "tls_handshakes": fields_of("address server_name"),
}
ENDED = st.dictionaries(PLAUSIBLE, object_of(failure=st.none(), server_name=PLAUSIBLE), max_size=2)
CONTROL = object_of(
    dns=object_of(failure=st.none(), addrs=st.lists(PLAUSIBLE, max_size=3)),
    tcp_connect=ENDED,
    tls_handshake=ENDED,
    http_request=object_of(failure=st.none(), status_code=CODE, body_length=LEAF, title=LEAF, headers=ODD),
    ip_info=st.dictionaries(PLAUSIBLE, object_of(asn=st.integers(0, 9)), max_size=2),
)
LISTS = {name: st.lists(event, max_size=4) for name, event in EVENTS.items()}
TARGET = object_of(target_protocol=PLAUSIBLE, failure=st.none(), tcp_connect=LISTS["tcp_connect"], network_events=ODD)
SAMPLES = st.lists(st.tuples(st.floats(), st.integers()).map(list), max_size=4)
TEST_KEYS = object_of(
    **LISTS,
    control=CONTROL,
    control_failure=st.none(),
    x_control_request=object_of(http_request=PLAUSIBLE),
    targets=st.dictionaries(PLAUSIBLE, TARGET, max_size=3),
    x_throttling=object_of(target=SAMPLES, control=SAMPLES),
    control_resolver=PLAUSIBLE,
)
TESTS = st.sampled_from(["web_connectivity"] * 4 + ["tor", "telegram", "http_requests", "dns_consistency", "other"])


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(test_name=TESTS, given_=ODD, keys=TEST_KEYS)
def test_any_test_keys_have_a_verdict_and_none_raises(test_name: str, given_: object, keys: dict[str, Any]) -> None:
    verdict = classify(from_object({"test_name": test_name, "input": given_, "test_keys": keys}))
    assert verdict.blocking in (None, False, "dns", "tcp_ip", "http-failure", "http-diff")
    assert verdict.input.encode().decode() == verdict.input


@given(st.binary(max_size=200))
def test_any_bytes_are_a_measurement_or_refused(data: bytes) -> None:
    try:
        read(data)
    except MeasurementError:
        return


def test_of_endless_lists_the_beginning_is_read() -> None:
    answers = [{"answer_type": "A", "ipv4": f"1.2.{number >> 8}.{number & 255}"} for number in range(5000)]
    found = measured(
        queries=[{"hostname": "a.example", "failure": None, "answers": answers}] * (EVENTS_MAX + 1),
        requests=[response()] * (EVENTS_MAX + 1),
        control={"dns": {"addrs": [f"9.9.{number >> 8}.{number & 255}" for number in range(5000)]}, "http_request": {}},
    )
    assert len(found.lookups) == len(found.exchanges) == EVENTS_MAX
    assert len(found.lookups[0].addresses) < 100
    assert classify(found).layers.dns == "blocked"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://a.example/x:1", "a.example", 80),
        ("https://a.example", "a.example", 443),
        ("https://u:p@a.example:8443/?q#f", "a.example", 8443),
        ("http://[2001:db8::1]:81/", "2001:db8::1", 81),
        ("http://[2001:db8::1]/", "2001:db8::1", 80),
        ("a.example", "", 80),
        ("http://Яндекс.рф/", "Яндекс.рф", 80),
    ],
)
def test_host_and_port_of_urls(url: str, host: str, port: int) -> None:
    assert (host_of(url), port_of(url)) == (host, port)


def test_all_real_measurements_are_read_but_the_one_without_test_keys() -> None:
    refused = []
    for path in sorted(real("watch/ooni/real").glob("*.json")):
        try:
            classify(read(path.read_bytes()))
        except MeasurementError:
            refused.append(path.name)
    assert refused == ["test_keys_none.json"]


def test_real_web_measurements_of_2016_to_2022_have_the_recorded_verdict_where_there_is_a_control() -> None:
    agree = set()
    for path in sorted(real("watch/ooni/real").glob("*.json")):
        said = json.loads(path.read_bytes())
        if said["test_name"] == "web_connectivity" and said["test_keys"]:
            verdict = classify(read(path.read_bytes()))
            recorded = (said["test_keys"]["blocking"], said["test_keys"]["accessible"])
            agree.add((path.name, (verdict.blocking, verdict.accessible) == recorded))
    # An old probe called a site accessible whose certificate failed, and whose control had failed as well.
    assert {name for name, same in agree if not same} == {"web_connectivity_no_body.json"}
    assert len(agree) == 11
