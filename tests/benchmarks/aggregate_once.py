"""One aggregation, timed, in a process of its own; `bench_aggregate.py` starts it.

Takes a task as JSON; prints seconds, by the clock and of the CPU, and versions as JSON. The clock
starts when all modules are loaded and stops when the result lies on the disk. Each peer runs this
file in its own environment, so nothing of brainfed is imported at the top.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

Run = Callable[[], object]


def brainfed(task: dict[str, Any]) -> Run:
    """The step that `brainfed aggregate` runs: all checks, screening, the signed record."""
    from brainfed.core.screening import Sums
    from brainfed.formats import workspace
    from brainfed.steps.aggregate import aggregate

    if task["who"] == "brainfed without screening":
        Sums.add = lambda *_: None  # type: ignore[method-assign]
    place = workspace.find(Path(task["workspace"]))
    return lambda: aggregate(place, today=date(2026, 3, 1))


def flare(task: dict[str, Any]) -> Run:
    """FLARE's in-place weighted sum of torch tensors, without any check.

    The files are read by torch.load, as its model files are, or mapped by safetensors, as its
    offload of tensors to the disk does.
    """
    import torch
    from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper
    from safetensors.torch import load_file, save_file

    def read(path: str) -> dict[str, Any]:
        if task["who"] == "FLARE, torch.load":
            return dict(torch.load(path + ".pt", weights_only=True))
        return dict(load_file(path))

    def run() -> None:
        helper = WeightedAggregationHelper()
        for path, weight in zip(task["files"], task["weights"], strict=True):
            helper.add(read(path), weight, path, 1)
        write = torch.save if task["who"] == "FLARE, torch.load" else save_file
        write(helper.get_result(), task["out"])

    return run


def flower(task: dict[str, Any]) -> Run:
    """Flower's averaging of array records, as its FedAvg strategy calls it."""
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
    from safetensors.numpy import load_file, save_file

    def run() -> None:
        from flwr.app import Array

        records = [
            RecordDict(
                {
                    "arrays": ArrayRecord({k: Array(v) for k, v in load_file(path).items()}),
                    "metrics": MetricRecord({"num-examples": weight}),
                }
            )
            for path, weight in zip(task["files"], task["weights"], strict=True)
        ]
        result = aggregate_arrayrecords(records, "num-examples")
        save_file({name: array.numpy() for name, array in result.items()}, task["out"])

    return run


def flower_robust(task: dict[str, Any]) -> Run:
    """Flower's median or trimmed mean on plain arrays, its quickest way."""
    from flwr.server.strategy.aggregate import aggregate_median, aggregate_trimmed_avg
    from safetensors.numpy import load_file, save_file

    def run() -> None:
        loaded = [load_file(path) for path in task["files"]]
        names = sorted(loaded[0])
        results = [([tensors[name] for name in names], 1) for tensors in loaded]
        if task["who"] == "Flower median":
            result = aggregate_median(results)
        else:
            result = aggregate_trimmed_avg(results, 0.2)
        save_file(dict(zip(names, result, strict=True)), task["out"])

    return run


def sha256(task: dict[str, Any]) -> Run:
    """SHA-256 of the same files, a file to each thread, on all cores."""

    def digest(path: str) -> bytes:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()

    def run() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(digest, task["files"]))

    return run


CONTESTANTS: dict[str, tuple[Callable[[dict[str, Any]], Run], tuple[str, ...]]] = {
    "brainfed": (brainfed, ("brainfed", "numpy", "cryptography")),
    "brainfed without screening": (brainfed, ("brainfed", "numpy", "cryptography")),
    "FLARE, torch.load": (flare, ("nvflare", "torch", "safetensors")),
    "FLARE, files mapped": (flare, ("nvflare", "torch", "safetensors")),
    "Flower": (flower, ("flwr", "numpy", "safetensors")),
    "Flower median": (flower_robust, ("flwr", "numpy", "safetensors")),
    "Flower trimmed-mean": (flower_robust, ("flwr", "numpy", "safetensors")),
    "SHA-256": (sha256, ()),
}


def main() -> None:
    """Run the task of the command line."""
    task = json.loads(sys.argv[1])
    prepare, names = CONTESTANTS[task["who"]]
    run = prepare(task)
    start, cpu = time.perf_counter(), time.process_time()
    run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    versions = [f"{name} {version(name)}" for name in names]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "versions": versions}))


if __name__ == "__main__":
    main()
