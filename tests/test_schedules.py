"""The schedules and nightly settings that ship can be read by what reads them, and say what they promise."""

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.config import load
from jobs.table import CLAIM_S
from tests.shell import ends, ends_when_told, ends_with

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


def _entry_of_cron() -> list[str]:
    """Minute, hour, day, month, weekday, user and command."""
    lines = (SCHEDULES / "deepfake-scan.cron").read_text().splitlines()
    [entry] = [line for line in lines if not re.match(r"#|\w+=", line)]
    return entry.split(maxsplit=6)


def test_the_line_of_cron_has_its_fields() -> None:
    *when, user, command = _entry_of_cron()
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    for value, (least, most) in zip(when, bounds, strict=True):
        assert value == "*" or least <= int(value) <= most
    assert user == "deepfake-scan"
    assert "scan --config configs/nightly.yaml" in command
    assert "%" not in command, "cron takes it for the end of the line"
    assert "/etc/cron.d/deepfake-scan:" in (SCHEDULES / "deepfake-scan.cron").read_text(), (
        "a name without a dot"
    )


def test_cron_logs_what_a_scan_says_and_its_exit_code_where_its_user_may(tmp_path: Path) -> None:
    command = _entry_of_cron()[-1].replace("/opt/deepfake-scan", str(tmp_path))
    assert "> /" not in command.replace(">>", ">"), "its user may write to no log folder"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    said = "echo 2 videos; echo warning: slow >&2; exit 3"
    stand_ins = {".venv/bin/deepfake-scan": said, "logger": f"cat > {tmp_path}/journal"}
    ends(["/bin/sh", "-c", command], tmp_path, stand_ins)
    assert (tmp_path / "journal").read_text().splitlines() == ["2 videos", "warning: slow", "exit code 3"]


def test_the_units_of_systemd_run_one_scan_a_night() -> None:
    service, timer = _unit("deepfake-scan.service"), _unit("deepfake-scan.timer")
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["ExecStart"].endswith("scan --config configs/nightly.yaml")
    assert service["Service"]["SuccessExitStatus"] == "3 5 6 143", "143: it was stopped, and committed"
    assert "#ReadWritePaths=" in (SCHEDULES / "deepfake-scan.service").read_text(), "all else is read-only"
    assert timer["Timer"]["Persistent"] == "yes" or timer["Timer"].getboolean("Persistent")
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d:\d\d", timer["Timer"]["OnCalendar"])


def test_the_cron_job_never_runs_twice_and_gives_nothing_more_than_it_needs() -> None:
    job = yaml.safe_load((SCHEDULES / "cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["spec"]["timeZone"]
    pod = _pod_of_cron_job()
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def _pod_of_cron_job() -> Any:
    job = yaml.safe_load((SCHEDULES / "cronjob.yaml").read_text())
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def _end_of_cron_job(folder: Path, *codes: int) -> tuple[int, list[str]]:
    """Run the job's command where scans end with `codes`: its own code, and what it called."""
    [container] = _pod_of_cron_job()["containers"]
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


def test_an_evicted_pod_lets_its_scan_commit_and_ends_with_its_code(tmp_path: Path) -> None:
    pod = _pod_of_cron_job()
    assert pod["terminationGracePeriodSeconds"] >= 300, "as long as systemd waits"
    [container] = pod["containers"]
    # A commit takes its time after the signal.
    commits = f"trap '/usr/bin/sleep 0.3; touch {tmp_path}/committed; exit 143' TERM"
    scan = f"{commits}; while :; do /usr/bin/sleep 0.05; done"
    code, called = ends_when_told(container["command"], tmp_path, {"deepfake-scan": scan}, calls=1)
    assert (tmp_path / "committed").exists(), "the scan did not hear of the end, or was not waited for"
    assert (code, len(called)) == (143, 1)


def test_a_pod_that_is_evicted_while_it_waits_for_the_table_scans_no_more(tmp_path: Path) -> None:
    [container] = _pod_of_cron_job()["containers"]
    stand_ins = {"deepfake-scan": ends_with(tmp_path, [5, 0]), "sleep": "exec /usr/bin/sleep 60"}
    code, called = ends_when_told(container["command"], tmp_path, stand_ins, calls=2)
    assert (code, len(called)) == (143, 2)
