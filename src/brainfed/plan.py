"""The plan: what a federation does, as closed, typed data, parsed from TOML bytes.

A plan names no code: every choice is an Enum member or a bounded number, unknown keys are refused,
and `render` writes it out complete, defaults included, so that nothing depends on the version
that reads it. Three digests identify it: `data_digest` (cases carry it), `plan_digest` (files
carry it) and, in `core.architecture`, the digest of the network.
"""

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from brainfed.errors import PlanError, UsageError

MAX_PLAN_BYTES = 262_144
"""The tensors of a large external network take a line of some 70 bytes each."""
MAX_TOTAL_WEIGHT = 2**29
"""No total of the weights of one mean, and so no count of a site, reaches it: below it every
product of a weight and a float32 is exact in float64 (`core.averaging`)."""
SLUG = r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$"
"""Names of plans, sites and coordinators: safe in file names on FAT32, exFAT and Windows."""


def check_name(name: str) -> None:
    """Refuse a name that can't be a principal and a part of file names.

    Raises:
        UsageError: Not 1 to 40 lower-case letters, digits and inner hyphens, or a word that Windows
            keeps for devices.
    """
    if not re.fullmatch(SLUG, name) or re.fullmatch(r"con|prn|aux|nul|(com|lpt)[0-9]", name):
        raise UsageError(
            "This name can't be used",
            expected="1 to 40 lower-case letters, digits and hyphens, such as hospital-a",
            found=name,
            hint="choose another name and run the command again",
        )


class Modality(StrEnum):
    """One kind of MR image."""

    T1 = "t1"
    T1CE = "t1ce"
    T2 = "t2"
    FLAIR = "flair"


class Region(StrEnum):
    """A tumour region that the network outlines."""

    WT = "WT"
    TC = "TC"
    ET = "ET"


class Treatment(StrEnum):
    """When the scans were made, relative to surgery."""

    PRE_OPERATIVE = "pre-operative"
    POST_OPERATIVE = "post-operative"
    ANY = "any"


class Space(StrEnum):
    """Whose space the cases lie in."""

    SCAN = "scan"
    REFERENCE = "reference"
    ATLAS = "atlas"
    MNI152 = "mni152"


class BrainMask(StrEnum):
    """Where the mask of the brain comes from."""

    HEAD = "head"
    CLASSICAL = "classical"
    DEEPBET = "deepbet"
    GIVEN = "given"


class ZScore(StrEnum):
    """Which voxels give the mean and standard deviation of the z-score."""

    VOLUME = "volume"
    BRAIN = "brain"


class SplitRule(StrEnum):
    """How the counts of validation and test patients follow from the fractions."""

    FRACTIONS = "fractions"
    CEIL = "ceil"


class Architecture(StrEnum):
    """The families of networks."""

    UNET_2D = "unet-2d"
    UNET_3D = "unet-3d"
    EXTERNAL = "external"


class Norm(StrEnum):
    """The normalisation after each convolution."""

    NONE = "none"
    INSTANCE = "instance"


class Activation(StrEnum):
    """The non-linearity after each convolution."""

    RELU = "relu"
    LEAKY_RELU = "leaky-relu"


class Loss(StrEnum):
    """What training makes small."""

    LOG_DICE = "log-dice"
    DICE_CE = "dice-ce"


class Optimiser(StrEnum):
    """How the gradient becomes a step."""

    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"


class OptimiserState(StrEnum):
    """What becomes of the optimiser's moments between two rounds of a site."""

    RESET = "reset"
    KEEP = "keep"


class Schedule(StrEnum):
    """How the rate changes over all rounds of the plan."""

    CONSTANT = "constant"
    COSINE = "cosine"
    POLYNOMIAL = "polynomial"


class Method(StrEnum):
    """Who trains when."""

    FL = "fl"
    IIL = "iil"
    CIIL = "ciil"


class Rule(StrEnum):
    """How updates become global weights."""

    FEDAVG = "fedavg"
    FEDAVGM = "fedavgm"
    FEDADAM = "fedadam"
    MEDIAN = "median"
    TRIMMED_MEAN = "trimmed-mean"
    KRUM = "krum"

    @property
    def state(self) -> tuple[str, ...]:
        """What it remembers from round to round, one value for each of the weights."""
        return {Rule.FEDAVGM: ("momentum",), Rule.FEDADAM: ("first", "second")}.get(self, ())


class WeightBy(StrEnum):
    """Which count of a site's training set is its weight in the mean."""

    PATIENTS = "patients"
    CASES = "cases"
    SLICES = "slices"
    EQUAL = "equal"


class LesionPreset(StrEnum):
    """Challenge of BraTS 2023 by whose rules lesions are told apart and matched."""

    GLI = "gli"
    SSA = "ssa"
    PED = "ped"
    MEN = "men"
    MET = "met"


class Encryption(StrEnum):
    """Whether weight files are encrypted for the courier."""

    WHERE_POSSIBLE = "where-possible"
    REQUIRED = "required"
    OFF = "off"


class Section(BaseModel):
    """One table of the plan: frozen, strictly typed, unknown keys refused."""

    # Built when the first plan is read, and a table alone never, but as a part of it.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,
    )


@dataclass(frozen=True, slots=True)
class _Since:
    """The plan format that brought a table or a key."""

    format: int


Fraction = Annotated[float, Field(ge=0, le=1)]


class Cohort(Section):
    """Which patients belong. Headers can't answer this: each site answers for its patients."""

    treatment: Treatment = Treatment.PRE_OPERATIVE
    """Scans from before or after surgery."""
    minimum_age_years: Annotated[int, Field(ge=0, le=120)] = 18
    """Youngest age at the scan."""
    first_visit_only: bool = False
    """Take only the first visit of each patient."""


class Scans(Section):
    """Which images a case has and which regions are outlined."""

    required: tuple[Modality, ...] = (Modality.FLAIR,)
    """Modalities that every case must have."""
    optional: tuple[Modality, ...] = ()
    """Modalities that may be missing; a missing one is a channel of zeros, and noted."""
    regions: Annotated[tuple[Region, ...], Field(min_length=1)] = (Region.WT,)
    """Regions to outline; one output channel each, in this order."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """All modalities in the order of the image channels."""
        return self.required + self.optional

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if not self.modalities:
            raise ValueError("name at least one modality")
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError("a modality is named twice")
        if len(set(self.regions)) != len(self.regions):
            raise ValueError("a region is named twice")
        return self


class Preparation(Section):
    """How scans as the hospital has them come into one space. Since format 2."""

    space: Space = Space.SCAN
    """`scan`: the scans of a case lie on one grid already, and stay on it. `reference`: the space
    of the reference scan, at 1 mm. `atlas`: the space and grid of a file that each site lays down.
    `mni152`: those of the MNI152 template that nilearn brings."""
    reference: Modality = Modality.T1CE
    """Scan that the others of a case are registered to; where it is missing t1, then flair."""
    registration: bool = True
    """Register the scans of a case to its reference; false where all sites deliver registered
    ones."""
    n4: bool = True
    """Correct the shading (N4) of what registration looks at; the images keep theirs."""
    brain: BrainMask = BrainMask.HEAD
    """`head`: no brain extraction, whatever is not background; `classical` needs no package;
    `deepbet` is a trained network; `given`: each site brings masks. A mask that a site gives for a
    case counts under every choice but `head`; a stripped scan is its own mask."""
    atlas: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99}\.nii(\.gz)?)?$")] = ""
    """File name of the atlas, a skull-stripped T1; only for the space `atlas`."""
    atlas_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest of the atlas file; only for the space `atlas`."""

    @model_validator(mode="after")
    def _atlas_where_needed(self) -> Self:
        if (self.space is Space.ATLAS) != bool(self.atlas) or bool(self.atlas) != bool(
            self.atlas_sha256
        ):
            raise ValueError(
                'space = "atlas" needs atlas (a file name) and atlas_sha256, other spaces neither'
            )
        return self

    @model_validator(mode="after")
    def _brain_where_needed(self) -> Self:
        if self.space in (Space.ATLAS, Space.MNI152) and self.brain is BrainMask.HEAD:
            raise ValueError(
                f'space = "{self.space}" needs a brain mask (classical, deepbet or given): the '
                "atlas is skull-stripped, and a head with its skull doesn't fit it"
            )
        return self


class Grid(Section):
    """The pixel grid of a case. Slices are kept: axial, all those of the space it lies in."""

    in_plane_mm: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Pixel edge after resampling, in mm; 0 keeps that of the space."""
    size: tuple[Annotated[int, Field(ge=8, le=1024)], Annotated[int, Field(ge=8, le=1024)]] = (
        128,
        128,
    )
    """Rows and columns (y, x) after the centre crop or zero padding."""


class Intensity(Section):
    """How image values are made comparable."""

    zscore: ZScore = ZScore.BRAIN
    """Voxels that give mean and standard deviation: the whole cropped volume, as the paper has
    it, or those inside the brain mask."""


class Split(Section):
    """How a site's patients are divided into train, validation and test."""

    rule: SplitRule = SplitRule.FRACTIONS
    """`fractions` rounds to the nearest count; `ceil` rounds up, as the paper does."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the patients for validation."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the patients for the test, opened once at the end."""

    @model_validator(mode="after")
    def _room_for_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave no patient to train on")
        return self


TENSOR = (
    r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,199} "
    r"(F64|F32|F16|BF16|I64|I32|I16|I8|U64|U32|U16|U8|BOOL)( [1-9][0-9]{0,8}){0,8}$"
)
"""A line of `network.tensors`: name, type as safetensors writes it, and the edges of the shape."""


class Network(Section):
    """The architecture: a U-Net, each level two 3x3 convolutions, halved by max pooling.

    Or `external`, a network of the sites' own, of which the plan knows the tensors alone.
    """

    architecture: Architecture = Architecture.UNET_2D
    """`unet-2d` outlines slice by slice; `unet-3d` patch by patch, with kernels of 3x3x3;
    `external` is trained by the sites' own program."""
    channels: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=2, max_length=8)
    ] = (32, 64, 128, 256, 512)
    """Channels of each level, from full resolution down; as many levels as numbers."""
    norm: Norm = Norm.NONE
    """Normalisation after each convolution."""
    activation: Activation = Activation.RELU
    """Non-linearity after each convolution."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of values dropped between the convolutions of the levels below."""
    dropout_levels: tuple[Annotated[int, Field(ge=1, le=8)], ...] = ()
    """Encoder levels with dropout, counted from 1 at full resolution."""
    patch: Annotated[
        tuple[Annotated[int, Field(ge=8, le=1024)], ...], Field(max_length=3), _Since(2)
    ] = ()
    """Slices, rows and columns (z, y, x) that `unet-3d` sees at a time; empty for the others."""
    deep_supervision: Annotated[bool, _Since(2)] = False
    """Outlines of the decoder levels below full resolution are trained too, each with half the
    weight of the one above."""
    tensors: Annotated[
        tuple[Annotated[str, Field(pattern=TENSOR)], ...], Field(max_length=10_000), _Since(2)
    ] = ()
    """Of an external network, one line a tensor, such as "encoder.0.weight F32 32 4 3 3"; `brainfed
    plan from-weights FILE` writes them."""
    local: Annotated[tuple[str, ...], Field(max_length=10_000), _Since(2)] = ()
    """Names of tensors that each site keeps to itself and that never leave it; of an external
    network all that are not F32 must be among them."""

    @property
    def n_dimensions(self) -> int:
        """Of its convolutions: 2 or 3; of an external network 0."""
        return {
            Architecture.UNET_2D: 2,
            Architecture.UNET_3D: 3,
            Architecture.EXTERNAL: 0,
        }[self.architecture]

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Names of all its tensors, sorted, those that stay local too.

        Their shapes are in `core.architecture`, which a test holds against this.
        """
        if self.architecture is Architecture.EXTERNAL:
            return tuple(sorted(line.split(" ")[0] for line in self.tensors))
        n = len(self.channels)
        blocks = [f"encoder.level{level}" for level in range(1, n + 1)]
        blocks += [f"decoder.level{level}" for level in range(1, n)]
        kinds = ("conv", "norm") if self.norm is Norm.INSTANCE else ("conv",)
        layers = [f"{block}.{kind}{k}" for block in blocks for kind in kinds for k in (1, 2)]
        layers.append("head")
        if self.deep_supervision:
            layers += [f"deep.level{level}" for level in range(2, n)]
        return tuple(sorted(f"{layer}.{part}" for layer in layers for part in ("bias", "weight")))

    @model_validator(mode="after")
    def _external_alone_has_tensors(self) -> Self:
        if self.architecture is not Architecture.EXTERNAL:
            if self.tensors:
                raise ValueError('tensors are for architecture = "external" alone')
            return self
        types = dict(line.split(" ")[:2] for line in self.tensors)
        if not self.tensors or len(types) < len(self.tensors):
            raise ValueError("an external network needs its tensors, each named once")
        for name, kind in types.items():
            if kind != "F32" and name not in self.local:
                raise ValueError(f"{name!r} is {kind}: only F32 is averaged, so local must name it")
        return self

    @model_validator(mode="after")
    def _local_leaves_some(self) -> Self:
        names = set(self.tensor_names)
        for name in self.local:
            if name not in names:
                # Against the thousands of an external network the search could take minutes.
                known = self.tensor_names if self.n_dimensions else ()
                near = "".join(f"; {n!r} is" for n in difflib.get_close_matches(name, known, n=1))
                raise ValueError(f"local names {name!r}, which is not among the tensors{near}")
        if self.n_dimensions and len(set(self.local)) < len(self.local):
            raise ValueError("local names a tensor twice")
        if not names - set(self.local):
            raise ValueError("local names all tensors, so there is nothing to average")
        return self

    @model_validator(mode="after")
    def _patch_where_3d(self) -> Self:
        if len(self.patch) != (3 if self.architecture is Architecture.UNET_3D else 0):
            raise ValueError("patch is three numbers (z, y, x) for unet-3d, and empty for others")
        if self.deep_supervision and len(self.channels) < 3:
            raise ValueError("deep_supervision needs a decoder level below full resolution")
        return self


class Augmentation(Section):
    """Random changes of each training slice or patch, drawn anew each time."""

    flip: Fraction = 0.0
    """Chance of a left-right flip."""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation either way: in the plane; of a patch about each of its axes."""
    scale_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest scaling, either way."""
    intensity_shift: Annotated[float, Field(ge=0, le=5)] = 0.0
    """Largest shift of a modality, in standard deviations, either way."""
    intensity_scale_fraction: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Largest scaling of a modality, either way."""
    gamma: Annotated[float, Field(ge=0, le=4), _Since(2)] = 0.0
    """Largest bend of the intensities, an exponent from 1 / (1 + gamma) to 1 + gamma; of three
    samples in ten."""
    noise: Annotated[float, Field(ge=0, le=5), _Since(2)] = 0.0
    """Largest standard deviation of added noise, in standard deviations of the modality; of one
    sample in ten."""
    low_resolution: Annotated[float, Field(ge=1, le=8), _Since(2)] = 1.0
    """Largest loss of resolution, as a factor of the pixel edge, of one sample in four; 1 changes
    nothing."""
    drop_modality: Annotated[Fraction, _Since(2)] = 0.0
    """Chance that a modality of a slice or patch is left out; one always stays."""


class Training(Section):
    """A site's training in one round."""

    loss: Loss = Loss.DICE_CE
    """`log-dice` is the paper's; `dice-ce` is batch Dice plus cross-entropy."""
    optimiser: Optimiser = Optimiser.ADAMW
    """`sgd` has Nesterov momentum."""
    optimiser_state: Annotated[OptimiserState, _Since(2)] = OptimiserState.RESET
    """`reset`: its moments start anew in every round; `keep`: each site keeps its own, which never
    leave it."""
    momentum: Annotated[float, Field(ge=0, lt=1), _Since(2)] = 0.99
    """Only for sgd."""
    rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Learning rate at the start of the schedule."""
    schedule: Schedule = Schedule.COSINE
    """`cosine` and `polynomial` (power 0.9) fall to zero over all rounds of the plan."""
    warm_up: Annotated[Fraction, _Since(2)] = 0.0
    """Share of all rounds of the plan over which the rate rises from zero to the schedule's."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Weight decay: decoupled for adamw, added to the gradient for sgd, not for adam."""
    clip_norm: Annotated[float, Field(ge=0, le=1e6), _Since(2)] = 0.0
    """Largest norm of the gradient of all weights together; 0 leaves it as it is."""
    proximal: Annotated[float, Field(ge=0, le=1e3), _Since(2)] = 0.0
    """FedProx's mu: draws the weights towards those the round began with; 0 doesn't."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    """Slices or patches per step."""
    epochs_per_round: Annotated[int, Field(ge=0, le=1000)] = 1
    """Passes over the training slices per round, in 3-D as many patches as hold all voxels once; 0
    where steps_per_round is given."""
    steps_per_round: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Optimiser steps per round; 0 where epochs_per_round is given."""
    patience: Annotated[int, Field(ge=0, le=1000), _Since(2)] = 0
    """Epochs without a rise of the site's own validation Dice after which it stops and hands on its
    best weights; only for the method iil, where epochs_per_round is the most that a site trains."""
    foreground_fraction: Fraction = 0.0
    """Share of a batch drawn from slices, or of patches centred on voxels, with tumour; 0 keeps
    the natural mix."""
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs_per_round > 0) == (self.steps_per_round > 0):
            raise ValueError("give either epochs_per_round or steps_per_round, the other is 0")
        return self


class Aggregation(Section):
    """How the coordinator makes the next global weights."""

    rule: Rule = Rule.FEDAVG
    """`fedavg`: the weighted mean of the sites' weights; `fedavgm` and `fedadam` step towards it
    with momentum; `median` and `trimmed-mean` take each value by itself, all sites alike; `krum`
    takes the weights of the one site that is nearest to the others."""
    weights: WeightBy = WeightBy.PATIENTS
    """The count of a site's training set that is its weight; `equal` gives each site one."""
    max_weight_fraction: Annotated[float, Field(gt=0, le=1), _Since(2)] = 1.0
    """Largest share of the total weight that one site may have; 1 changes no weight."""
    clip_norm: Annotated[float, Field(ge=0, le=1e9), _Since(2)] = 0.0
    """Largest Euclidean norm of a site's change of the weights; a larger one is shortened to it
    before the rule. 0 leaves all as they are."""
    server_rate: Annotated[float, Field(gt=0, le=100), _Since(2)] = 1.0
    """Size of the coordinator's step, for fedavgm and fedadam."""
    server_momentum: Annotated[float, Field(ge=0, lt=1), _Since(2)] = 0.9
    """Share of the step before that is kept, for fedavgm and fedadam (there beta 1)."""
    second_momentum: Annotated[float, Field(ge=0, lt=1), _Since(2)] = 0.99
    """Beta 2 of fedadam."""
    adaptivity: Annotated[float, Field(gt=0, le=1), _Since(2)] = 0.001
    """Tau of fedadam: the smaller, the more its steps are of one size for all weights."""
    trim_fraction: Annotated[float, Field(ge=0, lt=0.5), _Since(2)] = 0.2
    """Share of the sites that trimmed-mean cuts off at each end, rounded down."""
    n_dishonest: Annotated[int, Field(ge=0, le=1000), _Since(2)] = 1
    """Dishonest sites that krum withstands; it needs twice as many sites and three."""


class Evaluation(Section):
    """How outlines are scored, where a measure leaves a choice. Since format 2."""

    tolerance_mm: Annotated[float, Field(gt=0, le=50)] = 1.0
    """How far two surfaces may be apart and still agree, for `nsd`."""
    lesions: LesionPreset = LesionPreset.GLI
    """Rules of BraTS 2023 for the lesion-wise scores. `gli`, `ssa`, `ped`: lesions within 3 voxels
    of each other are one, of 50 voxels or fewer none; `men`: 1 and 50; `met`: 1 and 2."""


class Participation(Section):
    """Who must take part, and what may be said about small groups."""

    quorum_sites: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Fewest sites whose updates close a round; a relay needs the one whose turn it is."""
    quorum_patients: Annotated[int, Field(ge=0, lt=MAX_TOTAL_WEIGHT), _Since(2)] = 0
    """Fewest patients that these sites' updates were trained on, together."""
    floor: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Fewest patients that a published figure may stand for."""


class Exchange(Section):
    """How files travel."""

    encryption: Encryption = Encryption.WHERE_POSSIBLE
    """`where-possible` encrypts weight files for their readers when each of them has an age
    recipient in the roster; `required` refuses to send them in the clear; `off` never does."""
    approval: Annotated[bool, _Since(3)] = False
    """Each update needs the signature of its site's approver before it leaves."""


def _one_plain_line(text: str) -> str:
    """Refuse what `render` couldn't write, and what could look like another text."""
    if not text.isprintable() or '"' in text or "\\" in text:
        raise ValueError("one line of printable characters, without quotes and backslashes")
    return text


class Terms(Section):
    """What the parties agreed on besides the numbers."""

    weights_licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")] = "not-agreed"
    """Licence of the global weights: an SPDX identifier, or a word of the agreement."""
    agreement_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest of the agreement between the parties; empty where there is none."""
    minimum_version: Annotated[str, Field(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$")] = (
        "0.1.0"
    )
    """Oldest brainfed that may take part."""
    intended_use: Annotated[
        str, Field(min_length=1, max_length=400), AfterValidator(_one_plain_line), _Since(3)
    ] = (
        "Research on the segmentation of brain tumours in MR images; not for diagnosis or "
        "treatment."
    )
    """What the global weights are for, on one line without quotes; each site is shown it."""


class Plan(Section):
    """All that the parties must agree on before the start."""

    format: Literal[1, 2, 3] = 3
    """Version of the plan's keys; a later one has more. Format 1 lacks the tables preparation
    and evaluation and the newer keys of network and training; 1 and 2 lack exchange.approval and
    terms.intended_use. What a format lacks means what the defaults say."""
    name: Annotated[str, Field(pattern=SLUG)]
    """Short name; begins the names of the exchanged files."""
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 2018
    """Root of every random choice: initial weights, split, training."""
    rounds: Annotated[int, Field(ge=1, le=9999)] = 20
    """Rounds that the rate schedule is made for; in a relay each turn of a site is one."""
    method: Annotated[Method, _Since(2)] = Method.FL
    """`fl`: all sites train each round at once, and their updates are averaged. In a relay the
    weights go from site to site in an order drawn by the seed: `iil` once, each site until its own
    Dice no longer rises; `ciil` round and round, epochs_per_round at each."""
    cohort: Cohort = Cohort()
    scans: Scans = Scans()
    preparation: Annotated[Preparation, _Since(2)] = Preparation()
    grid: Grid = Grid()
    intensity: Intensity = Intensity()
    split: Split = Split()
    network: Network = Network()
    training: Training = Training()
    aggregation: Aggregation = Aggregation()
    evaluation: Annotated[Evaluation, _Since(2)] = Evaluation()
    participation: Participation = Participation()
    exchange: Exchange = Exchange()
    terms: Terms = Terms()

    @model_validator(mode="after")
    def _knows_its_keys(self) -> Self:
        for later in _later_keys(Plan, self.format):
            value: Any = self
            for name in later.path:
                value = getattr(value, name)
            if value != later.default:
                key = ".".join(later.path)
                raise ValueError(f"{key} needs format = {later.since}, not {self.format}")
        return self

    @model_validator(mode="after")
    def _relay_fits(self) -> Self:
        patience = self.training.patience
        if self.method is not Method.IIL:
            if patience:
                raise ValueError('training.patience is for method = "iil" alone')
        elif not patience or self.training.steps_per_round:
            raise ValueError('method = "iil" needs training.patience and epochs_per_round')
        elif self.training.schedule is not Schedule.CONSTANT or self.training.warm_up:
            raise ValueError(
                'method = "iil" needs training.schedule = "constant" without warm_up: nobody knows '
                "before how long a site trains"
            )
        if self.method is not Method.FL and self.aggregation.rule is not Rule.FEDAVG:
            raise ValueError(f'method = "{self.method}" averages nothing: rule = "fedavg"')
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        network = self.network
        if network.architecture is Architecture.EXTERNAL:
            return self
        seen, edges = "grid.size", tuple(self.grid.size)
        if network.patch:
            seen, edges = "network.patch", network.patch
            if any(p > n for p, n in zip(network.patch[1:], self.grid.size, strict=True)):
                raise ValueError(
                    f"network.patch {list(network.patch)} is larger than the slices: their rows "
                    f"and columns are grid.size {list(self.grid.size)}"
                )
        divisor = 2 ** (len(network.channels) - 1)
        if any(edge % divisor for edge in edges):
            raise ValueError(
                f"{seen} {list(edges)} must be multiples of {divisor} "
                f"for a network of {len(network.channels)} levels"
            )
        if network.norm is Norm.INSTANCE and all(n == divisor for n in edges):
            raise ValueError(
                f"the deepest of {len(network.channels)} levels is one pixel, which instance "
                f"norm makes zero: fewer network.channels, or a larger {seen}"
            )
        if any(level > len(network.channels) for level in network.dropout_levels):
            raise ValueError("network.dropout_levels names a level that the network lacks")
        return self


@dataclass(frozen=True, slots=True)
class _Later:
    """A table or key that a plan format lacks."""

    path: tuple[str, ...]
    since: int
    default: Any


def _later_keys(
    section: type[BaseModel], plan_format: int, prefix: tuple[str, ...] = ()
) -> Iterator[_Later]:
    """Tables and keys that a plan of this format lacks."""
    for name, field in section.model_fields.items():
        path = (*prefix, name)
        since = max((m.format for m in field.metadata if isinstance(m, _Since)), default=1)
        if since > plan_format:
            yield _Later(path, since, field.default)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _later_keys(field.annotation, plan_format, path)


def _content(plan: Plan, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The plan's keys as plain data, those that its format lacks left out (decision 9)."""
    content = plan.model_dump(mode="json", include=set(only) if only else None)
    for later in _later_keys(Plan, plan.format):
        table = content
        for name in later.path[:-1]:
            table = table.get(name, {})
        table.pop(later.path[-1], None)
    return content


DATA_SECTIONS = ("cohort", "scans", "preparation", "grid", "intensity", "split")
"""Tables that decide what a case holds and where it goes; cases carry their digest."""


def parse(data: bytes, where: str | Path = "plan") -> Plan:
    """Read a plan from the bytes of a TOML file.

    Args:
        data: UTF-8 TOML, at most 256 KiB.
        where: Name for messages.

    Raises:
        PlanError: Not TOML, an unknown key (with the nearest known one), or a wrong value.
    """
    if len(data) > MAX_PLAN_BYTES:
        raise PlanError(
            "The plan is too large", expected="at most 256 KiB", found=f"{len(data)} B", where=where
        )
    try:
        # To JSON, where strict typing still lets a list be a tuple and a word an Enum member.
        text = json.dumps(tomllib.loads(data.decode("utf-8")), default=str)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise PlanError(
            "The plan is not a TOML file", found=error, where=where, hint="mend the line it names"
        ) from None
    try:
        return Plan.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise _first_error(error, where) from None


def build(content: Mapping[str, Any], where: str) -> Plan:
    """A plan of values in memory, such as those of another plan with some changed.

    Args:
        content: As `Plan.model_dump` gives it.
        where: What it is the plan of.

    Raises:
        PlanError: A value is out of range, or the plan doesn't fit together.
    """
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        raise _first_error(error, where) from None


def load(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        PlanError: It can't be read, or `parse` refuses it.
    """
    try:
        with path.open("rb") as stream:
            return parse(stream.read(MAX_PLAN_BYTES + 1), path)
    except OSError as error:
        raise PlanError(
            "The plan can't be read",
            found=error.strerror,
            where=path,
            hint="name the file as it lies: `brainfed plan check PLAN`",
        ) from None


def _first_error(error: ValidationError, where: str | Path) -> PlanError:
    """Name the wrong key, what it held, and the nearest right one."""
    first = error.errors(include_url=False)[0]
    location = tuple(first["loc"])
    key = ".".join(str(part) for part in location)
    hint = "mend it, then `brainfed plan check PLAN`; docs/reference/plan.md explains each key"
    if first["type"] == "extra_forbidden":
        known = [*Plan.model_fields, *known_keys()]
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        if not near:
            same_name = [name for name in known if name.split(".")[-1] == str(location[-1])]
            near = same_name[:1]
        return PlanError(
            f"The plan has an unknown key `{key}`",
            expected=f"`{near[0]}`?" if near else "a key of the plan",
            found=key,
            where=where,
            hint=hint,
        )
    if first["type"] == "missing":
        return PlanError(f"The plan lacks the key `{key}`", where=where, hint=hint)
    return PlanError(
        f"The plan's key `{key}` is wrong" if key else "The plan doesn't fit together",
        expected=first["msg"].removeprefix("Value error, "),
        found=None if isinstance(first.get("input"), dict | Section) else repr(first.get("input")),
        where=where,
        hint=hint,
    )


def known_keys() -> list[str]:
    """All keys of a plan, dotted, in the order of the file."""
    return [key for key, _ in _walk(Plan)]


def _walk(section: type[BaseModel], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            found += _walk(kind, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", field))
    return found


def render(plan: Plan, only: tuple[str, ...] | None = None) -> str:
    """The complete plan as TOML text, defaults written out; the same plan gives the same bytes.

    Args:
        plan: The plan.
        only: Names of top-level tables to write; all where None.
    """
    content = _content(plan, only)
    return "\n".join(_render_table(content, "")).lstrip("\n") + "\n"


def _render_table(table: dict[str, Any], prefix: str) -> list[str]:
    lines = [
        f"{key} = {_render_value(value)}"
        for key, value in table.items()
        if not isinstance(value, dict)
    ]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{key}]", *_render_table(value, f"{prefix}{key}.")]
    return lines


def flat(plan: Plan) -> dict[str, str]:
    """Each key of the plan, dotted, with its value as `render` writes it."""

    def walk(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in table.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", _render_value(value)

    return dict(walk(_content(plan), ""))


def _render_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'  # no plan value can hold a quote, a backslash or a line end
    if isinstance(value, list):
        return "[" + ", ".join(_render_value(item) for item in value) + "]"
    assert isinstance(value, int | float)
    return repr(value + 0)  # the zero makes 0.0 of -0.0, which is equal and must read the same


def plan_digest(plan: Plan) -> str:
    """SHA-256 (hexadecimal) of the complete plan."""
    return hashlib.sha256(render(plan).encode()).hexdigest()


def data_digest(plan: Plan) -> str:
    """SHA-256 (hexadecimal) of the tables that decide what a case holds."""
    return hashlib.sha256(render(plan, DATA_SECTIONS).encode()).hexdigest()
