"""`python -m tests.pictures [FOLDER]`: every kind of page as a picture, at three widths; see `make pictures`.

The videos are those of `tests/film.py`, so that nobody but a portrait in the public domain is on them. The
policy flags what scores highest of them: an invented one, because shipped thresholds flag none.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from detector.evaluation.calibration import named
from jobs import policies, report
from jobs.named_weights import open_weights
from jobs.page import strings
from jobs.review.decisions import Decision, Reviews
from jobs.scan import run
from tests.browser import chromium
from tests.film import Actor, film, no_face
from tests.media import cut_off, write_video
from tests.reviewing import served
from tests.scans import read_rows, scan_settings

# Width of the window, its height, and what the picture is cut off at, px.
SCREENS = ((360, 740, 2200), (1200, 800, 2000), (3840, 2160, 3200))
_MOST_WIDE = 1600
_COLOURS = 256
_SIZE = (1280, 720)


def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        root = Path(made)
        output = scanned(root)
        written = report.write(str(output), root / "pages", report.Wish(keys=_keys(output), scan="latest"))
        server = stack.enter_context(served(output, root / "log"))
        browser = stack.enter_context(chromium())
        for width, height, most in SCREENS:
            page = browser.new_page(viewport={"width": width, "height": height})
            shown = chain(_static(page, written.files), _served(page, server.url, root))
            for name, photo in shown:
                _keep(page.screenshot(full_page=True), folder / f"{name}-{width}", most, photo=photo)
            page.context.close()
        for row in read_rows(output):
            if row["verdict"] in ("flagged", "uncertain"):
                Reviews(str(output)).add(row, "ann", Decision.FAKE)
        nothing = stack.enter_context(served(output, root / "log", "--user", "ann"))
        for width, height, most in SCREENS:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(nothing.url)
            _keep(page.screenshot(full_page=True), folder / f"empty-queue-{width}", most, photo=False)
            page.context.close()
    sizes = [file.stat().st_size for file in folder.iterdir()]
    print(f"{len(sizes)} pictures, {sum(sizes) / 1e6:.1f} MB, in {folder}")


def scanned(root: Path) -> Path:
    """A scan of a handful of videos with the shipped weights, some of which it flags."""
    videos = root / "videos"
    videos.mkdir()
    actors = [
        Actor(200, seed=3, motion=0.5, centre=(0.27, 0.5), blended=True),
        Actor(200, seed=9, motion=0.5, centre=(0.73, 0.45), other_person=True),
    ]
    write_video(videos / "interview.mp4", film(200, _SIZE, 25, actors))
    write_video(videos / "speech.mp4", film(250, _SIZE, 25, [Actor(220, seed=4)]))
    write_video(videos / "street.mkv", film(150, _SIZE, 25, [Actor(160, seed=5, light=0.8)]))
    write_video(videos / "landscape.mp4", no_face(100, _SIZE))
    write_video(videos / "upload-0071.mp4", film(50, _SIZE, 25, [Actor(200, seed=6)]))
    cut_off(videos / "upload-0071.mp4", 0.6)
    (videos / "letter.mp4").write_text("This is not a video.\n" * 50)
    run(scan_settings(videos, root / "first", Path("default")), quiet=True)
    rows = [row for row in read_rows(root / "first") if row["status"] == "scored"]
    low, middle, high = sorted(row["p_fake"] for row in rows)
    shipped = open_weights("default").header.policy
    policy = replace(shipped, flag=(middle + high) / 2, uncertain=(low + middle) / 2, data="invented")
    path = root / "policy.json"
    policies.write(path, named(policy), "default", rows[0]["weights_id"], rows[0]["settings_id"])
    run(scan_settings(videos, root / "out", Path("default"), policy=str(path)), quiet=True)
    return root / "out"


def _keys(output: Path) -> list[str]:
    """One video of each kind of page: flagged, not flagged, failed."""
    rows = read_rows(output)
    wanted = (("verdict", "flagged"), ("verdict", "not_flagged"), ("reason", "not_video"))
    return [next(row["video_id"] for row in rows if row[key] == value) for key, value in wanted]


def _static(page: Page, files: Sequence[Path]) -> Iterator[tuple[str, bool]]:
    """Opens one page of a report after the other; its name, and whether it is best kept as a photo."""
    names = ("night", "evidence-flagged", "evidence-not-flagged", "evidence-failed")
    for name, file in zip(names, files, strict=True):
        page.goto(file.as_uri())
        yield name, name.startswith("evidence") and not name.endswith("failed")


def _served(page: Page, url: str, root: Path) -> Iterator[tuple[str, bool]]:
    """Opens one page of the review server after the other."""
    base, words = url.split("/?", maxsplit=1)[0], strings()["upload"]
    page.goto(url)
    yield "who", False
    page.fill("#who", "ann")
    page.keyboard.press("Enter")
    page.wait_for_selector("#here:not(:empty)")
    page.keyboard.press("]")
    page.wait_for_timeout(1500)
    yield "review", True
    page.goto(f"{base}/upload")
    page.set_input_files("#file", root / "videos" / "landscape.mp4")  # its preview is not veiled
    page.wait_for_timeout(1000)
    yield "upload", True
    page.set_input_files("#file", root / "videos" / "speech.mp4")
    page.check("[value=thorough]")
    page.click("#start")
    page.wait_for_selector(".stages")
    page.locator("[aria-current]", has_text=words["stages"]["decoding"]).wait_for()
    yield "waiting", False
    page.wait_for_selector("#source", timeout=120_000)
    yield "result", True
    page.goto(f"{base}/uploads/{'0' * 16}")
    yield "refused", False


def _keep(png: bytes, path: Path, most: int, *, photo: bool) -> None:
    """Cuts a long picture off at `most` px, and keeps it small: as JPEG, or with few colours."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, most)))
    picture.thumbnail((_MOST_WIDE, most))
    if photo:
        picture.save(path.with_suffix(".jpg"), quality=70, optimize=True)
    else:
        picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(path.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures"))
