"""Series made from a seed: the daily and weekly cycle, noise with memory and heavy tails, holidays, gaps, and cuts.

The sizes of noise, cycles and holidays are chosen, not measured: they show what the rules do there, and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from outlast.rooms.watch.proto.series import DAY_S, HOUR_S, Point

BEGIN_S = 1_700_006_400  # a Wednesday at midnight UTC
SignalName = str


@dataclass(frozen=True)
class Making:
    """What a series is like while nothing happens: shares of its level, except the level itself."""

    signal: SignalName
    step_s: int
    days: int
    level: float
    daily: float
    weekly: float
    noise: float
    memory: float = 0.5
    holiday: float = 0.0
    blip: float = 0.0
    missing: float = 0.01
    decimals: int = 4


PROBING = Making("ping-slash24", HOUR_S // 2, 35, 60_000, daily=0.03, weekly=0.01, noise=0.008, holiday=0.02, blip=0.05)
ROUTES = Making("bgp", HOUR_S // 2, 35, 30_000, daily=0.0, weekly=0.0, noise=0.0005, blip=0.03)
TRAFFIC = Making("google search", HOUR_S // 2, 35, 80, daily=0.7, weekly=0.2, noise=0.05, holiday=0.3)
DARKNET = Making("telescope", HOUR_S // 2, 35, 4_000, daily=0.4, weekly=0.25, noise=0.12, holiday=0.2)
CITIES = Making("mozilla", HOUR_S, 35, 60, daily=0.7, weekly=0.15, noise=0.05, holiday=0.15, decimals=0)
CONNECTIVITY = Making("connectivity", HOUR_S, 10, 97, daily=0.04, weekly=0.01, noise=0.01, holiday=0.02, missing=0)
TOR = Making("tor-relay-users", DAY_S, 240, 9_000, daily=0.0, weekly=0.1, noise=0.08, holiday=0.1, decimals=0)
LATENCY = Making("latency-index", 3 * HOUR_S, 45, 100, daily=0.02, weekly=0.01, noise=0.02, blip=-0.3, missing=0)
MAKINGS = (PROBING, ROUTES, TRAFFIC, DARKNET, CITIES, CONNECTIVITY, TOR, LATENCY)


@dataclass
class Made:
    """A series of values and the times of them, to be cut, shifted and read as rows."""

    making: Making
    t_s: np.ndarray
    values: np.ndarray
    notes: list[str] = field(default_factory=list)

    def cut(self, begin: int, end: int | None, left: float) -> Made:
        """From value number ``begin`` to before ``end`` only the share ``left`` remains."""
        values = self.values.copy()
        values[begin:end] *= left
        return replace(self, values=values)

    def ramp(self, begin: int, end: int, left: float) -> Made:
        """From ``begin`` on the values sink in a line, to the share ``left`` at ``end``, and stay."""
        values = self.values.copy()
        values[begin:end] *= np.linspace(1, left, end - begin)
        values[end:] *= left
        return replace(self, values=values)

    def hidden(self, begin: int, end: int | None) -> Made:
        """From ``begin`` to before ``end`` nothing was measured."""
        values = self.values.copy()
        values[begin:end] = np.nan
        return replace(self, values=values)

    def rows(self) -> list[Point]:
        """As rows of a country."""
        making = self.making
        return [
            Point("made", "XX", making.signal, int(t), None if np.isnan(v) else float(v), making.step_s)
            for t, v in zip(self.t_s, np.round(self.values, making.decimals), strict=True)
        ]


def make(making: Making, seed: int) -> Made:
    """An uneventful series; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    count = making.days * DAY_S // making.step_s
    t_s = BEGIN_S + np.arange(count) * making.step_s
    peak_h, rest = rng.uniform(0, 24), rng.choice(7, 2, replace=False)
    day = (t_s // DAY_S + 4) % 7
    cycle = 1 + making.daily * (np.cos((t_s / HOUR_S - peak_h) * np.pi / 12) - 1) / 2
    week = np.where(np.isin(day, rest), 1 - making.weekly, 1.0)
    shocks = rng.standard_t(5, count) * making.noise * np.sqrt((1 - making.memory**2) * 3 / 5)
    noise = np.zeros(count)
    for at in range(count):
        noise[at] = shocks[at] + making.memory * noise[at - 1] if at else shocks[at]
    values = making.level * cycle * week * np.exp(noise)
    holidays = rng.choice(t_s // DAY_S, 2)
    values = np.where(np.isin(t_s // DAY_S, holidays), values * (1 - making.holiday), values)
    blips = rng.random(count) < 1 / (7 * DAY_S / making.step_s)
    values = np.where(blips, values * (1 - making.blip * rng.random(count)), values)
    values[rng.random(count) < making.missing] = np.nan
    return Made(making, t_s, values)
