"""Makes worldbank.csv anew: ``python -m outlast.rooms.watch.data.make FOLDER``.

FOLDER holds worldbank_gdp_usd.csv and worldbank_population.csv as the repositories datasets/gdp and datasets/population
on GitHub have them: Country Name, Country Code, Year, Value. Codes and common names of countries are Unicode's (CLDR).
"""

from __future__ import annotations

import csv
import io
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

from babel import Locale
from babel.core import get_global

FIRST_YEAR: Final = 1990  # nobody had an internet to cut before
INDICATORS: Final = {
    "gdp_usd": ("worldbank_gdp_usd.csv", "NY.GDP.MKTP.CD", "GDP, current US$"),
    "population": ("worldbank_population.csv", "SP.POP.TOTL", "population"),
}
# The World Bank's sums over regions, incomes and loans.
SUMS: Final = frozenset({
    "AFE", "AFW", "ARB", "CEB", "CSS", "EAP", "EAR", "EAS", "ECA", "ECS", "EMU", "EUU", "FCS", "HIC", "HPC", "IBD",
    "IBT", "IDA", "IDB", "IDX", "INX", "LAC", "LCN", "LDC", "LIC", "LMC", "LMY", "LTE", "MEA", "MIC", "MNA", "NAC",
    "OED", "OSS", "PRE", "PSS", "PST", "SAS", "SSA", "SSF", "SST", "TEA", "TEC", "TLA", "TMN", "TSA", "TSS", "UMC",
    "WLD"
})  # fmt: skip
NO_ISO2: Final = {"CHI"}  # Channel Islands: two countries to ISO
ISO2: Final = {"XKX": "XK"}
# Names in use elsewhere; those with "of" are the United Nations', which IODA and ISO have.
ALIASES: Final = {
    "ARE": "UAE",
    "BOL": "Bolivia (Plurinational State of)",
    "CIV": "Ivory Coast",
    "CPV": "Cape Verde",
    "CZE": "Czech Republic",
    "COD": "DRC|DR Congo|Democratic Republic of the Congo|Congo (Democratic Republic of the)",
    "COG": "Republic of Congo|Republic of the Congo",
    "FSM": "Micronesia (Federated States of)|Federated States of Micronesia",
    "GBR": "UK|Great Britain",
    "HKG": "Hong Kong",
    "IRN": "Iran (Islamic Republic of)|Islamic Republic of Iran",
    "KOR": "South Korea|Korea, Republic of|Republic of Korea",
    "LAO": "Lao People's Democratic Republic",
    "MAC": "Macao|Macau",
    "MDA": "Republic of Moldova",
    "MKD": "Macedonia|Republic of North Macedonia",
    "MMR": "Burma",
    "PRK": "Democratic People's Republic of Korea",
    "PSE": "Palestine|State of Palestine|Palestine, State of",
    "SWZ": "Swaziland",
    "TLS": "East Timor",
    "TUR": "Turkey",
    "TZA": "Tanzania, United Republic of|United Republic of Tanzania",
    "USA": "US|United States of America",
    "VEN": "Venezuela (Bolivarian Republic of)",
}
HEAD: Final = """\
# World Bank, World Development Indicators, as the repositories datasets/gdp and datasets/population had them in March
# 2026. Licence: CC BY 4.0, https://creativecommons.org/licenses/by/4.0/. Changed: rounded to whole numbers, years from
# {year}, sums over several countries left out. {indicators}.
# A line: country by ISO 3166-1 alpha-2 and alpha-3, its names, indicator, first year, a value for each year from it on.
"""


def make(folder: Path) -> str:
    """The table's text."""
    found: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    names: dict[str, list[str]] = {}
    for indicator, (file, _, _) in INDICATORS.items():
        with (folder / file).open(encoding="utf-8", newline="") as source:
            for row in csv.DictReader(source):
                code, year = row["Country Code"], int(row["Year"])
                if code in SUMS:
                    continue
                if row["Country Name"] not in names.setdefault(code, []):
                    names[code].append(row["Country Name"])
                if year >= FIRST_YEAR and row["Value"]:
                    found[code, indicator][year] = round(float(row["Value"]))
    iso2 = {three: twos[0] for three, twos in get_global("territory_aliases").items() if len(three) == 3} | ISO2
    english = Locale("en").territories
    described = "; ".join(f"{indicator} is {code} ({what})" for indicator, (_, code, what) in INDICATORS.items())
    text = io.StringIO()
    text.write(HEAD.format(year=FIRST_YEAR, indicators=described))
    lines = csv.writer(text, lineterminator="\n")
    for (code, indicator), values in sorted(found.items()):
        two = "" if code in NO_ISO2 else iso2[code]
        also = [*([english[two]] if two else []), *(ALIASES[code].split("|") if code in ALIASES else [])]
        known = dict.fromkeys([*names[code], *also])
        first = min(values)
        series = [values.get(year, "") for year in range(first, max(values) + 1)]
        lines.writerow([two, code, "|".join(known), indicator, first, *series])
    return text.getvalue()


if __name__ == "__main__":
    Path(__file__).with_name("worldbank.csv").write_text(make(Path(sys.argv[1])), encoding="utf-8")
