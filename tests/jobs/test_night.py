"""The night's report: its numbers against pandas over the rows, and the page that shows them."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page

from detector.errors import InputError
from detector.types import Reason, Status
from detector.verdict import verdict_at
from jobs import query
from jobs.night import MOST_FLAGGED, Night, look
from jobs.night_change import PSI_LEAST, psi
from jobs.night_page import page
from jobs.schema import to_arrow
from tests.browser import chromium, faults
from tests.conftest import Scanned
from tests.hostile_names import HOSTILE
from tests.jobs.nights import night_rows, replaced, write_night
from tests.jobs.samples import POLICY, sample_row
from tests.scans import read_rows

# Not `wait_for_function`, whose `eval` the policy of our pages forbids.
PAINTED_MS = """new Promise(done => new PerformanceObserver(seen => seen.getEntries().forEach(
    one => one.name === "first-contentful-paint" && done(one.startTime)
)).observe({type: "paint", buffered: true}))"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Night, pd.DataFrame, pd.DataFrame]]:
    """Two nights of 2,500 and 3,000 videos: what is told of the second, and the rows of both."""
    output = str(tmp_path_factory.mktemp("nights"))
    before = write_night(output, "one", night_rows(2500, 1, reasons=[Reason.CORRUPT]))
    now = write_night(output, "two", night_rows(3000, 2, shift=1.0), hour=24)
    assert before is not None
    assert now is not None
    with query.connect(output) as connection:
        yield look(connection, "latest"), before.to_pandas(), now.to_pandas()


@pytest.fixture
def told(tmp_path: Path) -> Callable[[str], Night]:
    """What is told of a scan of the table in `tmp_path`."""

    def tell(scan: str = "latest") -> Night:
        with query.connect(str(tmp_path)) as connection:
            return look(connection, scan)

    return tell


# --- the numbers ------------------------------------------------------------------------------------------


def test_counts_are_those_of_pandas(two: tuple[Night, pd.DataFrame, pd.DataFrame]) -> None:
    night, before, now = two
    assert night.change is not None
    for counts, rows in ((night.counts, now), (night.change.before, before)):
        assert counts.videos == len(rows)
        for found, column in (
            (counts.statuses, "status"),
            (counts.verdicts, "verdict"),
            (counts.reasons, "reason"),
        ):
            assert found == rows[column].value_counts().to_dict(), column
    assert {one.reason: one.videos for one in night.failures} == now["reason"].value_counts().to_dict()
    for one in night.failures:
        [example] = now[now["video_id"] == one.video_id].to_dict("records")
        assert (example["reason"], example["uri"], example["message"]) == (one.reason, one.uri, one.message)
    assert night.work.video_hours == pytest.approx(now["duration_s"].sum() / 3600)
    assert night.work.fetch_s == pytest.approx(now["fetch_s"].sum())
    assert night.work.extract_cpu_s_each == pytest.approx(now["extract_cpu_s"].mean())
    assert night.work.score_s_each == pytest.approx(now["score_s"].mean())
    assert list(night.histogram) == np.histogram(now["p_fake"].dropna(), 50, (0, 1))[0].tolist()
    assert night.scan.cost == pytest.approx(1.5), "half an hour at 3 an hour"


def test_the_new_kinds_of_failure_are_told(two: tuple[Night, pd.DataFrame, pd.DataFrame]) -> None:
    change = two[0].change
    assert change is not None
    assert set(change.new_reasons) == {"incomplete", "fetch_failed"}


def test_psi_is_that_of_a_few_lines_of_pandas(two: tuple[Night, pd.DataFrame, pd.DataFrame]) -> None:
    night, before, now = two
    edges = before["logit"].quantile([k / 10 for k in range(1, 10)]).tolist()
    bins = pd.IntervalIndex.from_breaks([-np.inf, *edges, np.inf])
    old, new = (pd.cut(rows["logit"].dropna(), bins).value_counts(normalize=True) for rows in (before, now))
    expected = float(((new - old) * np.log(new / old)).sum())
    assert night.change is not None
    assert expected > 0.1
    assert night.change.psi == pytest.approx(expected, rel=1e-9)
    assert night.change.reading in ("look", "changed")


def test_psi_of_scores_that_did_not_move_is_what_chance_gives() -> None:
    random = np.random.default_rng(0)
    drawn = [psi(random.normal(size=400), random.normal(size=900)) for _ in range(300)]
    assert np.mean(drawn) == pytest.approx(9 * (1 / 400 + 1 / 900), rel=0.15)


def test_psi_is_a_number_where_bins_are_empty_or_scores_all_the_same() -> None:
    scores = np.linspace(-1, 1, 500)
    assert 1 < psi(scores, scores + 10) < 20
    assert psi(np.zeros(300), np.zeros(300)) == 0
    assert psi(np.zeros(300), np.ones(300)) > 0.25


@pytest.mark.parametrize(("count", "weights_id", "why"), [(100, "w1", "few"), (2500, "other", "weights")])
def test_psi_is_left_out_with_a_reason(
    tmp_path: Path, told: Callable[[], Night], count: int, weights_id: str, why: str
) -> None:
    write_night(str(tmp_path), "one", night_rows(count, 1), weights_id=weights_id)
    write_night(str(tmp_path), "two", night_rows(2500, 2), hour=24, settings_id="B")
    night = told()
    assert night.change is not None
    assert (night.change.psi, night.change.psi_missing) == (None, why)
    assert not night.change.same_settings
    shown = page(night, {})
    assert "it had other settings" in shown.lower()
    assert ("other weights" if why == "weights" else f"fewer than {PSI_LEAST}") in shown


def test_what_deserves_a_look_comes_first(tmp_path: Path, told: Callable[[], Night]) -> None:
    def one(name: str, p_fake: float, persons: int = 1, end_s: float = 1.5, views: str | None = None):
        row = sample_row(name)
        person, segment = row["persons"][0], row["segments"][0]
        return row | {
            "p_fake": p_fake,
            "logit": float(np.log(p_fake / (1 - p_fake))),
            "persons": [person] * persons + [person | {"p_fake": 0.1, "logit": -2.2}],
            "segments": [segment | {"end_s": end_s}],
            "extra": None if views is None else {"views": views},
        }

    rows = [
        one("sixth", 0.93),
        one("fifth", 0.9412),
        one("fourth", 0.9411, end_s=9),
        one("third", 0.9411, persons=2),
        one("second", 0.9411, views="1000000"),
        one("first", 0.99, views="many"),
        one("not-flagged", 0.1) | {"verdict": "not_flagged"},
    ]
    write_night(str(tmp_path), "one", to_arrow(rows))
    flagged = told().flagged
    assert [Path(video.uri).name for video in flagged] == [
        *("first", "second", "third", "fourth", "fifth", "sixth")
    ]
    assert [video.views for video in flagged] == [None, 1_000_000, None, None, None, None]
    assert [video.persons_flagged for video in flagged] == [1, 1, 2, 1, 1, 1]


def test_rows_are_judged_by_the_policy_of_today(tmp_path: Path, told: Callable[[str], Night]) -> None:
    written = write_night(str(tmp_path), "one", night_rows(1000, 1))
    stricter = replace(POLICY, policy_id="p2", flag=0.5, uncertain=0.2)
    write_night(str(tmp_path), "two", None, hour=24, policy=stricter)
    assert written is not None
    rows = written.to_pandas()
    today = [verdict_at(None if np.isnan(p) else p, 0.5, 0.2) for p in rows["p_fake"]]
    night = told("one")
    assert night.counts.verdicts == pd.Series(today).value_counts().to_dict()
    assert night.work.verdict_changed == (rows["verdict"] != today).sum() > 0
    assert night.thresholds is not None
    assert (night.thresholds.flag, night.thresholds.measured) == (0.5, stricter)


# --- which scan -------------------------------------------------------------------------------------------


def test_the_latest_is_no_trial_run_and_the_one_before_wrote_rows(
    tmp_path: Path, told: Callable[[str], Night]
) -> None:
    write_night(str(tmp_path), "first", night_rows(30, 1), hour=0)
    write_night(str(tmp_path), "trial", night_rows(30, 2), hour=1, shadow=True)
    write_night(str(tmp_path), "nothing-new", None, hour=2)
    write_night(str(tmp_path), "killed", night_rows(30, 3), hour=3, ended=False)
    write_night(str(tmp_path), "later-trial", night_rows(30, 4), hour=4, shadow=True)
    latest, first, trial = told("latest"), told("first"), told("later-trial")
    assert latest.scan.scan_id == "killed"
    assert latest.change is not None
    assert latest.change.scan_id == "first"
    assert first.change is None
    assert trial.counts.videos == 30, "a trial run that is named is told of"
    assert trial.change is not None
    assert trial.change.scan_id == "killed"
    assert "There is no scan before this one" in page(first, {})
    assert "It was a trial run" in page(trial, {})
    shown = page(latest, {})
    assert "No end is recorded" in shown
    assert "What it cost is not known: no end" in shown


def test_a_scan_that_found_nothing_to_do_has_its_page(tmp_path: Path, told: Callable[[], Night]) -> None:
    write_night(str(tmp_path), "one", None)
    shown = page(told(), {})
    assert "No video was flagged." in shown
    assert "No video was scored." in shown
    assert "No video failed." in shown


@pytest.mark.xdist_group("scans")
def test_a_real_scan_is_told_as_it_recorded_itself(scanned: Scanned) -> None:
    rows = read_rows(scanned.output)
    with query.connect(str(scanned.output)) as connection:
        night = look(connection, rows[0]["scan_id"])  # others may have scanned again, with nothing to do
    assert night.counts.statuses["scored"] == sum(row["status"] == "scored" for row in rows) > 0
    assert night.scan.exit_code == scanned.exit_code
    assert night.thresholds is not None
    assert night.thresholds.measured is not None
    assert night.thresholds.flag == rows[0]["threshold_flag"]
    shown = page(night, {})
    assert str(scanned.videos) in shown
    assert "price_per_hour is not in its settings" in shown
    assert "more videos failed than its settings allow" in shown


def test_a_scan_that_is_not_there_is_an_error_with_a_hint(
    tmp_path: Path, told: Callable[[str], Night]
) -> None:
    write_night(str(tmp_path), "trial", night_rows(3, 1), shadow=True)
    for scan in ("latest", "no-such\x1b[2J"):
        with pytest.raises(InputError) as refused:
            told(scan)
        assert "query scans" in refused.value.hint
        assert "\x1b" not in refused.value.message


# --- the page ---------------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def test_the_page_lists_so_many_and_gives_the_question_for_all(tmp_path: Path) -> None:
    write_night(str(tmp_path), "one", night_rows(3000, 1, shift=3.0))
    with query.connect(str(tmp_path)) as connection:
        night = look(connection, "latest")
        flagged = night.counts.verdicts["flagged"]
        assert flagged > MOST_FLAGGED == len(night.flagged)
        shown = page(night, {night.flagged[0].video_id: f"{night.flagged[0].video_id}.html"})
        [question] = re.findall(r'deepfake-scan query sql OUT "(.*?)"', html.unescape(shown))
        assert query.sql(connection, question).num_rows == flagged
    assert f"{flagged - MOST_FLAGGED} more are flagged" in shown
    links = [link for link in Parsed(shown).values("href") if not link.startswith("#")]
    assert links == [f"{night.flagged[0].video_id}.html"]


def test_what_a_flag_means_stands_with_the_rate_that_was_measured(
    tmp_path: Path, told: Callable[[], Night]
) -> None:
    said: dict[Literal["none", "crop", "video"], str] = {
        "none": "nobody knows how often a flag is wrong",
        "crop": "How many real videos do is not measured",
        "video": "If all 30 videos scored here were real, about 0 of them would be flagged",
    }
    for hour, (level, words) in enumerate(said.items()):
        rows = replaced(night_rows(30, hour), status=[str(Status.SCORED)] * 30, reason=[None] * 30)
        policy = replace(POLICY, policy_id=level, level=level, flag_interval=(0.004, 0.022))
        write_night(str(tmp_path), level, rows, hour=hour, policy=policy)
        shown = page(told(), {})
        assert words in shown, level
        assert ("between 0.4 % and 2.2 %" in shown) == (level != "none")
        assert "not a proof of manipulation" in shown
        assert "no proof of authenticity" in shown


def hostile_night(output: Path) -> tuple[Night, Mapping[str, str]]:
    """Names, messages and everything else that others choose, all hostile; each video has a page."""
    rows = [
        sample_row("x", outcome) | {"uri": name, "video_id": f"{place:02}-{outcome}", "extra": {"views": "1"}}
        | ({"message": name[:200]} if outcome is not Status.SCORED else {})
        for place, name in enumerate(HOSTILE)
        for outcome in (Status.SCORED, *list(Reason)[place : place + 1])
    ]  # fmt: skip
    scan: dict[str, Any] = {
        "inputs": list(HOSTILE) * 3,
        "host": HOSTILE[0],
        "versions": {HOSTILE[1]: HOSTILE[2]},
    }
    write_night(str(output), "before", night_rows(300, 1))
    write_night(str(output), f"<b>{HOSTILE[10]}", to_arrow(rows), hour=24, **scan)
    with query.connect(str(output)) as connection:
        night = look(connection, "latest")
    assert len(night.flagged) == len(HOSTILE)
    assert len(night.failures) == len(Reason)
    return night, {str(row["video_id"]): f"{row['video_id']}.html" for row in rows}


def test_hostile_names_are_text(tmp_path: Path) -> None:
    night, pages = hostile_night(tmp_path)
    shown = page(night, pages)
    parsed = Parsed(shown)
    assert not {"script", "img", "b", "link", "iframe"} & set(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in ("style", "src")]
    assert parsed.tags.count("h1") == parsed.tags.count("style") == 1
    links = [link for link in parsed.values("href") if not link.startswith("#")]
    assert set(links) == set(pages.values())
    assert all(c.isprintable() or c == "\n" for c in shown), "a control or bidi character got through"
    assert "None" not in shown


def watched(tab: Page) -> tuple[list[str], list[str]]:
    """What a page asks for, and what its scripts say."""
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    return asked, said


@pytest.mark.slow
def test_a_browser_finds_nothing_wrong_with_a_hostile_page(tmp_path: Path) -> None:
    night, pages = hostile_night(tmp_path / "out")
    file = tmp_path / "index.html"
    file.write_text(page(night, pages), "utf-8")
    with chromium() as browser:
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            tab = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
            asked, said = watched(tab)
            tab.goto(file.as_uri())
            tab.locator("summary").click()
            assert asked == [file.as_uri()], "a request left the page"
            assert said == []
            assert tab.title().startswith("Scan <b>")
            for width in (360, 1280, 3840):
                tab.set_viewport_size({"width": width, "height": 740})
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
            assert faults(tab) == []


@pytest.mark.slow
def test_the_page_of_100_000_videos_is_small_and_painted_at_once(tmp_path: Path) -> None:
    write_night(str(tmp_path), "one", night_rows(100_000, 1))
    write_night(str(tmp_path), "two", night_rows(100_000, 2, shift=0.5), hour=24)
    began = time.monotonic()
    with query.connect(str(tmp_path)) as connection:
        connected = time.monotonic()
        night = look(connection, "latest")
    looked = time.monotonic()
    file = tmp_path / "index.html"
    file.write_text(page(night, {one.video_id: f"{one.video_id}.html" for one in night.flagged}), "utf-8")
    rendered = time.monotonic()
    assert night.counts.videos == 100_000
    with chromium() as browser:
        tab = browser.new_page()
        tab.goto("about:blank")
        tab.goto(file.as_uri())
        painted_s = tab.evaluate(PAINTED_MS) / 1000
        assert faults(tab) == []
    took = (f"{end - start:.2f} s" for start, end in pairwise((began, connected, looked, rendered)))
    print(
        f"connect, look, page: {', '.join(took)}; "
        f"{file.stat().st_size / 1e3:.0f} KB, painted after {painted_s:.2f} s"
    )
    assert file.stat().st_size <= 2e6
    assert painted_s <= 1


def test_a_connection_is_left_as_it_was(tmp_path: Path) -> None:
    write_night(str(tmp_path), "one", night_rows(30, 1))
    with query.connect(str(tmp_path)) as connection:
        look(connection, "latest")
        with pytest.raises(duckdb.CatalogException):
            connection.execute("FROM night")
