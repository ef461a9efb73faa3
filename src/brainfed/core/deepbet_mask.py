"""The brain mask of deepbet's network (extra `brain`), without deepbet's own code.

deepbet (Fisch et al. 2024, doi:10.1016/j.compbiomed.2024.108845; MIT) finds the brain with two
small networks: one on the whole scan says where the brain lies, one on the box around it draws it.
Its package brings both as files, but its code wants a window kit and five libraries more, for what
is a page here. So the package's weights are read and its code is never imported. It was trained on
T1 scans of healthy adults.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import hashlib
import io
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.brainmask import depths, filled, largest_part
from brainfed.errors import NotReadyError, ScanError

if TYPE_CHECKING:
    import torch

VERSION = "1.0.2"
FINDER = (
    "data/models/bbox_model.pt",
    "39a7b2b5f799faa1391ea97bfcdc0b9299f20d84f2316a4ff8918dc4685e40aa",
)
"""The network that finds the brain: its file in the package and that file's SHA-256."""
DRAWER = (
    "data/models/model.pt",
    "de8ee7c69654d0dd3935dc4a5d84571d8ecf4637a6bfc01df399c4c2bc86e0fd",
)
"""The network that draws the mask."""
FINDER_SIZE, DRAWER_SIZE = 128, 256
MARGIN = 0.1
"""Share of the brain's extent that the box is wider on each side."""
INSET_MM = 1.0
"""How much is taken off the network's mask. It was trained to draw all within the skull, the fluid
around the brain included; other masks, BET's for one, end closer to the brain."""
FEWEST_SHARE = 0.02
"""A slice with less brain than this doesn't count for the box."""
HINT = f"pip install --no-deps deepbet=={VERSION}"

Box = tuple[slice, slice, slice]


def brain(image: sitk.Image) -> sitk.Image:
    """The brain mask by deepbet's networks, in two steps as deepbet 1.0.2 does it.

    What it draws is then made smaller by `INSET_MM`. The networks see voxels, not millimetres: the
    scan is stretched to a cube of 128 voxels a side, and the box around the brain to one of 256,
    both by the nearest voxel. On the CPU the result is the same each time for the same number of
    threads (torch's own setting); a GPU is used where there is one.

    Args:
        image: A 3-D scan with skull, T1 at best; any orientation.

    Returns:
        uint8 image on the same grid: 1 in the brain.

    Raises:
        NotReadyError: The package is missing or not the version whose weights we know.
        ScanError: The network finds no brain.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    upright = sitk.DICOMOrient(sitk.Cast(image, sitk.sitkFloat32), "RAS")
    # (x, y, z), as the networks were trained.
    array = np.nan_to_num(sitk.GetArrayFromImage(upright)).transpose(2, 1, 0)
    volume = torch.from_numpy(np.ascontiguousarray(array)).to(device)
    reproducible = torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), reproducible:
        small = _stretched(volume, (FINDER_SIZE,) * 3)
        low, high = small.quantile(0.005), small.quantile(0.995)
        found = _run(FINDER, small, low, high)
        box = _box(largest_part(found > 0.5), array.shape)
        drawn = _run(DRAWER, _stretched(volume[box], (DRAWER_SIZE,) * 3), low, high)
        inside = _stretched(torch.from_numpy(drawn), volume[box].shape).numpy() > 0.5
    whole = np.zeros(array.shape, np.bool_)
    whole[box] = filled(largest_part(inside))
    whole = whole.transpose(2, 1, 0)
    result = sitk.GetImageFromArray(
        (depths(whole, upright.GetSpacing()) > INSET_MM).astype(np.uint8)
    )
    result.CopyInformation(upright)
    # Back to the scan's own order of axes; each voxel keeps its place.
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    result = sitk.DICOMOrient(result, code)
    result.CopyInformation(image)
    return result


def _network(which: tuple[str, str]) -> "torch.jit.ScriptModule":
    """The network in one of the package's files, if it is the file that we know."""
    import torch

    name, digest = which
    try:
        path = Path(str(metadata.distribution("deepbet").locate_file(name)))
        content = path.read_bytes()
    except (metadata.PackageNotFoundError, OSError):
        raise NotReadyError(
            "The network for the brain mask is not installed",
            expected=f"the package deepbet {VERSION}",
            hint=f'{HINT}; or set brain = "classical" in the plan',
        ) from None
    if hashlib.sha256(content).hexdigest() != digest:
        # The file holds a program: no other than the known one is run.
        raise NotReadyError(
            "The network for the brain mask is not the one that is known",
            expected=f"deepbet {VERSION}, SHA-256 {digest}",
            found=hashlib.sha256(content).hexdigest(),
            where=path,
            hint=f"{HINT} --force-reinstall",
        )
    with warnings.catch_warnings():
        # torch would rather have another format; these files come in this one.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(io.BytesIO(content)).eval()


def _run(
    which: tuple[str, str], cube: "torch.Tensor", low: "torch.Tensor", high: "torch.Tensor"
) -> npt.NDArray[np.float32]:
    """The network's probability of brain for each voxel of the cube, brightness made even."""
    scaled = ((cube - low) / (high - low)).clamp(0, 1)
    scaled = 0.226 * (scaled - scaled.mean()) / scaled.std() + 0.449
    answer = _network(which).to(cube.device)(scaled[None, None])
    return answer[0, 1].cpu().numpy()


def _stretched(volume: "torch.Tensor", shape: tuple[int, ...]) -> "torch.Tensor":
    from torch.nn.functional import interpolate

    return interpolate(volume[None, None], shape, mode="nearest-exact")[0, 0]


def _box(found: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> Box:
    """The box around what was found in the small cube, wider by the margin, in the scan's voxels.

    Raises:
        ScanError: Nothing, or next to nothing, was found.
    """
    sides = []
    for axis, n in enumerate(shape):
        others = tuple(a for a in range(3) if a != axis)
        rows = np.flatnonzero(found.mean(axis=others) > FEWEST_SHARE)
        if rows.size == 0:
            raise ScanError(
                "deepbet finds no brain in the scan",
                expected="a head, T1 at best",
                hint='look at the scan; a plan with brain = "classical" needs no T1',
            )
        voxels = n / FINDER_SIZE
        centre = np.rint((rows[0] + rows[-1] + 1) / 2 * voxels)
        size = np.rint((rows[-1] + 1 - rows[0]) * voxels * (1 + 2 * MARGIN))
        sides.append(slice(max(0, int(centre - size / 2)), min(n, int(centre + size / 2))))
    return sides[0], sides[1], sides[2]
