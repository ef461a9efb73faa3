"""Phantom heads: made-up scans in four modalities, for the demo and for tests.

No patient is in them. A head is drawn as a mixture of tissues with soft edges (partial volume):
scalp, skull, fluid with sulci and ventricles, a folded cortex, white matter, deep nuclei, and an
irregular tumour of necrosis, enhancing rim and oedema that spreads in white matter. What a network
could mistake for tumour is there too: small white-matter lesions, old cavities, vessels that
enhance. A `Scanner` then turns tissue into brightness in its own way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from brainfed.plan import Modality

Field = npt.NDArray[np.float64]
Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]


class Tissue(IntEnum):
    """What a phantom is made of."""

    AIR = 0
    SCALP = 1
    SKULL = 2
    FLUID = 3
    GREY = 4
    WHITE = 5
    NUCLEI = 6
    LESION = 7
    VESSEL = 8
    OEDEMA = 9
    ENHANCING = 10
    NECROSIS = 11


# Brightness of each tissue, in the order above, as text-book contrasts have it.
_BRIGHTNESS: dict[Modality, tuple[float, ...]] = {
    Modality.T1: (0.0, 0.95, 0.12, 0.18, 0.50, 0.72, 0.58, 0.56, 0.35, 0.46, 0.47, 0.32),
    Modality.T1CE: (0.0, 0.95, 0.12, 0.19, 0.53, 0.75, 0.61, 0.58, 0.95, 0.48, 0.95, 0.33),
    Modality.T2: (0.0, 0.70, 0.10, 1.00, 0.62, 0.44, 0.52, 0.74, 0.20, 0.80, 0.70, 0.88),
    Modality.FLAIR: (0.0, 0.92, 0.08, 0.15, 0.54, 0.43, 0.50, 0.78, 0.20, 0.86, 0.76, 0.64),
}
_LABELS = {Tissue.NECROSIS: 1, Tissue.OEDEMA: 2, Tissue.ENHANCING: 4}  # protocol brats2017


@dataclass(frozen=True, slots=True)
class Scanner:
    """How a site's scanner and protocol turn tissue into brightness."""

    gain: float = 1000.0
    """Brightness of the brightest tissue, in the image's units."""
    gamma: float = 1.0
    """Exponent of brightness: below 1 lifts dark tissue, above 1 sinks it."""
    weighting: float = 0.0
    """How far each tissue's brightness is from the text-book's, as a share of it: other echo and
    repetition times. Drawn once per scanner."""
    weighting_seed: int = 0
    """Seed of that draw."""
    fluid_suppression: float = 1.0
    """How well FLAIR darkens fluid, 0 to 1."""
    noise: float = 0.02
    """Standard deviation of the Rician noise, as a share of the gain."""
    blur_mm: float = 0.0
    """Standard deviation of the in-plane blur."""
    bias: float = 0.1
    """Strength of the smooth shading over the head."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """One head."""

    images: Mapping[Modality, npt.NDArray[np.int16]]
    """Each `(z, y, x)`, axes along LPS, not negative."""
    label: npt.NDArray[np.uint8]
    """`(z, y, x)`, protocol brats2017."""
    spacing_mm: Spacing
    """`(z, y, x)`."""


def make_phantom(
    random: np.random.Generator,
    scanner: Scanner,
    *,
    shape: Shape = (12, 64, 64),
    spacing_mm: Spacing = (10.0, 3.2, 3.2),
) -> Phantom:
    """Make a head with one tumour; the same generator state gives the same head.

    Args:
        random: Source of the anatomy and of the noise.
        scanner: How it looks.
        shape: Voxels `(z, y, x)`.
        spacing_mm: Distance of voxels `(z, y, x)`; the head is about 160 x 200 mm in the plane.
    """
    canvas = _Canvas(random, shape, spacing_mm)
    _draw_head(canvas)
    _draw_distractors(canvas)
    _draw_tumour(canvas)
    label = np.zeros(shape, np.uint8)
    main = canvas.fractions.argmax(axis=0)
    for tissue, value in _LABELS.items():
        label[main == tissue] = value
    images = {modality: _scan(canvas, modality, scanner) for modality in Modality}
    return Phantom(images, label, spacing_mm)


class _Canvas:
    """The share of each tissue in each voxel, and what is needed to draw on it."""

    def __init__(self, random: np.random.Generator, shape: Shape, spacing_mm: Spacing) -> None:
        self.random = random
        self.shape = shape
        self.axes = [_centred(n, step) for n, step in zip(shape, spacing_mm, strict=True)]
        self.edge_mm = spacing_mm[2]
        self.fractions = np.zeros((len(Tissue), *shape))
        self.fractions[Tissue.AIR] = 1
        z, y, x = np.meshgrid(*self.axes, indexing="ij")
        # A smooth warp makes each head lopsided in its own way.
        self.z = z
        self.y = y + 4 * self.noise(45)
        self.x = x + 4 * self.noise(45)

    def noise(self, scale_mm: float) -> Field:
        """Smooth Gaussian noise of mean 0 and variance 1 with this length of correlation."""
        kernels = []
        for axis in self.axes:
            nodes = np.arange(axis[0] - 3 * scale_mm, axis[-1] + 4 * scale_mm, scale_mm)
            kernel = np.exp(-((axis[:, None] - nodes) ** 2) / (2 * scale_mm**2))
            kernels.append(kernel / np.sqrt((kernel**2).sum(axis=1, keepdims=True)))
        field: Field = self.random.standard_normal([kernel.shape[1] for kernel in kernels])
        for kernel in kernels:
            # The axis at the front is drawn out to voxels and goes to the back.
            field = np.tensordot(field, kernel, axes=(0, 1))
        return field

    def paint(self, tissue: Tissue, inside_mm: Field) -> None:
        """Lay a tissue over what is there, where the signed depth is positive; edges are soft."""
        cover = np.clip(0.5 + inside_mm / self.edge_mm, 0, 1)
        self.fractions *= 1 - cover
        self.fractions[tissue] += cover

    def ellipsoid(self, centre: tuple[float, float, float], radii: tuple[float, ...]) -> Field:
        """Depth in mm, roughly, below the surface of an ellipsoid; `(z, y, x)`, millimetres."""
        parts = zip((self.z, self.y, self.x), centre, radii, strict=True)
        distance = np.sqrt(sum(((axis - middle) / radius) ** 2 for axis, middle, radius in parts))
        depth: Field = (1 - distance) * min(radii)
        return depth

    def vary(self, middle: float, share: float) -> float:
        """A number near `middle`, within `share` of it either way."""
        return middle * (1 + share * self.random.uniform(-1, 1))


def _draw_head(canvas: _Canvas) -> None:
    brain = (canvas.vary(72, 0.08), canvas.vary(82, 0.08), canvas.vary(66, 0.08))
    centre = (-10.0, 0.0, 0.0)
    depth = canvas.ellipsoid(centre, brain)
    folds, fine = canvas.noise(7), canvas.noise(4)
    canvas.paint(Tissue.SCALP, depth + canvas.vary(15, 0.2))
    canvas.paint(Tissue.SKULL, depth + canvas.vary(9, 0.15))
    canvas.paint(Tissue.FLUID, depth + canvas.vary(3, 0.4))
    canvas.paint(Tissue.GREY, depth + 1.5 * folds)
    canvas.paint(Tissue.WHITE, depth - 8 + 5 * folds + 2 * fine)
    atrophy = canvas.random.uniform(0.0, 1.0)
    sulci = 1.2 * folds - fine - (2.6 - 0.8 * atrophy)
    canvas.paint(Tissue.FLUID, np.minimum(2 * sulci, np.minimum(depth + 2, 16 - depth)))
    for side in (-1, 1):
        nucleus = (-8.0, -2.0, side * canvas.vary(18, 0.15))
        canvas.paint(Tissue.NUCLEI, canvas.ellipsoid(nucleus, (13, 19, 9)) + fine)
        for y, tilt in ((-22.0, 8.0), (18.0, 13.0)):  # front and back horns
            horn = (4.0, y, side * canvas.vary(tilt, 0.2))
            radii = (14 + 4 * atrophy, 17 + 6 * atrophy, 4 + 4.5 * atrophy)
            canvas.paint(Tissue.FLUID, canvas.ellipsoid(horn, radii) + 0.8 * fine)
    gap = 1.3 + atrophy - np.abs(canvas.x)  # between the hemispheres
    outside = np.abs(canvas.y) - canvas.vary(38, 0.1)
    canvas.paint(Tissue.FLUID, np.minimum(gap, np.minimum(outside, depth + 2)))


def _draw_distractors(canvas: _Canvas) -> None:
    """What looks like tumour in one modality and is none."""
    random = canvas.random
    for _ in range(int(random.integers(1, 7))):  # lesions of small vessels, beside the ventricles
        side = random.choice((-1, 1))
        spot = (random.uniform(-5, 30), random.uniform(-45, 45), side * random.uniform(20, 38))
        radii = tuple(random.uniform(3, 7, 3))
        white = canvas.fractions[Tissue.WHITE]
        canvas.paint(Tissue.LESION, canvas.ellipsoid(spot, radii) - 4 * (white < 0.5))
    if random.random() < 0.4:  # an old cavity: fluid with a pale rim
        side = random.choice((-1, 1))
        spot = (random.uniform(-25, 25), random.uniform(-45, 45), side * random.uniform(28, 46))
        radii = tuple(random.uniform(6, 12, 3))
        cavity = canvas.ellipsoid(spot, radii) + canvas.noise(6)
        within = canvas.fractions[Tissue.GREY : Tissue.LESION + 1].sum(axis=0) > 0.5
        canvas.paint(Tissue.LESION, cavity + 2 - 9 * ~within)
        canvas.paint(Tissue.FLUID, cavity - 9 * ~within)
    for _ in range(int(random.integers(4, 10))):
        angle, share = random.uniform(0, 2 * np.pi), random.uniform(0.5, 1.0)
        spot = (random.uniform(-50, 45), 76 * share * np.sin(angle), 60 * share * np.cos(angle))
        canvas.paint(Tissue.VESSEL, canvas.ellipsoid(spot, (14.0, 2.2, 2.2)))
    sinus = (10.0, 80.0, 0.0)
    canvas.paint(Tissue.VESSEL, canvas.ellipsoid(sinus, (45.0, 4.0, 4.0)))


def _draw_tumour(canvas: _Canvas) -> None:
    random = canvas.random
    radius = random.uniform(18, 30)
    direction = random.standard_normal(3)
    direction *= random.uniform(0.35, 0.75) / np.linalg.norm(direction)
    centre = (-6 + 50 * direction[0], 66 * direction[1], 52 * direction[2])
    brain = canvas.fractions[[Tissue.GREY, Tissue.WHITE, Tissue.NUCLEI, Tissue.LESION]].sum(axis=0)
    fluid = canvas.fractions[Tissue.FLUID]
    outside = canvas.fractions[[Tissue.AIR, Tissue.SCALP, Tissue.SKULL]].sum(axis=0)
    shape, fingers = canvas.noise(14), canvas.noise(6)
    stretch = tuple(radius * random.uniform(0.7, 1.3, 3))
    whole = canvas.ellipsoid(centre, stretch)
    for _ in range(int(random.integers(1, 4))):  # lobes
        lobe = tuple(c + radius * random.uniform(-0.7, 0.7) for c in centre)
        radii = tuple(radius * random.uniform(0.4, 0.8, 3))
        whole = np.maximum(whole, canvas.ellipsoid((lobe[0], lobe[1], lobe[2]), radii))
    whole = whole + 0.16 * radius * shape + 2.5 * fingers
    # Oedema follows white matter: it goes less far into the cortex, and not into fluid.
    oedema = whole - 0.25 * radius * canvas.fractions[Tissue.GREY] - 40 * outside - 8 * fluid
    canvas.paint(Tissue.OEDEMA, np.where(brain + fluid > 0.3, oedema, -canvas.edge_mm))
    share = random.uniform(0.4, 0.7)
    middle = tuple(c + random.uniform(-0.25, 0.25) * radius for c in centre)
    core = canvas.ellipsoid((middle[0], middle[1], middle[2]), tuple(share * s for s in stretch))
    core = np.minimum(core + 0.14 * radius * canvas.noise(9), whole + 2) - 40 * outside
    canvas.paint(Tissue.ENHANCING, core)
    canvas.paint(Tissue.NECROSIS, core - canvas.vary(4.5, 0.35) + canvas.noise(7))


def _scan(canvas: _Canvas, modality: Modality, scanner: Scanner) -> npt.NDArray[np.int16]:
    """What the scanner makes of the tissues: `(z, y, x)`."""
    random = canvas.random
    table = np.array(_BRIGHTNESS[modality])
    own = np.random.default_rng([scanner.weighting_seed, list(Modality).index(modality)])
    table *= 1 + scanner.weighting * own.uniform(-1, 1, table.size)
    if modality is Modality.FLAIR:
        table[Tissue.FLUID] += 0.6 * (1 - scanner.fluid_suppression)
    table *= 1 + 0.04 * random.uniform(-1, 1, table.size)  # patients differ
    clean = np.tensordot(np.clip(table, 0, None) ** scanner.gamma, canvas.fractions, axes=1)
    clean *= 1 + 0.05 * canvas.noise(5)  # tissue is never even
    clean *= np.exp(scanner.bias * canvas.noise(55))
    if scanner.blur_mm > 0:
        clean = _blur(clean, canvas.axes[1], axis=1, sigma_mm=scanner.blur_mm)
        clean = _blur(clean, canvas.axes[2], axis=2, sigma_mm=scanner.blur_mm)
    parts = scanner.noise * random.standard_normal((2, *canvas.shape))
    noisy = np.sqrt((clean + parts[0]) ** 2 + parts[1] ** 2)  # Rician: the size of a complex signal
    scaled: npt.NDArray[np.int16] = np.rint(np.clip(noisy * scanner.gain, 0, 32767)).astype(
        np.int16
    )
    return scaled


def _centred(n: int, step_mm: float) -> Field:
    """Places of n voxels along one axis, 0 in the middle."""
    return (np.arange(n, dtype=np.float64) - (n - 1) / 2) * step_mm


def _blur(array: Field, positions: Field, *, axis: int, sigma_mm: float) -> Field:
    apart = positions[:, None] - positions
    kernel = np.exp(-(apart**2) / (2 * sigma_mm**2))
    kernel /= kernel.sum(axis=1, keepdims=True)
    blurred: Field = np.moveaxis(np.tensordot(kernel, array, axes=(1, axis)), 0, axis)
    return blurred
