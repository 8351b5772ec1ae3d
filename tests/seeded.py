"""Weights from a seed: a small untrained network in a real weights file. Its scores mean nothing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch

from detector.model import golden_logit
from detector.network import ResNeXtLSTM
from detector.types import Policy
from detector.weights import Architecture, Header, Input, WeightsFile, write

POLICY = Policy(
    policy_id="seeded",
    slope=1.0,
    bias=0.0,
    flag=0.6,
    flag_fpr=0.01,
    uncertain=0.52,
    uncertain_fpr=0.05,
    level="none",
    data="none: a seeded network",
)


def seeded_weights(
    path: Path, *, seed: int = 0, mix: float = 0.5, size: int = 64, arch: Architecture | None = None
) -> WeightsFile:
    """Write a weights file of random parameters, 2.8 M without `arch`, so large that scores differ."""
    torch.manual_seed(seed)
    arch = arch or Architecture(
        layers=(1, 1, 1, 1), groups=1, width_per_group=4, projection=32, hidden=16, mix=mix
    )
    net = ResNeXtLSTM(arch).eval()
    net.load_state_dict(
        {k: v.half().float() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    )
    draft = Header(
        name=path.stem,
        architecture=arch,
        input=Input(size=size),
        storage="float16",
        policy=POLICY,
        golden_logit=0.0,
        trained=False,
    )
    header = Header(
        **{f: getattr(draft, f) for f in Header.__struct_fields__}
        | {"golden_logit": golden_logit(net, draft)}
    )
    return write(path, header, net.state_dict())


if __name__ == "__main__":
    target = Path(sys.argv[1])
    seeded_weights(target)
    print(hashlib.sha256(target.read_bytes()).hexdigest())
