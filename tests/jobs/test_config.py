import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.errors import SettingsError
from detector.types import ExtractOptions, Limits, Policy
from detector.weights import Detector, Header, Input, bundled, manifest, read
from jobs.config import ScanSettings, load, settings_id, settings_words
from jobs.config_load import Loaded

POLICY = Policy(
    policy_id="p",
    slope=1,
    bias=0,
    flag=0.9,
    flag_fpr=0.01,
    uncertain=0.5,
    uncertain_fpr=0.05,
    level="none",
)
HEADER = Header(name="tiny", policy=POLICY, golden_logit=0)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def complaints(*files: Path, env: Any = None, overrides: Any = None, sets: Any = ()) -> list[str]:
    """The lines of the error, with the folder of the files cut off."""
    with pytest.raises(SettingsError) as caught:
        load(files, env, overrides, sets)
    folder = f"{files[0].parent}/" if files else "\0"
    return [line.removeprefix(folder) for line in caught.value.message.split("\n")]


def test_a_typo_is_reported_with_file_line_and_the_nearest_key(tmp_path: Path) -> None:
    file = write(tmp_path / "x.yaml", "# nightly\noutput: out\n\nprofil: fast\n")
    assert complaints(file) == ["x.yaml:4: profil is not a key. Did you mean profile?"]


@pytest.mark.parametrize(
    ("key", "near"),
    [("wave-size", "wave_size"), ("Window", "windows"), ("commit_row", "commit_rows"), ("xyzzy", None)],
)
def test_the_nearest_key_is_named_where_one_is_near(tmp_path: Path, key: str, near: str | None) -> None:
    said = complaints(write(tmp_path / "x.yaml", f"{key}: 1\n"))
    assert said == [f"x.yaml:1: {key} is not a key." + (f" Did you mean {near}?" if near else "")]


def test_all_mistakes_of_all_sources_come_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "windows: 0\nprofil: fast\nprofile: quick\nprofile: fast\n")
    second = write(tmp_path / "b.yaml", "inputs:\n  - fine\n  - 7\ncommit_rows: many\n")
    said = complaints(
        first,
        second,
        env={"DEEPFAKE_SCAN_LIMIT": "-3", "DEEPFAKE_SCAN_LIMITS": "3"},
        sets=["every=soon", "windows"],
        overrides={"max_failed": "5"},
    )
    assert [line.replace(f"{tmp_path}/", "") for line in said] == [
        "a.yaml:1: windows: 0 is too small: at least 1",
        "a.yaml:2: profil is not a key. Did you mean profile?",
        "a.yaml:3: profile: 'quick' is not one of fast, balanced, thorough.",
        "a.yaml:4: profile stands here a second time, after line 3",
        "b.yaml:3: inputs[1]: must be text, not 7; put it in quotes",
        "b.yaml:4: commit_rows: must be a whole number, not 'many'",
        "environment: DEEPFAKE_SCAN_LIMIT: '-3' is too small: at least 1",
        "environment: DEEPFAKE_SCAN_LIMITS is not a key. Did you mean DEEPFAKE_SCAN_LIMIT?",
        "--set: 'windows' must have the form key=value",
        "--set: every: 'soon' is not a duration, such as 30s, 2m or 1h",
        "command line: --max-failed: '5' is not a percentage from 0% to 100%, such as 5% or 0.1%",
    ]


def test_a_wrong_value_is_reported_even_where_a_later_source_replaces_it(tmp_path: Path) -> None:
    file = write(tmp_path / "x.yaml", "windows: 900\n")
    assert complaints(file, sets=["windows=3"]) == ["x.yaml:1: windows: 900 is too large: at most 200"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("windows: yes", "windows: must be a number, not true"),
        ("windows: 2.5", "windows: must be a whole number, not 2.5"),
        ("windows: [2]", "windows: must be a whole number, not [2]"),
        ("windows: 201", "windows: 201 is too large: at most 200"),
        ("commit_rows: 1000001", "commit_rows: 1000001 is too large: at most 1000000"),
        ("commit_every_s: .nan", "commit_every_s: must be a number, not nan"),
        ("commit_every_s: soon", "commit_every_s: must be a number, not 'soon'"),
        ("gpus_per_score_actor: 0", "gpus_per_score_actor: 0 is too small: it must be above 0"),
        ("gpus_per_score_actor: 1.5", "gpus_per_score_actor: 1.5 is too large: at most 1"),
        ("rescan: maybe", "rescan: must be true or false, not 'maybe'"),
        ("retry: fail", "retry: 'fail' is not one of none, failed. Did you mean failed?"),
        ("detector: dlib", "detector: 'dlib' is not one of yunet, hog."),
        ("weights:", "weights: must be text, not null"),
        ("weights: ''", "weights: must not be empty"),
        ("include: '*.mp4'", "include: must be a list, not '*.mp4'"),
        ("every: 30 minutes", "every: '30 minutes' is not a duration, such as 30s, 2m or 1h"),
        ("every: 0.5s", "every: '0.5s' is not between 1s and 24h"),
        ("max_failed: 0.05", "max_failed: 0.05 is not a percentage from 0% to 100%, such as 5% or 0.1%"),
        ("max_failed: 101%", "max_failed: '101%' is not a percentage from 0% to 100%, such as 5% or 0.1%"),
        ("max_bytes: 5 gigs", "max_bytes: '5 gigs' is not a size, such as 800MB, 5GB or 4GiB"),
        ("max_bytes: 0", "max_bytes: 0 is not a whole number of bytes above 0"),
        ("video_memory_mib: 64", "video_memory_mib: 64 is too small: at least 256"),
        ("output: !!python/object:os.system {}", "this is not YAML: could not determine a constructor"),
        ("output: 2026-02-30", "this is not YAML: day is out of range for month"),
        ("output: 'a", "this is not YAML: found unexpected end of stream"),
        ("inputs: &a [x]\noutput: *a", "this is not YAML: an alias (*name) is not taken here"),
        ("windows: " + "9" * 5000, "this is not YAML: Exceeds the limit (4300 digits)"),
        ("windows: 0x" + "f" * 5000, "windows: a number of thousands of digits is too large"),
        ("- output", "must hold lines of the form `key: value`"),
        ("output: a\n---\noutput: b", "this is not YAML: but found another document"),
    ],
)
def test_what_is_said_of_a_wrong_value(tmp_path: Path, line: str, complaint: str) -> None:
    (said,) = complaints(write(tmp_path / "x.yaml", line + "\n"))
    _, _, text = said.partition(": ")
    assert text.startswith(complaint)


def test_a_file_that_cannot_be_read_is_one_of_the_mistakes(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"output: \xff\xfe\n")
    said = complaints(tmp_path / "none.yaml", tmp_path / "binary.yaml", tmp_path)
    assert said[0] == "none.yaml: cannot be read: No such file or directory"
    assert said[1].startswith("binary.yaml: this is not YAML: ")
    assert said[2].endswith(": cannot be read: Is a directory")


def test_later_sources_win_and_each_value_knows_where_it_comes_from(tmp_path: Path) -> None:
    site = write(tmp_path / "site.yaml", "output: site\nprofile: fast\ncommit_rows: 10\nwave_size: 5\n")
    mine = write(tmp_path / "mine.yaml", "# mine\nprofile: thorough\nlimit: 1\n")
    loaded = load(
        [site, mine],
        env={"DEEPFAKE_SCAN_COMMIT_ROWS": "20", "DEEPFAKE_SCAN_LIMIT": "2", "HOME": "/"},
        sets=["limit=3", "score_batch=8", "limit=4"],
        overrides={"score_batch": 9, "every": None, "inputs": ("a", "b"), "include": ()},
    )
    origins = {key: (value, origin) for key, value, origin in loaded.shown() if origin != "default"}
    assert origins == {
        "inputs": (["a", "b"], "command line --inputs"),
        "output": ("site", f"{site}:1"),
        "profile": ("thorough", f"{mine}:2"),
        "commit_rows": (20, "environment DEEPFAKE_SCAN_COMMIT_ROWS"),
        "wave_size": (5, f"{site}:4"),
        "limit": (4, "--set"),
        "score_batch": (9, "command line --score-batch"),
    }
    assert list(loaded.origins) == list(ScanSettings.model_fields)


def test_an_empty_file_and_no_source_at_all_give_the_defaults(tmp_path: Path) -> None:
    assert load([write(tmp_path / "empty.yaml", "# nothing\n")]).settings == load().settings == ScanSettings()


@pytest.mark.parametrize(
    ("text", "value"),
    [("a, b", ["a, b"]), ('["a", "b"]', ["a", "b"]), ("*.mp4", ["*.mp4"]), ("[]", [])],
)
def test_lists_in_the_environment_are_one_item_or_json(text: str, value: list[str]) -> None:
    assert load(env={"DEEPFAKE_SCAN_INCLUDE": text}).settings.include == value


def test_a_list_that_is_not_json_is_refused() -> None:
    assert complaints(env={"DEEPFAKE_SCAN_INCLUDE": "[*.mp4]"}) == [
        'environment: DEEPFAKE_SCAN_INCLUDE: several values are written as ["one", "two"], not \'[*.mp4]\''
    ]


def test_null_takes_a_value_back_and_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    file = write(tmp_path / "x.yaml", "every: 30s\nlimit: 5\n")
    settings = load([file], env={"DEEPFAKE_SCAN_LIMIT": ""}, sets=["every=null"]).settings
    assert (settings.every, settings.limit) == (None, 5)


def test_variables_that_kubernetes_makes_for_a_service_of_our_name_are_no_settings() -> None:
    env = {
        "DEEPFAKE_SCAN_SERVICE_HOST": "10.0.0.1",
        "DEEPFAKE_SCAN_SERVICE_PORT_HTTP": "80",
        "DEEPFAKE_SCAN_PORT": "tcp://10.0.0.1:80",
        "DEEPFAKE_SCAN_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(env=env).settings == ScanSettings()


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ScanSettings().limit = 3


unhurried = settings(deadline=None, max_examples=60)  # the machine may be busy with other tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


durations = st.builds(
    "{}{}".format, st.one_of(st.integers(1, 24), st.decimals("1", "24", places=3)), st.sampled_from("smh")
)
sizes = st.builds(
    "{}{}".format, st.integers(1, 10**6), st.sampled_from(["", "B", "kb", "MB", "GB", "KiB", "MiB", " GiB"])
)
percents = st.decimals(0, 100, places=4).map("{}%".format)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1).filter(
    lambda text: text != "null"
)
raw_settings = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(texts),
        "output": st.none() | texts,
        "profile": st.sampled_from(["fast", "balanced", "thorough"]),
        "windows": st.none() | st.integers(1, 200),
        "every": st.none() | durations | st.integers(1, 86_400) | st.floats(1, 86_400),
        "weights": texts,
        "detector": st.sampled_from([None, "yunet", "hog"]),
        "gpus_per_score_actor": st.floats(0, 1, exclude_min=True),
        "commit_every_s": st.floats(1, 3600),
        "rescan": st.booleans(),
        "max_failed": st.none() | percents,
        "max_bytes": sizes | st.integers(1, 10**15),
    },
)


def as_yaml(loaded: Loaded) -> str:
    return yaml.safe_dump({key: value for key, value, _ in loaded.shown()}, allow_unicode=True)


@unhurried
@given(raw=raw_settings)
def test_what_config_show_prints_is_a_settings_file_that_gives_the_same_settings(
    raw: dict[str, Any], folder: Path
) -> None:
    once = load([write(folder / "a.yaml", yaml.safe_dump(raw, allow_unicode=True))])
    again = load([write(folder / "b.yaml", as_yaml(once))])
    assert again.settings == once.settings
    assert as_yaml(again) == as_yaml(once)


@unhurried
@given(raw=raw_settings.map(lambda raw: {k: v for k, v in raw.items() if v is not None and k != "inputs"}))
def test_a_value_means_the_same_in_a_file_the_environment_and_a_flag(
    raw: dict[str, Any], folder: Path
) -> None:
    file = write(folder / "a.yaml", yaml.safe_dump(raw, allow_unicode=True))
    expected = load([file]).settings
    assert load(env={f"DEEPFAKE_SCAN_{key.upper()}": str(raw[key]) for key in raw}).settings == expected
    assert load(sets=[f"{key}={value}" for key, value in raw.items()]).settings == expected
    assert load(overrides=raw).settings == expected


@unhurried
@given(
    junk=st.dictionaries(
        st.text(min_size=1), st.none() | st.booleans() | st.integers() | st.text(), min_size=1
    )
)
def test_any_mapping_is_taken_or_refused_in_words(junk: dict[str, Any], folder: Path) -> None:
    file = write(folder / "a.yaml", yaml.safe_dump(junk))
    with pytest.raises(SettingsError, match="is not a key"):
        load([file])


@pytest.mark.parametrize(("profile", "windows"), [("fast", 1), ("balanced", 2), ("thorough", 10)])
def test_a_profile_is_a_number_of_windows_which_windows_overrides(profile: str, windows: int) -> None:
    settings = load(sets=[f"profile={profile}"]).settings
    assert settings.extract_options(HEADER).sampling.windows == windows
    settings = load(sets=[f"profile={profile}", "windows=7"]).settings
    assert settings.extract_options(HEADER).sampling.windows == 7


def test_extract_options_come_from_the_weights_unless_a_setting_says_otherwise() -> None:
    header = Header(
        name="old",
        policy=POLICY,
        golden_logit=0,
        input=Input(size=224, scale=1.3, frames=2, spacing_s=0.5, fit="squash"),
        detector=Detector(name="hog", version="dlib", colour="bgr"),
    )
    settings = load(sets=["every=2m", "video_time_limit_s=10", "video_memory_mib=512"]).settings
    options = settings.extract_options(header)
    assert options.crop == header.crop
    assert options.sampling == replace(header.sampling, windows=2, every_s=120)
    assert (options.detector, options.detector_bgr, options.min_frames) == ("hog", True, 2)
    assert options.limits == Limits(wall_s=10, cpu_s=8, memory_bytes=512 << 20)
    assert load(sets=["detector=yunet"]).settings.extract_options(header).detector == "yunet"


@pytest.mark.parametrize("name", [n for n in manifest()["files"] if n.endswith(".safetensors")])
def test_the_closest_look_at_a_crowd_fits_into_what_one_video_may_give(name: str) -> None:
    """Or its last windows would be left out, for a reason that says there were too many faces in them."""
    options = load(sets=["profile=thorough"]).settings.extract_options(read(bundled() / name).header)
    clip_bytes = options.sampling.frames * options.crop.size**2 * 3
    most = options.sampling.windows * options.max_tracks_per_window * clip_bytes
    assert most <= options.limits.max_clip_bytes


def test_the_defaults_are_those_of_the_detector() -> None:
    assert ScanSettings().extract_options(HEADER) == ExtractOptions()


def test_weights_that_look_at_the_first_frames_refuse_windows_instead_of_ignoring_them() -> None:
    header = Header(name="ref", policy=POLICY, golden_logit=0, input=Input(policy="first", frames=20))
    sampling = load(sets=["profile=thorough"]).settings.extract_options(header).sampling
    assert (sampling.policy, sampling.frames, sampling.windows) == ("first", 20, 1)
    for key in ("windows=3", "every=30s"):
        with pytest.raises(SettingsError, match="first 20 frames only"):
            load(sets=[key]).settings.extract_options(header)


def test_the_settings_id_follows_what_changes_a_score_and_nothing_else() -> None:
    def id_of(*sets: str, weights_id: str = "0123456789ab") -> str:
        return settings_id(load(sets=sets).settings.extract_options(HEADER), weights_id)

    plain = id_of()
    assert len(plain) == 12
    assert int(plain, 16) >= 0
    harmless = ["dtype=float32", "device=cpu", "video_time_limit_s=9", "video_memory_mib=300", "wave_size=9"]
    assert {id_of(setting) for setting in harmless} == {plain}
    assert id_of("windows=2") == id_of("profile=balanced") == plain
    changed = [id_of(s) for s in ("windows=3", "every=30s", "detector=hog", "min_face_px=41", "profile=fast")]
    changed.append(id_of(weights_id="ba9876543210"))
    assert len({plain, *changed}) == 7


def test_every_option_but_a_limit_is_in_the_settings_words() -> None:
    words = settings_words(ExtractOptions(), "0123456789ab")
    assert words["sampling.windows"] == 2
    assert words["crop.size"] == 112
    assert words["max_clip_bytes"] == Limits().max_clip_bytes
    assert {"weights_id", "pipeline_version", "detector", "min_face_px", "min_frames"} <= set(words)
    assert not [name for name in words if "limit" in name]


def test_reading_settings_loads_nothing_heavy() -> None:
    code = (
        "import sys, jobs.config; jobs.config.load(); "
        "heavy = {'torch', 'ray', 'cv2', 'pandas', 'av', 'pyarrow', 'duckdb', 'scipy'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
