"""The schedules and nightly settings that ship can be read by what reads them, and say what they promise."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

from jobs.config import load
from jobs.table import CLAIM_S
from tests.shell import ends, ends_with

CONFIGS = Path(__file__).parents[1] / "configs"
SCHEDULES = CONFIGS / "schedules"


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr  # keys of units have capitals


def _unit(name: str) -> _Unit:
    parser = _Unit()
    parser.read_string((SCHEDULES / name).read_text())
    return parser


def test_a_night_is_bounded_and_leaves_alone_what_is_being_uploaded() -> None:
    settings = load([CONFIGS / "nightly.yaml"]).settings
    assert settings.deadline == 6 * 3600
    assert settings.min_age == 600
    assert settings.inputs[0].startswith("s3://")
    assert settings.output


def test_the_line_of_cron_has_its_fields() -> None:
    lines = (SCHEDULES / "deepfake-scan.cron").read_text().splitlines()
    [entry] = [line for line in lines if not re.match(r"#|\w+=", line)]
    *when, user, command = entry.split(maxsplit=6)
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    for value, (least, most) in zip(when, bounds, strict=True):
        assert value == "*" or least <= int(value) <= most
    assert user == "deepfake-scan"
    assert "scan --config configs/nightly.yaml" in command
    assert "%" not in command, "cron takes it for the end of the line"


def test_the_units_of_systemd_run_one_scan_a_night() -> None:
    service, timer = _unit("deepfake-scan.service"), _unit("deepfake-scan.timer")
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["ExecStart"].endswith("scan --config configs/nightly.yaml")
    assert service["Service"]["SuccessExitStatus"] == "3 5 6"
    assert timer["Timer"]["Persistent"] == "yes" or timer["Timer"].getboolean("Persistent")
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d:\d\d", timer["Timer"]["OnCalendar"])


def test_the_cron_job_never_runs_twice_and_gives_nothing_more_than_it_needs() -> None:
    job = yaml.safe_load((SCHEDULES / "cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["spec"]["timeZone"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def _end_of_cron_job(folder: Path, *codes: int) -> tuple[int, list[str]]:
    """Run the job's command where scans end with `codes`: its own code, and what it called."""
    job = yaml.safe_load((SCHEDULES / "cronjob.yaml").read_text())
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    stand_ins = {"deepfake-scan": ends_with(folder, codes), "sleep": "exit 0"}
    return ends(container["command"], folder, stand_ins)


@pytest.mark.parametrize(("code", "seen"), {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 6: 0, 143: 143}.items())
def test_the_cron_job_passes_on_the_exit_codes_that_matter(tmp_path: Path, code: int, seen: int) -> None:
    called = ["deepfake-scan scan --config /etc/deepfake-scan/nightly.yaml"]
    assert _end_of_cron_job(tmp_path, code) == (seen, called)


@pytest.mark.parametrize(("second", "seen"), {0: 0, 3: 3, 5: 0}.items())
def test_the_cron_job_asks_again_for_a_table_that_a_killed_pod_may_hold(
    tmp_path: Path, second: int, seen: int
) -> None:
    code, called = _end_of_cron_job(tmp_path, 5, second)
    assert code == seen
    assert called[0] == called[2]
    assert int(called[1].removeprefix("sleep ")) > CLAIM_S
