"""The one place that speaks Ray: start or join a cluster, size the pools, run a wave of videos.

Ray's own fault handling is not enough and some of its defaults are traps, so what is set here is pinned to
ray==2.60.*: one video per block, so that a dying worker takes along no more than the video at work and the
one being fetched (one alone when it is tried again); no retries by Ray, whose default is for ever and which
wait for an actor that may never find room again once a node has gone; errored blocks allowed, where the
default ends the run. What is lost is found by the caller, who compares what went in with what came out.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from detector.errors import ClusterError
from detector.memory import ONE_HEAP
from detector.types import ExtractOptions
from jobs.bottleneck import Workers
from jobs.config import ScanSettings
from jobs.pools import Pools, extract_only, plan_pools, temp_share
from jobs.reading import is_downloaded
from jobs.schema import printable
from jobs.stages import Extract, Score, Scoring

_OBJECT_STORE_BYTES = 2 << 30
_POOL_START_S = 600
_NO_PROGRESS_SLACK_S = 600
_MOST_SHOWN = 300
_INSTALLED = ("purelib", "platlib")


class Cluster:
    """A connection to Ray, ours if the address is `local`. Use as a context manager.

    Without `scoring` it only extracts: `run` is not to be called then.
    """

    def __init__(
        self,
        settings: ScanSettings,
        options: ExtractOptions,
        scoring: Scoring | None,
        extract: type[Extract] = Extract,
    ) -> None:
        self._ray = _connect(settings.address)
        self._settings, self._options, self._extract = settings, options, extract
        self._scoring = scoring
        try:
            refuse_open_cluster(self._ray.nodes(), self._ray.util.get_node_ip_address(), settings)
            self.pools = self._sized()
        except ClusterError:
            self.close()
            raise

    def _sized(self) -> Pools:
        """Pools for the cluster as it is now: nodes come, and spot nodes go."""
        resources = self._ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        if self._scoring is None:
            return extract_only(self._settings, cpus)
        return plan_pools(self._settings, cpus, gpus)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; one that we started ends."""
        self._ray.shutdown()

    @property
    def workers(self) -> Workers:
        """As `Runner.workers`."""
        return Workers(self.pools.extract, self.pools.score, self.pools.on_gpu)

    def run(self, plan: pa.Table, *, alone: bool = False) -> Iterator[pa.Table]:
        """As `Runner.run`.

        Raises:
            ClusterError: the pools did not start, or Ray ended.
        """
        self.pools = pools = self._sized()
        batch = 1 if alone else pools.score_batch
        scoring = self._scoring and replace(self._scoring, device="cuda" if pools.on_gpu else "cpu")
        rows = self._stage(
            self._extracting(plan, alone=alone),
            Score,
            (scoring,),
            batch,
            self._pool(min(pools.score, math.ceil(len(plan) / batch))),
            num_cpus=pools.score_cpus,
            num_gpus=pools.score_gpus,
            runtime_env={"env_vars": ONE_HEAP},  # Ray calls its actors in threads
        )
        yield from self._batches(rows)

    def extracted(self, plan: pa.Table) -> Iterator[pa.Table]:
        """As `Extractor.extracted`.

        Raises:
            ClusterError: the pool did not start, or Ray ended.
        """
        yield from self._batches(self._extracting(plan))

    def _extracting(self, plan: pa.Table, *, alone: bool = False) -> Any:
        videos = self._ray.data.from_arrow([plan.slice(i, 1) for i in range(len(plan))])
        # Nothing is gained from a second file of a disk that is open already.
        ahead = not alone and any(is_downloaded(str(uri)) for uri in plan["uri"].to_pylist())
        pool = self._pool(min(self.pools.extract, len(plan)), calls=2 if ahead else 1)
        share = temp_share(self._settings.temp_bytes, self.pools.extract, _nodes_with_cpus(self._ray))
        arguments = (self._options, self._settings.max_bytes, share)
        return self._stage(videos, self._extract, arguments, 1, pool, num_cpus=self.pools.extract_cpus)

    def _pool(self, actors: int, calls: int = 1) -> Any:
        """A pool of actors that take so many calls at a time."""
        return self._ray.data.ActorPoolStrategy(
            size=actors,
            max_tasks_in_flight_per_actor=calls,
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=calls > 1,
        )

    def _batches(self, rows: Any) -> Iterator[pa.Table]:
        try:
            yield from rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        except self._ray.exceptions.RayError as error:
            raise ClusterError(f"Ray ended the run: {cause(str(error))}") from error

    def _stage(
        self,
        dataset: Any,
        stage: type,
        arguments: tuple[Any, ...],
        batch_size: int,
        pool: Any,
        **options: Any,
    ) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*ray_remote_args.*"
            )  # no successor exists before 2.64
            return dataset.map_batches(
                stage,
                fn_constructor_args=arguments,
                batch_size=batch_size,
                batch_format="pyarrow",
                compute=pool,
                max_restarts=-1,
                max_task_retries=0,
                **options,
            )


def cause(text: str) -> str:
    """The line of an error of Ray that says what happened: of a traceback in it the last one."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    line = printable(lines[-1 if "Traceback (most recent call last)" in text else 0].strip())
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."


def _nodes_with_cpus(ray: Any) -> int:
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())


def refuse_open_cluster(nodes: Iterable[Mapping[str, Any]], own: str, settings: ScanSettings) -> None:
    """Refuse a cluster with other machines in it whose nodes ask for no token.

    Raises:
        ClusterError: it is one, and `insecure` is not set.
    """
    if settings.insecure or os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return
    others = {str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]} - {own, "127.0.0.1"}
    if others:
        raise ClusterError(
            f"address {settings.address}: whoever reaches {min(others)} can run code there without a token",
            hint="Start every node with RAY_AUTH_MODE=token and one token (`ray get-auth-token --generate`), "
            "or use --insecure where nobody else reaches them.",
        )


def _connect(address: str) -> Any:
    """Import Ray with what it reads at import time already set, and connect."""
    if address == "local":
        # Loopback does not keep other users of the machine out: a token for this run alone, never on disk.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Otherwise a harmless ERROR line (ray-project/ray#53727) is printed at each start of a pool.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own use of what it deprecates
        import ray
        import ray.data

        mine: dict[str, Any] = {}
        if not address.startswith("ray://"):  # whose driver is a process of the head
            mine = {"job_config": _own_code()}
        if address == "local":
            mine |= {"include_dashboard": False, "object_store_memory": _store_bytes()}
        try:
            with _held_stderr():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **mine)
        except Exception as error:  # Ray raises bare ones, as when a node does not start in time
            raise ClusterError(
                f"address {address}: Ray cannot be reached or started: {error}",
                hint="`ray status` on the head node tells whether the cluster runs.",
            ) from error
        _configure_data(ray.data.DataContext.get_current())
    # Ray's advice for a pool that got no work, as when the last video kills its worker.
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    return ray


def _own_code() -> Any:
    """Have workers import our code from where this process has it, and nothing from its current folder.

    Ray adds that folder, and the one of the script, before all others. There may lie what strangers uploaded.
    """
    from ray.job_config import JobConfig

    class OwnCode(JobConfig):
        def _get_proto_job_config(self) -> Any:
            # A job's working directory reaches workers as it is; installed packages they find themselves.
            ours = str(Path(__file__).resolve().parents[1])
            travels: bool = self._runtime_env_has_working_dir()  # type: ignore[no-untyped-call]
            found = travels or ours in map(sysconfig.get_path, _INSTALLED)
            self._py_driver_sys_path = [] if found else [ours]
            return super()._get_proto_job_config()  # type: ignore[no-untyped-call]

    return OwnCode()


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Hold back what Ray's C++ side writes while it starts, and show it only where that fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _store_bytes() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_OBJECT_STORE_BYTES, memory // 4)


def _configure_data(context: Any) -> None:
    context.max_errored_blocks = -1
    context.wait_for_min_actors_s = _POOL_START_S
    context.execution_no_progress_timeout_s = _POOL_START_S + _NO_PROGRESS_SLACK_S
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
