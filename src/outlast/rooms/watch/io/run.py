"""Runs of the probe: what was asked for, a few targets at a time, and what is kept of it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from outlast.address import show
from outlast.errors import StorageError, UsageError
from outlast.rooms.watch.io.consent import read_token
from outlast.rooms.watch.io.files import open_capped, read_capped
from outlast.rooms.watch.io.link import gateway_answers
from outlast.rooms.watch.io.probe import Control, Hands, Patience, probe_url, split_address
from outlast.rooms.watch.io.wire import need_authorities
from outlast.rooms.watch.proto import services
from outlast.rooms.watch.proto.fusion import Controls, own_state
from outlast.rooms.watch.proto.http import Url, parse_url
from outlast.rooms.watch.proto.probe import Settings, is_address
from outlast.rooms.watch.proto.services import Resolver, TorTarget
from outlast.rooms.watch.proto.targets import read_targets
from outlast.rooms.watch.proto.web_connectivity import NO_CONTROL, Json, envelope, scrub

RESOLVERS: Final = ("1.1.1.1:53", "8.8.8.8:53")
DOH: Final = "https://9.9.9.9/dns-query"
AT_ONCE: Final = 3
LIST_MAX_BYTES: Final = 4 << 20
PATIENCE: Final = Patience()


@dataclass(frozen=True, slots=True)
class Service:
    """Another test than web_connectivity: dnscheck of some resolvers, telegram, or tor with its targets."""

    test: str
    resolvers: tuple[Resolver, ...] = ()
    targets: tuple[TorTarget, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run probes, and with what: URLs, those of them in the country, and lines for the operator."""

    urls: tuple[Url, ...]
    settings: Settings
    control: Control | None
    domestic: frozenset[str] = frozenset()
    service: Service | None = None
    remarks: tuple[str, ...] = ()
    patience: Patience = PATIENCE


def plan(
    urls: Sequence[str],
    list_file: Path | None = None,
    categories: Sequence[str] = (),
    most: int = 100,
    control: str | None = None,
    token_file: Path | None = None,
    resolvers: Sequence[str] | None = None,
    doh: str | None = None,
    domestic: Sequence[str] = (),
) -> Plan:
    """What a command asks for; raises UsageError, and what reading the list raises. Nothing is sent."""
    at_home = [parse_url(url) for url in domestic]
    named = [*at_home, *(parse_url(url) for url in urls)]
    remarks = []
    if list_file is not None:
        with open_capped(list_file, LIST_MAX_BYTES) as source:
            chosen = read_targets(source.read().decode("utf-8", "replace").splitlines(), categories)
        named += [target.url for target in chosen.targets]
        if chosen.risky:
            remarks.append(f"{chosen.risky} targets of risky categories are left out; --category CODE takes one in")
        if chosen.damaged:
            remarks.append(f"{chosen.damaged} lines name no URL that can be probed")
    if not named:
        raise UsageError("name a URL, or a list of targets by --list FILE")
    if len(named) > most:
        remarks.append(f"only the first {most} of {len(named)} targets are probed; --max N takes more")
    if control is None:
        remarks.append("without a control (--control URL) only addresses with a valid certificate speak for a verdict")
    asked = tuple(_resolver(one) for one in (RESOLVERS if resolvers is None else resolvers))
    over_https = None if doh == "off" else parse_url(doh or DOH).text
    settings = Settings(resolvers=asked, doh=over_https, control=control is not None)
    helper = None if control is None else Control(parse_url(control), read_token(token_file) if token_file else "")
    need_authorities()
    return Plan(tuple(named[:most]), settings, helper, frozenset(url.text for url in at_home), remarks=tuple(remarks))


def plan_service(test: str, inputs: Sequence[str], list_file: Path | None = None) -> Plan:
    """A run of another test: ``inputs`` are dnscheck's resolvers, ``list_file`` Tor's targets; each has its own list.

    Raises UsageError, and what reading the list raises. Nothing is sent.
    """
    if test not in services.TESTS:
        raise UsageError("%(test)r is no test: there are %(known)s", test=test[:40], known=", ".join(services.TESTS))
    if (inputs and test != "dnscheck") or (list_file is not None and test != "tor"):
        raise UsageError("%(test)s has its own targets; dnscheck takes resolvers, and tor --list FILE", test=test)
    need_authorities()
    if test == "dnscheck":
        given = tuple(services.read_resolver(one) for one in inputs or services.RESOLVERS)
        return Plan((), Settings(), None, service=Service(test, resolvers=given))
    targets: tuple[TorTarget, ...] = ()
    if test == "tor":
        targets = services.authorities()
        if list_file is not None:
            targets = services.read_tor_targets(read_capped(list_file, services.TARGETS_MAX_BYTES))
    return Plan((), Settings(), None, service=Service(test, targets=targets))


async def run_service(service: Service, patience: Patience = PATIENCE) -> AsyncIterator[Json]:
    """Run another test; yields its measurement, or one for each resolver."""
    for resolver in service.resolvers if service.test == "dnscheck" else (None,):
        at_s = time.time()
        if resolver is not None:
            chains = services.dnscheck(resolver)
        else:
            chains = services.telegram() if service.test == "telegram" else services.tor(service.targets)
        async with Hands(patience, None) as hands:
            await hands.drive(chains)
        if resolver is not None:
            keys = services.dnscheck_keys(chains, resolver)
        elif service.test == "telegram":
            keys = services.telegram_keys(chains)
        else:
            keys = services.tor_keys(chains, service.targets)
        made = envelope(service.test, resolver.text if resolver else None, at_s, chains.steps, keys)
        yield scrub(made, hands.own_addresses)


async def run_list(plan: Plan) -> AsyncIterator[Json]:
    """Probe a plan's targets, AT_ONCE at a time; yields each measurement as it is done, in no order."""
    waiting = iter(plan.urls)
    running: set[asyncio.Task[Json]] = set()
    try:
        while True:
            for url in waiting:
                probing = probe_url(url, plan.settings, control=plan.control, patience=plan.patience)
                running.add(asyncio.create_task(probing))
                if len(running) >= AT_ONCE:
                    break
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()


def run_plan(plan: Plan) -> Iterator[Json]:
    """``run_list`` or ``run_service`` outside of any loop."""
    measurements = run_list(plan) if plan.service is None else run_service(plan.service, plan.patience)
    with asyncio.Runner() as runner:
        while True:
            try:
                yield runner.run(_next(measurements))
            except StopAsyncIteration:
                return


@contextmanager
def appending(file: Path | None) -> Iterator[Callable[[Json], None]]:
    """A function that appends a measurement to a file of one JSON object a line, mode 0600; nothing without a file."""
    if file is None:
        yield lambda _: None
        return
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as target:

            def keep(measured: Json) -> None:
                target.write(encode(measured))
                target.flush()

            yield keep
    except OSError as error:
        raise StorageError("cannot write %(path)s: %(error)s", path=file, error=error) from None


def encode(measured: Json) -> bytes:
    """A measurement as one line."""
    return json.dumps(measured, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def link_of(plan: Plan, measurements: Sequence[Json]) -> dict[str, Any]:
    """What a run with domestic targets says of the link: a state of the design, or None, and what was reached."""
    home = [_proved(one) for one in measurements if one["input"] in plan.domestic]
    away = [_proved(one) for one in measurements if one["input"] not in plan.domestic]
    away += [control_state(one) == "ok" for one in measurements if plan.control is not None]
    reached = any(home) or any(away)
    gateway = True if reached else asyncio.run(gateway_answers())
    controls = Controls(gateway, any(home) if home else None, any(away) if away else None)
    state = own_state(controls)
    return {"link": state and state.value, **msgspec.structs.asdict(controls)}


def _proved(measured: Json) -> bool:
    """Whether the target itself was reached: its certificate says so, or without TLS that any page came."""
    keys = measured["test_keys"]
    if measured["input"].startswith("https:"):
        return any(one["failure"] is None for one in keys["tls_handshakes"])
    return any(one["failure"] is None for one in keys["requests"])


def control_state(measured: Json) -> str:
    """How the control answered: "ok", "none" when nobody was asked, else why it did not (df-007)."""
    failure = measured["test_keys"].get("control_failure", NO_CONTROL)
    return "ok" if failure is None else "none" if failure == NO_CONTROL else str(failure)


def lines(measured: Json, evidence: Sequence[str] = ()) -> Iterator[str]:
    """What a measurement found step by step, for people, and what spoke for the verdict."""
    keys = measured["test_keys"]
    if measured["test_name"] == "tor":
        for one in keys["targets"].values():
            yield f"  {one['target_protocol']} {one['target_name']} {one['target_address']}: {one['failure'] or 'ok'}"
        return
    if measured["test_name"] == "dnscheck":
        for key, one in keys["lookups"].items():
            yield f"  {key}: {one['failure'] or 'ok'}"
        if not keys["lookups"]:
            yield f"  {measured['input']}: {keys['bootstrap_failure'] or 'no address'}"
        return
    for one in (*keys["queries"], *keys["x_dns_duplicate_responses"]):
        found = ", ".join(answer.get("ipv4") or answer.get("ipv6") or "" for answer in one["answers"] or ())
        yield f"  {one['engine']} {one['resolver_address']} {one['query_type']}: {one['failure'] or found}"
    for one in keys["tcp_connect"]:
        yield f"  tcp {one['ip']} {one['port']}: {one['status']['failure'] or 'ok'}"
    for one in (*keys["tls_handshakes"], *keys["x_sni_handshakes"]):
        yield f"  tls {one['address']} as {one['server_name'] or 'nobody'}: {one['failure'] or 'ok'}"
    for one in keys["x_quic_initial"]:
        yield f"  quic {one['address']}: {one['failure'] or one['answer']}"
    for one in reversed(keys["requests"]):
        yield f"  http {one['request']['url']}: {one['failure'] or one['response']['code']}"
    if "control" in keys:
        yield f"  control: {control_state(measured)}"
    yield from (f"  because {line}" for line in evidence)


async def _next(measurements: AsyncIterator[Json]) -> Any:
    return await anext(measurements)


def _resolver(text: str) -> str:
    try:
        host, port = split_address(text, 53)
    except ValueError:
        host, port = "", 0
    if not is_address(host) or not 0 < port < 65536:
        raise UsageError("%(text)r is no resolver: write IP or IP:PORT", text=text[:80])
    return show((host, port))
