"""A process that trains when it is told to: `python train_steps.py '{"who": ..., ...}'`.

`bench_train.py` starts one for each that is compared. It says once, as a line of JSON, what it
trains; then each line of its input, a number of steps, is answered by the seconds that they took.
Each runs in the environment that has its libraries, so the imports stand inside.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

N_BATCHES = 8
"""Of the peers, ready in memory and given in turn: their loading costs nothing."""
MEMORY_FORMAT = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True)
class Task:
    """What to train."""

    who: str
    data: str
    """An .npz file: `image` float16 (case, modality, z, y, x), `regions` bool (case, region, z,
    y, x)."""
    channels: list[int]
    patch: list[int]
    """Of a sample: y, x in 2-D; z, y, x in 3-D."""
    batch: int
    device: str
    threads: int
    deep: bool = False
    augmentation: dict[str, float] | None = None
    precision: str = ""
    """Of brainfed; what it takes by itself where empty."""

    @property
    def n_dimensions(self) -> int:
        return len(self.patch)


class Pace:
    """Called before each step; waits for orders, and answers when one is done."""

    def __init__(self, device: torch.device) -> None:
        self.on_cuda = device.type == "cuda"
        self.loading = 0.0
        self.is_exact = False
        """Whether loading is waited for; on CUDA that slows the steps."""
        self._left = 0
        self._start: tuple[float, float] | None = None

    def __call__(self) -> None:
        if self._left == 0:
            self._answer()
            order = sys.stdin.readline().split() or sys.exit()
            self._left, self.is_exact = int(order[0]), "exact" in order
            self.loading = 0.0
            self._start = time.perf_counter(), time.process_time()
        self._left -= 1

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.on_cuda:
            torch.cuda.synchronize()

    def _answer(self) -> None:
        self.wait()
        if self._start is None:
            return
        wall, cpu = self._start
        seconds = time.perf_counter() - wall
        say(seconds=seconds, cpu=time.process_time() - cpu, loading=self.loading)


def say(**content: Any) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def introduce(model: nn.Module | None, one_step: Callable[[], object], *libraries: str) -> None:
    """Say what is trained; the step that is counted is the first, and isn't timed."""
    with FlopCounterMode(display=False) as counted:
        one_step()
    n = 0 if model is None else sum(parameter.numel() for parameter in model.parameters())
    versions = [f"{name} {version(name)}" for name in libraries]
    say(parameters=n, flop=counted.get_total_flops(), versions=versions)


class Loading:
    """A training set that keeps the pace and counts the seconds of its batches."""

    def __init__(self, samples: Any, pace: Pace) -> None:
        self._samples = samples
        self._pace = pace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._samples, name)

    def batch(self, *args: Any, **named: Any) -> Any:
        self._pace()
        if self._pace.is_exact:
            self._pace.wait()
        start = time.perf_counter()
        batch = self._samples.batch(*args, **named)
        if self._pace.is_exact:
            self._pace.wait()
        self._pace.loading += time.perf_counter() - start
        return batch


def brainfed(task: Task, device: torch.device) -> None:
    """The training of a round as it is, with its losses, optimiser, sampling and checks."""
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.builders import a_plan

    from brainfed.core.device import choose_precision
    from brainfed.core.samples import Held, Volume, samples_of
    from brainfed.core.training import train
    from brainfed.core.unet import UNet, initial_weights
    from brainfed.steps.training_set import _on_device

    data = np.load(task.data)
    n_regions = data["regions"].shape[1]
    in_3d = task.n_dimensions == 3
    network: dict[str, Any] = {"architecture": "unet-3d", "patch": task.patch} if in_3d else {}

    def plan_of(steps: int) -> Any:
        return a_plan(
            scans={"required": ("flair", "t1ce", "t1"), "regions": ("WT", "TC", "ET")[:n_regions]},
            grid={"size": data["image"].shape[-2:]},
            network={
                "channels": task.channels,
                "norm": "instance",
                "activation": "leaky-relu",
                "deep_supervision": task.deep,
                **network,
            },
            training={
                "batch": task.batch,
                "optimiser": "sgd",
                "rate": 0.01,
                "schedule": "polynomial",
                "clip_norm": 12.0,
                "epochs_per_round": 0,
                "steps_per_round": steps,
                "augmentation": task.augmentation or {},
            },
        )

    plan = plan_of(1_000_000)
    volumes: list[Volume | Held] = []
    for image, regions in zip(data["image"], data["regions"], strict=True):
        volume = Volume(image, regions, (True,) * len(image))
        volumes.append(_on_device(volume, device) if device.type == "cuda" else volume)
    samples = samples_of(volumes, plan, seed=1, device=device)

    def run(samples: Any, steps: int) -> None:
        train(
            initial_weights(plan),
            plan_of(steps),
            samples,
            round_number=1,
            seed=1,
            device=device,
            precision=choose_precision(task.precision or None, device),
        )

    introduce(UNet(plan), lambda: run(samples, 1), "brainfed", "torch")
    run(Loading(samples, Pace(device)), 1_000_000)


def ready_batches(task: Task, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Image and regions, float32, of random slices or patches."""
    data = np.load(task.data)
    random = np.random.default_rng(1)
    size = task.patch if task.n_dimensions == 3 else [1, *task.patch]

    def sample() -> tuple[np.ndarray, np.ndarray]:
        case = random.integers(len(data["image"]))
        starts = [random.integers(0, n - p + 1) for n, p in zip(shape, size, strict=True)]
        place = (slice(None), *(slice(s, s + p) for s, p in zip(starts, size, strict=True)))
        pair = images[case][place], regions[case][place]
        return pair if task.n_dimensions == 3 else tuple(a[:, 0] for a in pair)

    images, regions = data["image"], data["regions"]
    shape = images.shape[2:]
    batches = []
    for _ in range(N_BATCHES):
        columns = zip(*(sample() for _ in range(task.batch)), strict=True)
        image, truth = (torch.from_numpy(np.stack(c).astype(np.float32)) for c in columns)
        batches.append((image.to(device), truth.to(device)))
    return batches


def nnunet(task: Task, device: torch.device) -> None:
    """nnU-Net's network, loss, optimiser and `train_step`, as its trainer puts them together."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    batches = ready_batches(task, device)
    n_modalities, n_regions = batches[0][0].shape[1], batches[0][1].shape[1]
    n, levels = task.n_dimensions, len(task.channels)
    strides = [(1,) * n] + [(2,) * n] * (levels - 1)
    trainer = object.__new__(nnUNetTrainer)
    trainer.device, trainer.is_ddp, trainer.enable_deep_supervision = device, False, task.deep
    trainer.label_manager = SimpleNamespace(has_regions=n_regions > 1, ignore_label=None)
    trainer.configuration_manager = SimpleNamespace(batch_dice=True, pool_op_kernel_sizes=strides)
    trainer.initial_lr, trainer.weight_decay, trainer.num_epochs = 1e-2, 3e-5, 1000
    trainer.network = PlainConvUNet(
        n_modalities,
        levels,
        task.channels,
        (nn.Conv2d, nn.Conv3d)[n - 2],
        3,
        strides,
        2,
        n_regions if n_regions > 1 else 2,
        2,
        True,
        (nn.InstanceNorm2d, nn.InstanceNorm3d)[n - 2],
        {"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=task.deep,
    ).to(device)
    trainer.network.apply(PlainConvUNet.initialize)
    model = trainer.network
    if trainer._do_i_compile():
        trainer.network = torch.compile(trainer.network)
    trainer.optimizer, _ = trainer.configure_optimizers()
    trainer.grad_scaler = torch.amp.GradScaler("cuda") if device.type == "cuda" else None
    trainer.loss = trainer._build_loss()

    def target(truth: Tensor) -> Tensor | list[Tensor]:
        if not task.deep:
            return truth
        # As its loader does: the truth of each coarser output, by nearest neighbours.
        return [
            nn.functional.interpolate(truth, scale_factor=0.5**level) if level else truth
            for level in range(levels - 1)
        ]

    ready = [{"data": image, "target": target(truth)} for image, truth in batches]
    introduce(model, lambda: trainer.train_step(ready[0]), "nnunetv2", "torch")
    for_ever(lambda number: trainer.train_step(ready[number % N_BATCHES]), device)


def monai(task: Task, device: torch.device) -> None:
    """MONAI's DynUNet and DiceCELoss in a plain loop."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet

    batches = ready_batches(task, device)
    n, levels = task.n_dimensions, len(task.channels)
    model = DynUNet(
        n,
        batches[0][0].shape[1],
        batches[0][1].shape[1],
        [3] * levels,
        [1] + [2] * (levels - 1),
        [2] * (levels - 1),
        filters=task.channels,
        norm_name=("INSTANCE", {"affine": True}),
        act_name=("leakyrelu", {"inplace": True, "negative_slope": 0.01}),
    ).to(device)
    loss_of = DiceCELoss(sigmoid=True, batch=True)
    optimiser = torch.optim.SGD(
        model.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5
    )
    on_cuda = device.type == "cuda"

    def step(number: int) -> None:
        image, truth = batches[number % N_BATCHES]
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16) if on_cuda else nullcontext():
            logits = model(image)
        loss_of(logits.float(), truth).backward()
        optimiser.step()

    introduce(model, lambda: step(0), "monai", "torch")
    for_ever(step, device)


def convolution(task: Task, device: torch.device) -> None:
    """One wide convolution, forward and backward: what the machine can do."""
    n = task.n_dimensions
    layer = (nn.Conv2d, nn.Conv3d)[n - 2](64, 64, 3, padding=1).to(device)
    shape = (16, 64, 96, 96) if n == 2 else (2, 64, 32, 32, 32)
    image = torch.randn(shape, device=device, requires_grad=True)
    on_cuda = device.type == "cuda"
    if on_cuda:
        layer = layer.to(memory_format=MEMORY_FORMAT[n])
        image = image.detach().contiguous(memory_format=MEMORY_FORMAT[n]).requires_grad_()
    gradient = torch.randn_like(image)

    def step(number: int) -> None:
        image.grad = None
        with torch.autocast("cuda", torch.bfloat16) if on_cuda else nullcontext():
            result = layer(image)
        result.backward(gradient.to(result.dtype))

    introduce(None, lambda: step(0), "torch")
    for_ever(step, device)


def for_ever(step: Callable[[int], object], device: torch.device) -> None:
    pace, number = Pace(device), 0
    while True:
        pace()
        step(number)
        number += 1


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    torch.manual_seed(1)
    work = {f.__name__: f for f in (brainfed, nnunet, monai, convolution)}[task.who]
    work(task, torch.device(task.device))


if __name__ == "__main__":
    main()
