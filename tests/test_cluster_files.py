"""What describes clusters is what its readers take, and gives nobody more than it needs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
POLICIES = sorted((ROOT / "configs" / "aws").glob("*.json"))
_WRITING = ("Put", "Delete", "Abort", "Restore", "Replicate", "Create")


def _cluster() -> dict[str, Any]:
    cluster: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return cluster


def _statements(path: Path) -> Iterator[dict[str, Any]]:
    yield from json.loads(path.read_text())["Statement"]


def test_ray_takes_the_cluster_file() -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    cluster = _cluster()
    validate_config(fillout_defaults(cluster))
    with pytest.raises(Exception, match="instance_type"):  # the schema does look
        validate_config(fillout_defaults(cluster | {"instance_type": "m7i.large"}))


def test_the_head_works_for_nobody_and_listens_to_itself() -> None:
    cluster = _cluster()
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    start = " ".join(cluster["head_start_ray_commands"])
    assert "--num-cpus=0" in start
    assert "--dashboard-host=127.0.0.1" in start
    assert cluster["provider"]["use_internal_ips"]
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    [token] = cluster["file_mounts"]
    assert f"--env RAY_AUTH_TOKEN_PATH={token}" in cluster["docker"]["run_options"]
    assert "@sha256:" in cluster["docker"]["image"]


def test_spot_nodes_with_a_gpu_have_a_twin_on_demand() -> None:
    kinds = _cluster()["available_node_types"]
    spot, twin = kinds["score_spot"], kinds["score_on_demand"]
    assert spot["resources"] == twin["resources"]
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in twin["node_config"]
    for kind in kinds.values():
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_no_policy_has_a_wildcard_action_or_writes_to_the_input(path: Path) -> None:
    for statement in _statements(path):
        assert statement["Effect"] == "Allow"
        for action in statement["Action"]:
            assert "*" not in action, statement["Sid"]
            if "EXAMPLE-input-bucket" in json.dumps(statement["Resource"]):
                assert not action.removeprefix("s3:").startswith(_WRITING), statement["Sid"]
        if statement["Resource"] == "*":
            assert all(action.startswith("ec2:Describe") for action in statement["Action"])


def test_the_head_may_start_what_the_cluster_file_asks_for() -> None:
    [start] = [s for s in _statements(POLICIES[0]) if "ec2:RunInstances" in s["Action"]]
    kinds = {resource.split(":")[-1].split("/")[0] for resource in start["Resource"]}
    asked = _cluster()["available_node_types"].values()
    if any("InstanceMarketOptions" in kind["node_config"] for kind in asked):
        assert "spot-instances-request" in kinds, "a spot node is a request for one as well"
    assert kinds >= {"image", "instance", "network-interface", "security-group", "subnet", "volume"}
    assert "spot.amazonaws.com" in (ROOT / "docs" / "operations.md").read_text("utf-8")


def test_there_are_a_policy_for_the_head_and_one_for_workers_which_write_nothing() -> None:
    assert [path.stem for path in POLICIES] == ["head-policy", "worker-policy"]
    actions = [action for statement in _statements(POLICIES[1]) for action in statement["Action"]]
    assert actions == ["s3:GetObject", "s3:GetObjectVersion"]
