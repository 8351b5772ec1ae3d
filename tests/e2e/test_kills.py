"""Any process of a scan can die at any moment; the full count: `make soak BAR=kills`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.kill_trials import Part, Site, trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # Not below pytest's own folder: the path of a socket has room for 107 characters.
    with tempfile.TemporaryDirectory(prefix="k") as made:
        yield Site(Path(made), {"disk": f"{made}/out"}, 30)


@pytest.mark.parametrize(
    "part",
    [
        Part(("driver",), "in-process", 1),
        Part(("child", "helper", "scoring actor"), "local", 1, per_scan=3),
    ],
    ids=lambda part: part.name,
)
def test_who_is_killed_takes_no_video_along_and_leaves_nothing_behind(site: Site, part: Part) -> None:
    wanted = dict.fromkeys(part.victims, part.kills)
    for number in range(3):
        found = trial(site, part, number, wanted)
        assert found.complaints == []
        if found.kills == wanted:
            return
    pytest.fail(f"in none of three scans all of {wanted} were met alive")
