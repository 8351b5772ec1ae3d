"""`make bench BAR=cost`: what a video costs here, against the reference's procedure and against the floor.

Made one-face clips and real ones are extracted in the sandbox and scored on one core by a ResNeXt-50 at 112
px with random weights. The reference judges the first 20 frames, or 100 against `thorough`, of the same files
in the same run. The floor is one forward decode of the whole clip and the network on as many crops.

`ARGS="--repeats 1 --clips FOLDER"` is quicker and keeps the made clips; `--plot FILE` draws the first table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2

from detector.model import default_dtype, settle_process
from detector.sandbox import Sandbox
from detector.weights import Architecture
from tests.bench.clips import SIZES, made_clip, two_hours
from tests.bench.comparison import Comparison, Cost, Ours
from tests.bench.cost_plot import draw
from tests.bench.stages import STAGES, stages
from tests.seeded import seeded_weights
from tests.shared import shared_data_folder, why_missing

RESNEXT_50 = Architecture(layers=(3, 4, 6, 3), groups=32, width_per_group=4, mix=0.5)
_REAL = ("faces/dfdc_aajsqyyjni.mp4", "faces/fsgan_abe.mp4", "fake/ffpp_003_000.mp4")
_FRAMES = {"balanced": 20, "thorough": 100}
# Made clip -> how many times cheaper than the reference, at the default dtype.
_CHEAPER = {"balanced": {"1080p": 10.0, "720p": 6.0}, "thorough": {"1080p": 20.0, "720p": 12.0}}
_OF_THE_FLOOR = 1.8
_LONG_CPU_S, _LONG_MB = 10.0, 400.0

_Bar = tuple[str, bool]


def main() -> int:
    """Measure, print, and draw where asked; 0 if every bar holds."""
    asked = _arguments()
    settle_process()
    cv2.setNumThreads(1)
    real = _real()
    with tempfile.TemporaryDirectory() as temporary, Sandbox() as sandbox:
        folder = Path(asked.clips or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        made = [made_clip(folder, name) for name in SIZES]
        long = two_hours(folder)
        weights = seeded_weights(Path(temporary, "seeded.safetensors"), size=112, arch=RESNEXT_50)
        comparison = Comparison(weights, sandbox)
        comparison.measure(made[-1], "balanced", _FRAMES["balanced"], repeats=1, of_reference=1)
        costs = {
            "balanced": [_measured(comparison, path, "balanced", asked.repeats) for path in [*made, *real]],
            "thorough": [_measured(comparison, path, "thorough", asked.repeats) for path in made],
        }
        ours = [comparison.ours(long, "balanced") for _ in range(asked.repeats)]
        _print_costs(costs, asked.repeats)
        _print_stages(comparison, {"balanced": [*made, *real, long], "thorough": made}, asked.repeats)
    if asked.plot:
        draw(costs["balanced"], default_dtype("cpu"), asked.plot)
    bars = [*_bars(costs), *_long_bars(ours)]
    print("\n" + "\n".join(f"{'holds' if holds else 'DOES NOT HOLD'}: {what}" for what, holds in bars))
    return 0 if all(holds for _, holds in bars) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of which medians are taken")
    parser.add_argument("--clips", type=Path, help="folder for the made clips (300 MB), which are kept there")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    return parser.parse_args()


def _real() -> list[Path]:
    """The real clips, none where the shared test data are missing: no bar is checked on them."""
    folder = shared_data_folder()
    if missing := why_missing(folder):
        print(missing, file=sys.stderr)
        return []
    return [folder / "videos" / name for name in _REAL]


def _measured(comparison: Comparison, path: Path, profile: str, repeats: int) -> Cost:
    """A hundred frames of the reference cost a minute and are judged once."""
    of_reference = repeats if profile == "balanced" else 1
    print(f"{path.stem}, {profile} ...", file=sys.stderr)
    return comparison.measure(path, profile, _FRAMES[profile], repeats, of_reference)


def _print_costs(costs: dict[str, list[Cost]], repeats: int) -> None:
    default = default_dtype("cpu")
    print(f"CPU seconds on one core, medians of {repeats}; the default dtype of this processor is {default}.")
    for profile, rows in costs.items():
        print(f"\n`{profile}` against the reference's {_FRAMES[profile]} frames", end="")
        print(", which ran once\n" if profile == "thorough" else "\n")
        print(
            "| clip | crops | decode | network, float32 | network, default | extract | ours, float32 "
            "| ours, default | times the floor | reference | it found a face in | cheaper, float32 "
            "| cheaper, default | the floor would be |"
        )
        print("|---" * 14 + "|")
        for cost in rows:
            network, ours, cheaper = cost.network, cost.ours, cost.cheaper
            print(
                f"| {cost.clip} | {cost.crops} | {cost.decode:.2f} | {network.float32:.2f} "
                f"| {network.default:.2f} | {cost.extract:.2f} | {ours.float32:.2f} | {ours.default:.2f} "
                f"| {cost.of_the_floor:.2f} | {cost.reference:.1f} | {cost.faces} "
                f"| {cheaper.float32:.1f} | {cheaper.default:.1f} | {cost.floor_is_cheaper:.1f} |"
            )


def _print_stages(comparison: Comparison, paths: dict[str, list[Path]], repeats: int) -> None:
    print("\nWhere an extraction spends it, measured in one process, without the sandbox\n")
    print(f"| clip, profile | {' | '.join(STAGES)} | sum |")
    print("|---" * (len(STAGES) + 2) + "|")
    for profile, clips in paths.items():
        for path in clips:
            spent = stages(path, comparison.options(profile), repeats)
            figures = " | ".join(f"{spent[name]:.3f}" for name in STAGES)
            print(f"| {path.stem}, {profile} | {figures} | {sum(spent.values()):.2f} |")


def _bars(costs: dict[str, list[Cost]]) -> Iterator[_Bar]:
    """Those on the made clips."""
    for profile, rows in costs.items():
        for cost in rows:
            least = _CHEAPER[profile].get(cost.clip)
            if least is None:
                continue
            ratio = cost.cheaper.default
            yield f"{cost.clip}, {profile}: {ratio:.1f} times cheaper (at least {least:g})", ratio >= least
            if profile == "balanced":
                floor = f"{cost.of_the_floor:.2f} times the floor (at most {_OF_THE_FLOOR})"
                yield f"{cost.clip}, {profile}: {floor}", cost.of_the_floor <= _OF_THE_FLOOR


def _long_bars(ours: Sequence[Ours]) -> Iterator[_Bar]:
    seconds = statistics.median(one.seconds.default for one in ours)
    peak = max(one.peak_bytes for one in ours) / 1e6
    yield f"two hours of 1080p: {seconds:.1f} CPU s (at most {_LONG_CPU_S:g})", seconds <= _LONG_CPU_S
    yield f"two hours of 1080p: the child held {peak:.0f} MB (at most {_LONG_MB:g})", peak <= _LONG_MB


if __name__ == "__main__":
    sys.exit(main())
