"""A grid on a Ray cluster: the same cells, the same bytes, on as many machines as there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lifelong import files
from lifelong.bench import cell
from lifelong.bench.job import Job
from lifelong.bench.store import Store
from lifelong.bench.workers import Tell, in_turns
from lifelong.errors import ConfigError

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def run(
    store: Store, wanted: Sequence[Job], address: str, attempt: str, root: Path | None, tell: Tell = lambda *_: None
) -> None:
    """Run what is not settled of `wanted` as Ray tasks of one core each, and keep what they give in `store`.

    Args:
        store: On this machine; the cluster needs no shared folder for it.
        wanted: Jobs of its grid.
        address: Of a running cluster, `auto` to find it, or `local` to start one on this machine for this call.
        attempt: What failed in this attempt is not tried again in it.
        root: Data root; the same path must hold the data on every machine.
        tell: Called with what is done, whenever a cell is.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray: pip install 'lifelong[ray]'") from error
    try:
        ray.init(
            address=None if address == "local" else address, runtime_env={"env_vars": THREADS},
            log_to_driver=False, include_dashboard=False if address == "local" else None,
        )  # fmt: skip
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"no Ray cluster at {address!r}: {error}; start one, or use --ray local") from error
    try:
        task = ray.remote(num_cpus=1, max_retries=1)(_run)
        left = {
            task.remote(job.plain(), str(root) if root else None): job
            for job in in_turns(wanted)
            if not store.settled(job, attempt)
        }
        while left:
            tell(len(wanted) - len(left), len(wanted))
            done, _ = ray.wait(list(left))
            for reference in done:
                _keep(store, left.pop(reference), reference, attempt)
        tell(len(wanted), len(wanted))
    finally:
        ray.shutdown()


def _run(plain: dict[str, Any], root: str | None) -> bytes:
    """Run a job where Ray wants it; errors are values, for their classes may be unknown elsewhere."""
    try:
        outcome = cell.run(Job.of(plain), Path(root) if root else None)
    except ConfigError as error:
        return files.canonical_json({"kind": "excluded", "reason": str(error)})
    except Exception as error:  # noqa: BLE001 - one cell must not stop the others
        return files.canonical_json({"kind": "failed", "reason": f"{type(error).__name__}: {error}"[-2000:]})
    return files.canonical_json({"kind": "finished", "result": outcome.result, "cost": outcome.cost})


def _keep(store: Store, job: Job, reference: Any, attempt: str) -> None:  # noqa: ANN401 - Ray's
    import ray

    try:
        found = files.parse_json(ray.get(reference))
    except ray.exceptions.RayError as error:
        found = {"kind": "failed", "reason": f"its Ray task ended: {error}"[-2000:]}
    if found["kind"] == "finished":
        store.write(job, found["result"], found["cost"])
    else:
        store.fail(job, found["kind"], found["reason"], attempt)
