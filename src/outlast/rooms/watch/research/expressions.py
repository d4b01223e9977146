"""Questions to an archive, written once as expressions of ibis: they run on DuckDB and on ClickHouse as they are.

Each takes a table of verdicts (``archive.verdicts``), or what is left of it after ``filter``, and gives an expression:
``.to_pandas()`` is its DataFrame, ``arrays`` its columns in numpy, ``ibis.to_sql`` its text. Rows are in order of their
keys. ``by`` names keys: columns of the table, ``day`` or ``month`` (of the start, UTC; null where that is not known).

A measurement is *decided* when at least one layer is not "unknown", and *blocked* when at least one layer is "blocked".
Rates are blocked / decided. They say nothing of how often people meet a block: who measures, and what, is no sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import ibis
import numpy as np
from numpy.typing import NDArray

LAYERS: Final = ("dns", "tcp", "tls", "http", "throttled")
NETWORK: Final = ("country", "asn")


def anomaly_rates(table: Any, by: Sequence[str] = ("country", "day")) -> Any:
    """How much was blocked: keys, measurements, decided, blocked, rate (null where nothing was decided)."""
    counted = _counted(table, by)
    return counted.mutate(rate=_rate(counted.blocked, counted.decided)).order_by(_order(by))


def first_blocked(table: Any, by: Sequence[str] = ("country", "domain"), least: int = 1) -> Any:
    """Since when something is blocked, as far as the archive knows: keys, first, last, blocked.

    ``first`` and ``last`` are times of blocked measurements, ``least`` of them at least: one is easily an accident.
    """
    blocked = _keyed(table).filter(_blocked(table))
    found = blocked.group_by(list(by)).agg(
        first=blocked.started.min(), last=blocked.started.max(), blocked=blocked.count()
    )
    return found.filter(found.blocked >= least).order_by(_order(by))


def layer_shares(table: Any, by: Sequence[str] = ("country",)) -> Any:
    """Where it is blocked: keys, blocked, and for each layer the share of those in which this layer is.

    Shares add up to more than one where several layers of one measurement are blocked.
    """
    blocked = _keyed(table).filter(_blocked(table))
    counts = {layer: _number(blocked[layer] == "blocked").sum() for layer in LAYERS}
    found = blocked.group_by(list(by)).agg(blocked=blocked.count(), **counts)
    return found.mutate(**{layer: _rate(found[layer], found.blocked) for layer in LAYERS}).order_by(_order(by))


def confirmed(table: Any, by: Sequence[str] = ("country", "domain")) -> Any:
    """What shows a block page or a forged answer known by sight: keys, fingerprint, measurements, first, last."""
    known = _keyed(table).filter(table.fingerprint.notnull() & _blocked(table))
    keys = [*by, "fingerprint"]
    found = known.group_by(keys).agg(measurements=known.count(), first=known.started.min(), last=known.started.max())
    return found.order_by(_order(keys))


def across_networks(table: Any, by: Sequence[str] = ("country", "domain"), least: int = 3) -> Any:
    """Whether all networks block alike: keys, networks, blocking, share, lowest and highest rate of a network.

    Networks with fewer than ``least`` decided measurements, and those that are not said, are left out. A network is
    ``blocking`` where more than half of its decided measurements are blocked.
    """
    keys = list(dict.fromkeys([*by, *NETWORK]))
    each = _counted(table.filter(table.asn != 0), keys)
    each = each.filter(each.decided >= least).mutate(rate=_rate(each.blocked, each.decided))
    found = each.group_by(list(by)).agg(
        networks=each.count(),
        blocking=_number(each.rate > 0.5).sum(),
        lowest=each.rate.min(),
        highest=each.rate.max(),
    )
    return found.mutate(share=_rate(found.blocking, found.networks)).order_by(_order(by))


def arrays(expression: Any) -> dict[str, NDArray[Any]]:
    """The columns of an expression's rows in numpy: times as ``datetime64``, missing numbers as NaN."""
    table = expression.to_pyarrow()
    return {name: np.asarray(table[name].to_numpy(zero_copy_only=False)) for name in table.column_names}


def _keyed(table: Any) -> Any:
    day = table.started.date()
    return table.mutate(day=day, month=day.truncate("M"))


def _counted(table: Any, by: Sequence[str]) -> Any:
    keyed = _keyed(table)
    decided = ibis.or_(*(keyed[layer] != "unknown" for layer in LAYERS))
    return keyed.group_by(list(by)).agg(
        measurements=keyed.count(), decided=_number(decided).sum(), blocked=_number(_blocked(keyed)).sum()
    )


def _blocked(table: Any) -> Any:
    return ibis.or_(*(table[layer] == "blocked" for layer in LAYERS))


def _number(condition: Any) -> Any:
    """1 where it holds, else 0: a sum of these is a count in every engine, of an empty table too."""
    return condition.ifelse(1, 0).cast("int64")


def _rate(part: Any, whole: Any) -> Any:
    return part.cast("float64") / whole.cast("float64").nullif(0.0)


def _order(keys: Sequence[str]) -> list[Any]:
    """Nulls stand first: engines differ in where they put them when nobody says."""
    return [ibis.asc(key, nulls_first=True) for key in keys]
