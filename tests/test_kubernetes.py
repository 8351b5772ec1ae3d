"""What is for Kubernetes is what its servers take, and gives nobody more than it needs."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError, validate  # type: ignore[import-untyped]
from kubernetes_validate import (  # type: ignore[import-untyped]
    ValidationError as KubernetesError,
)
from kubernetes_validate import latest_version
from kubernetes_validate import validate as validate_kubernetes

from jobs.config import ScanSettings, load
from jobs.table import CLAIM_S
from tests.shell import ends, ends_with

CONFIGS = Path(__file__).parents[1] / "configs"
RAYJOB = CONFIGS / "kubernetes" / "rayjob.yaml"
NATIVE = [
    CONFIGS / "schedules" / "cronjob.yaml",
    CONFIGS / "kubernetes" / "network-policy.yaml",
    CONFIGS / "kubernetes" / "service-accounts.yaml",
]
BINARY = {"Mi": 1 << 20, "Gi": 1 << 30}
SHM = "/dev/shm"  # noqa: S108


def _closed(required: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required.split(),
        "properties": fields,
        "additionalProperties": False,
    }


# Of KubeRay 1.5.1 to 1.7.0 the fields that rayjob.yaml uses, and no others. An API server may drop silently
# what it does not know, so whoever uses one more looks it up in KubeRay's CRD first. What lies inside the
# template of a pod is judged by Kubernetes' own schema.
_TEXT, _WHOLE, _TEMPLATE = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "object"}
_START = {"type": "object", "additionalProperties": _TEXT}
_CLUSTER = _closed(
    "rayVersion authOptions headGroupSpec workerGroupSpecs",
    rayVersion=_TEXT,
    authOptions=_closed("mode", mode={"enum": ["disabled", "token"]}),
    headGroupSpec=_closed("template", rayStartParams=_START, template=_TEMPLATE),
    workerGroupSpecs={
        "type": "array",
        "items": _closed(
            "groupName minReplicas maxReplicas template",
            groupName=_TEXT,
            replicas=_WHOLE,
            minReplicas=_WHOLE,
            maxReplicas=_WHOLE,
            rayStartParams=_START,
            template=_TEMPLATE,
        ),
    },
)
_SCHEMA = _closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_closed("name", name=_TEXT),
    spec=_closed(
        "entrypoint rayClusterSpec submitterPodTemplate",
        entrypoint=_TEXT,
        backoffLimit=_WHOLE,
        activeDeadlineSeconds=_WHOLE,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=_WHOLE,
        submitterPodTemplate=_TEMPLATE,
        rayClusterSpec=_CLUSTER,
    ),
)


def rayjob() -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load(RAYJOB.read_text())
    return job


def templates(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every pod template of a job, by what its pods do."""
    cluster = job["spec"]["rayClusterSpec"]
    return {
        "submit": job["spec"]["submitterPodTemplate"],
        "head": cluster["headGroupSpec"]["template"],
        **{group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]},
    }


def check(job: dict[str, Any]) -> None:
    validate(job, _SCHEMA)
    for template in templates(job).values():
        native = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
        validate_kubernetes(native, latest_version(), strict=True)


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def size(quantity: str) -> int:
    return int(quantity[:-2]) * BINARY[quantity[-2:]]


def pod(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = templates(rayjob())[kind]["spec"]
    return found


KINDS = list(templates(rayjob()))
RAY_NODES = [kind for kind in KINDS if kind != "submit"]


def test_kubernetes_and_kuberay_take_the_job() -> None:
    check(rayjob())


@pytest.mark.parametrize("path", NATIVE, ids=lambda path: path.stem)
def test_kubernetes_takes_what_it_knows_itself(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        validate_kubernetes(document, latest_version(), strict=True)
        with pytest.raises(KubernetesError):
            validate_kubernetes(document | {"surplus": {}}, latest_version(), strict=True)


@pytest.mark.parametrize(
    ("place", "misspelt"),
    [
        (("spec",), "backOffLimit"),
        (("spec", "rayClusterSpec"), "authOption"),
        (("spec", "rayClusterSpec", "headGroupSpec"), "rayStartParameters"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "replica"),
        (("spec", "submitterPodTemplate", "spec"), "restartpolicy"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec"), "automountServiceAccountTokens"),
        (
            ("spec", "rayClusterSpec", "workerGroupSpecs", 1, "template", "spec", "containers", 0),
            "securitycontext",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_misspelt_field_is_refused(place: tuple[str | int, ...], misspelt: str) -> None:
    job = deepcopy(rayjob())
    target: Any = job
    for step in place:
        target = target[step]
    target[misspelt] = {}
    with pytest.raises((ValidationError, KubernetesError), match=misspelt):
        check(job)


@pytest.mark.parametrize("kind", KINDS)
def test_no_pod_may_do_more_than_its_work(kind: str) -> None:
    spec = pod(kind)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for container in containers(spec):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["limits"].keys()


@pytest.mark.parametrize("kind", KINDS)
def test_pods_write_only_to_what_goes_with_them(kind: str) -> None:
    spec = pod(kind)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for container in containers(spec):
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert {mount["name"] for mount in mounts.values()} == volumes.keys()
        assert {"/tmp", "/var/lib/deepfake-scan"} <= mounts.keys()  # noqa: S108
        for mount in mounts.values():
            assert mount.get("readOnly") or volumes[mount["name"]]["emptyDir"]["sizeLimit"]
        on_disk = [
            size(volume["emptyDir"]["sizeLimit"])
            for volume in volumes.values()
            if "emptyDir" in volume and volume["emptyDir"].get("medium") != "Memory"
        ]
        assert sum(on_disk) < size(container["resources"]["limits"]["ephemeral-storage"])


@pytest.mark.parametrize("kind", RAY_NODES)
def test_the_object_store_fits_in_the_shared_memory_of_its_pod(kind: str) -> None:
    cluster = rayjob()["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    group = cluster["headGroupSpec"] if kind == "head" else groups[kind]
    [container] = pod(kind)["containers"]
    [shm] = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == SHM]
    [volume] = [volume["emptyDir"] for volume in pod(kind)["volumes"] if volume["name"] == shm]
    assert volume["medium"] == "Memory"
    store = int(group["rayStartParams"]["object-store-memory"])
    assert store < size(volume["sizeLimit"]) < size(container["resources"]["limits"]["memory"])


@pytest.mark.parametrize("kind", ["extract", "score"])
def test_a_worker_has_room_for_what_its_actors_may_take(kind: str) -> None:
    [container] = pod(kind)["containers"]
    limits, settings = container["resources"]["limits"], ScanSettings()
    actors = int(limits["cpu"])
    [tmp] = [volume["emptyDir"] for volume in pod(kind)["volumes"] if volume["name"] == "tmp"]
    [shm] = [volume["emptyDir"] for volume in pod(kind)["volumes"] if volume["name"] == "shm"]
    assert size(tmp["sizeLimit"]) >= max(settings.temp_bytes, actors * settings.max_bytes)
    assert size(limits["memory"]) >= size(shm["sizeLimit"]) + 2 * actors * (settings.video_memory_mib << 20)


def test_the_head_decodes_nothing_and_one_group_has_the_gpus() -> None:
    cluster = rayjob()["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    gpus = {
        kind: pod(kind)["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for kind in RAY_NODES
    }
    assert gpus == {"head": None, "extract": None, "score": "1"}
    for group in cluster["workerGroupSpecs"]:  # pools are sized once, when the scan starts
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"] > 0


def test_all_pods_run_one_image_by_digest_and_the_ray_that_is_locked() -> None:
    cluster_yaml = yaml.safe_load((CONFIGS.parent / "cluster.yaml").read_text())
    images = {container["image"] for kind in KINDS for container in containers(pod(kind))}
    assert images == {cluster_yaml["docker"]["image"]}
    assert "@sha256:" in images.pop()
    cluster = rayjob()["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_cluster_ends_with_the_scan_and_not_before_its_deadline() -> None:
    spec = rayjob()["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    deadline = load([CONFIGS / "nightly.yaml"]).settings.deadline
    assert deadline
    assert deadline + 1800 <= spec["activeDeadlineSeconds"] <= deadline + 7200


def test_the_settings_are_mounted_read_only_where_the_command_reads_them() -> None:
    [container] = pod("head")["containers"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "settings"]
    assert mount["readOnly"] is True
    [volume] = [volume for volume in pod("head")["volumes"] if volume["name"] == "settings"]
    assert volume["configMap"] == {"name": "deepfake-scan"}
    assert f"--config {mount['mountPath']}/nightly.yaml" in rayjob()["spec"]["entrypoint"]


def test_accounts_exist_and_pods_are_what_the_network_policy_speaks_of() -> None:
    accounts = list(yaml.safe_load_all(NATIVE[2].read_text()))
    assert all(account["automountServiceAccountToken"] is False for account in accounts)
    used = {kind: pod(kind).get("serviceAccountName") for kind in KINDS}
    assert used == {
        "submit": None,
        "head": "deepfake-scan",
        "extract": "deepfake-scan-worker",
        "score": "deepfake-scan-worker",
    }
    assert {account["metadata"]["name"] for account in accounts} == set(used.values()) - {None}
    policy = yaml.safe_load(NATIVE[1].read_text())["spec"]
    for template in templates(rayjob()).values():
        assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    cluster, operator = policy["ingress"]
    assert cluster == {"from": [{"podSelector": policy["podSelector"]}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
    assert all({"namespaceSelector", "podSelector"} == peer.keys() for peer in operator["from"])


def end_of_entrypoint(folder: Path, *codes: int) -> tuple[int, list[str]]:
    """Run the entrypoint as KubeRay and Ray do, where scans end with `codes`: its own code, and its calls."""
    # KubeRay pastes it into a script of bash, `ray job submit` joins the words that arrive, and a shell on
    # the head runs them.
    script = f"printf '%s\\0' {rayjob()['spec']['entrypoint'].strip()} ;"
    words = subprocess.run(["/bin/bash", "-ce", script], capture_output=True, check=True, text=True).stdout
    joined = shlex.join(words.removesuffix("\0").split("\0"))
    return ends(["/bin/sh", "-c", joined], folder, {"python": ends_with(folder, codes), "sleep": "exit 0"})


@pytest.mark.parametrize(("code", "seen"), {0: 0, 1: 1, 2: 2, 3: 0, 4: 4, 6: 0, 130: 130, 143: 143}.items())
def test_the_job_fails_only_where_another_cluster_may_help_or_somebody_must(
    tmp_path: Path, code: int, seen: int
) -> None:
    assert end_of_entrypoint(tmp_path, code) == (
        seen,
        ["python -m jobs scan --config /etc/deepfake-scan/nightly.yaml --address auto"],
    )


def test_a_table_that_is_held_is_asked_for_again_when_a_dead_scan_would_have_lost_it(tmp_path: Path) -> None:
    for second, seen in {0: 0, 5: 0, 6: 0, 4: 4}.items():
        code, called = end_of_entrypoint(tmp_path, 5, second)
        assert code == seen
        first, pause, again = called
        assert first == again
        waited = re.fullmatch(r"sleep (\d+)", pause)
        assert waited
        assert CLAIM_S < int(waited[1]) <= CLAIM_S + 120


@pytest.mark.parametrize("end", ["Complete", "Failed"])
def test_the_line_that_waits_for_the_job_returns_however_it_ends(tmp_path: Path, end: str) -> None:
    page = (CONFIGS.parent / "docs" / "operations.md").read_text("utf-8")
    [line] = re.findall(r"^until kubectl get rayjob .*$", page, re.MULTILINE)
    statuses = tmp_path / "statuses"
    statuses.write_text(f"Initializing\nRunning\n{end}\n")
    kubectl = f"head -1 {statuses}; sed -i 1d {statuses}"
    code, called = ends(["/bin/sh", "-c", line], tmp_path, {"kubectl": kubectl, "sleep": "exit 0"})
    assert code == 0
    assert len([call for call in called if call.startswith("kubectl")]) == 3
