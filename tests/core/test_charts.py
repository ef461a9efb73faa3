import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from brainfed.core import charts
from brainfed.core.charts import Line, Spread

LINES = [
    Line("all sites", ((0, 0.2), (1, 0.6), (2, 0.8)), is_overall=True),
    Line("hospital-a", ((0, 0.2), (1, 0.6), (2, 0.8))),
    Line("hospital-b", ((0, 0.1), (2, 0.7)), is_worst=True),
]
SPREADS = [
    Spread(name="hospital-a (n 24)", mean=0.8, sd=0.1, quartiles=(0.7, 0.8, 0.9)),
    Spread(name="hospital-b (n 8)", mean=0.7, sd=0.2, values=(0.6, 0.7), is_worst=True),
    Spread(name="hospital-c (n 6)", mean=0.7),
]


def by_round(lines: list[Line] = LINES, name: str = "one") -> str:
    return charts.by_round(name, lines, y_label="Dice", alt='Dice by round, "best" < 1')


def spreads() -> str:
    return charts.spreads("two", SPREADS, x_label="Dice", alt="Dice of three sites")


def parsed(svg: str) -> ET.Element:
    # A browser knows `xlink:` without being told; a reader of XML must be.
    return ET.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))


def words(svg: str) -> list[str]:
    return [text.text or "" for text in parsed(svg).iter("text")]


def test_every_site_has_its_line_and_the_worst_is_named() -> None:
    told = words(by_round())
    assert {"all sites", "hospital-a", "hospital-b: worst", "round", "Dice"} <= set(told)
    assert "var(--worst)" in by_round()
    assert "var(--worst)" not in by_round(LINES[:2])


def test_more_sites_than_can_be_told_apart_leave_only_the_worst_and_the_mean_named() -> None:
    sites = [Line(f"site-{n}", ((0, 0.3), (1, 0.5)), is_worst=n == 7) for n in range(20)]
    svg = by_round([LINES[0], *sites])
    assert [w for w in words(svg) if "site" in w] == ["all sites", "site-7: worst"]


def test_letters_are_text_and_colours_are_those_of_the_page() -> None:
    for svg in (by_round(), spreads()):
        assert "font-family" not in svg
        assert re.findall(r"#[0-9a-f]{6}\b", svg) == []
        assert set(re.findall(r"var\((--[a-z0-9-]+)\)", svg)) <= set(charts.VARIABLES.values())


def test_a_chart_names_no_address_and_holds_no_rule_for_the_page() -> None:
    for svg in (by_round(), spreads()):
        assert "http" not in svg
        assert "<style" not in svg
        assert set(re.findall(r'href="(.)', svg)) <= {"#"}


def test_a_chart_says_what_it_shows() -> None:
    root = parsed(by_round())
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'Dice by round, "best" < 1'


def test_the_same_numbers_give_the_same_text() -> None:
    assert by_round() == by_round()
    assert spreads() == spreads()


def test_two_charts_of_a_page_share_no_id() -> None:
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in (by_round(), by_round(name="other"))]
    assert set(ids[0]) & set(ids[1]) == set()
    assert all(len(set(found)) == len(found) for found in ids)


def test_what_is_worst_lies_lowest() -> None:
    """The y of SVG grows downwards: a lower Dice has a larger one."""
    svg = by_round([Line("a", ((0, 0.2), (1, 0.9)))])
    path = next(p for p in parsed(svg).iter("path") if "var(--site-0)" in (p.get("style") or ""))
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path.get("d") or "")]
    assert heights[0] > heights[-1]


def test_a_long_name_is_cut_and_a_name_is_no_formula() -> None:
    told = words(by_round([Line("a" * 60, ((0, 0.2),)), Line("$x_1$", ((0, 0.2),))]))
    assert "$x_1$" in told
    assert any(word.endswith("…") for word in told)


def test_each_group_of_a_distribution_has_its_row() -> None:
    assert {spread.name for spread in SPREADS} <= set(words(spreads()))


@pytest.mark.parametrize("is_set", [True, False])
def test_nothing_is_left_in_the_home_folder_nor_in_the_environment(
    tmp_path: Path, is_set: bool
) -> None:
    home, cache, own = tmp_path / "home", tmp_path / "cache", tmp_path / "own"
    for folder in (home, cache, own):
        folder.mkdir()
    script = (
        "import os, pathlib, sys\n"
        "from brainfed.core import charts\n"
        "before = dict(os.environ)\n"
        "with charts.private_cache(pathlib.Path(sys.argv[1])):\n"
        "    charts.by_round('a', [charts.Line('b', ((0, .5),))], y_label='y', alt='z')\n"
        "assert dict(os.environ) == before\n"
    )
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    if is_set:
        environment["MPLCONFIGDIR"] = str(own)
    subprocess.run([sys.executable, "-c", script, str(cache)], env=environment, check=True)
    assert list(home.rglob("*")) == []
    assert bool(list(own.iterdir())) is is_set
    assert bool(list(cache.iterdir())) is not is_set


def test_an_axis_by_tens_has_a_place_for_none() -> None:
    lines = [Line("local", ((0, 0.5),)), Line("fl", ((8, 0.6), (80, 0.8)))]
    svg = charts.by_round(
        "log", lines, y_label="Dice", alt="Dice", x_label="hand-overs", is_log=True
    )
    told = words(svg)
    assert [word for word in told if word in {"0", "1", "10", "100"}] == ["0", "1", "10", "100"]
    assert "hand-overs" in told
    assert "round" not in told


def test_a_band_lies_around_its_line_in_its_colour() -> None:
    points = ((1, 0.5), (2, 0.7))
    plain, shaded = (
        by_round([Line("a", points, band=band)]) for band in ((), ((0.4, 0.6), (0.6, 0.8)))
    )
    assert "fill: var(--site-0); fill-opacity" not in plain
    assert "fill: var(--site-0); fill-opacity" in shaded
    assert re.findall(r"#[0-9a-f]{6}\b", shaded) == []
