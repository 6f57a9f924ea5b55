"""The blocks of the settings files as typed, frozen objects; none of them knows a model by name."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from crystalmesh.numerics import Tier

# Strict: `true` is no number.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1, strict=True)]
Count = Annotated[int, Field(gt=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]  # so `seed` + member is below 2**32
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
# Names of settings: no dot, which parts the keys of nested blocks.
KEY = r"^[A-Za-z0-9_-]+$"
Key = Annotated[str, Field(pattern=KEY)]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Settings(BaseModel):
    """A block of a settings file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(Settings):
    """A raw file (`file` in a mirror folder, then `url`), or one that the pipeline makes itself."""

    title: str
    source: str
    kind: Literal["file", "emt", "emt_forces"] = "file"
    format: Key = Field(default="mpjson", description="of the file: a module of data/sources")
    reader: dict[str, Any] = Field(default={}, description="settings of the format's `read`")
    labels: dict[Key, str] | None = Field(
        default=None, description="by label, its name in the file; default: those of the format"
    )
    columns: tuple[str, ...] = Field(default=(), description="text of the file that is kept")
    only: dict[str, str] = Field(
        default={}, description="by name of such text, what it must say; other entries are rejected"
    )
    join: Annotated[dict[Key, dict[Key, str]], Field(max_length=1)] = Field(
        default={}, description="of a dataset (a table), further labels by id, and their names"
    )
    file: str | None = None
    url: str | None = None
    sha256: Sha256 | None = None
    generator: dict[str, Any] = {}
    catalogue: bool = Field(
        default=False, description="declared only: no study uses it, and no stage makes it"
    )

    @property
    def suffix(self) -> str:
        """How the name of the raw file ends: json.gz, npz, ..."""
        if self.file:
            return self.file.rpartition("/")[2].partition(".")[2]
        return {"mpjson": "json.gz"}.get(self.format, f"{self.format}.gz")


class Benchmark(Settings):
    """Official folds and published predictions of one target, for the entries of one dataset."""

    dataset: Name
    target: Name
    source: str
    file: str | None = None
    url: str | None = None
    sha256: Sha256
    suffix: ClassVar[str] = "csv.gz"


class Validation(Settings):
    """What makes an entry acceptable, beside its labels."""

    min_distance: Positive = Field(description="Angstrom; atoms closer than this are rejected")
    symprec: Positive = Field(description="Angstrom; spglib's tolerance for the space group")


class Target(Settings):
    """What is predicted: a label, its transform, its unit and the range that is accepted."""

    title: str
    label: Key
    kind: Literal["regression", "classification"] = "regression"
    transform: Literal["none", "log10"] = "none"
    unit: Annotated[str, Field(min_length=1)]
    range: tuple[float, float] = Field(description="of the label, before the transform, inclusive")
    above: float | None = Field(
        default=None, description="systems whose label is not above this do not have the target"
    )
    classes: Count = 1
    size: Count | None = Field(
        default=None,
        description="numbers of a system, or of each atom, if it is not one. Only those of a"
        " gradient turn with the system",
    )
    level: Literal["atom"] | None = Field(
        default=None, description="atom: each atom has a label; without it, the system has one"
    )
    gradient_of: Name | None = Field(
        default=None,
        description="a target: this one is its negative gradient with respect to the positions of"
        " the atoms, as forces are of an energy; its unit is then that of the other per Angstrom",
    )
    extensive: Literal[True] | None = Field(
        default=None,
        description="grows with the number of atoms: what a network learns is the difference from"
        " so many times the mean of an atom",
    )

    @property
    def outputs(self) -> int:
        """Numbers of a network's output for it; a gradient needs none of its own."""
        if self.gradient_of:
            return 0
        return self.classes if self.kind == "classification" else self.size or 1

    @property
    def wide(self) -> bool:
        """Whether a system has not one label of it: one of each atom, or a row of numbers."""
        return self.level == "atom" or (self.size or 1) > 1

    @property
    def metric(self) -> str:
        """The name of its metric."""
        return "accuracy" if self.kind == "classification" else "MAE"


class Split(Settings):
    """Train : validation : test as a ratio of whole numbers, drawn in an order keyed by `seed`.

    With `repeats`, fold r is drawn in an order of its own, and a size cuts training and validation
    only: for learning curves that are tested on the same systems at every size.
    """

    title: str
    ratio: tuple[Count, Count, Count]
    seed: Annotated[int, Field(strict=True)]
    kind: Literal["random", "group", "given"] = Field(
        default="random",
        description="given: the parts are those of `columns`; without `val` there, it is drawn from"
        " `train` as `ratio` has them",
    )
    group: str | None = Field(
        default=None,
        description="whole groups go to one part: `formula` (reduced), `system` (the elements), or"
        " a column of the dataset",
    )
    block: Count | None = Field(
        default=None, description="of each group, so many systems in the order of ids are a group"
    )
    columns: tuple[str, ...] = Field(
        default=(), description="of given splits, one a fold: train, val, test, or nothing"
    )
    repeats: Count | None = None
    targets: Annotated[tuple[Name, ...], Field(min_length=1)] | None = Field(
        default=None, description="default: all targets"
    )
    without: Name | None = Field(
        default=None, description="a target: the systems that have its label are left out"
    )
    by: Name | None = Field(
        default=None,
        description="a target: its systems are dealt out, and another target has of every part"
        " those with its label; so what one target is tested on no other is trained on",
    )

    @property
    def folds(self) -> int:
        """How many there are, named 0, 1, ..."""
        return len(self.columns) or self.repeats or 1


class Features(Settings):
    """Which systems of a dataset get a representation: all, or the first N labelled per target.

    With `calibration`, also the whole validation part of the split, for the intervals.
    """

    split: Name | None = Field(default=None, description="None: all systems")
    sizes: dict[Key, Count | Literal["all"]] = {}
    calibration: bool = False


class Restart(Settings):
    """A second training, from the weights of the first."""

    epochs: Count
    lr: Positive
    network: dict[str, Any] = Field(
        default={}, description="of the network's settings, those that are now others: `dropout`"
    )


class Training(Settings):
    """How a network is trained; see `crystalmesh.learn.train`."""

    optimizer: Literal["adam", "adamw", "muon", "sgd"]
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True)] = Field(
        default=0.0, description="of sgd"
    )
    weight_decay: Annotated[float, Field(ge=0, strict=True)] = 0.0
    schedule: Literal["constant", "step", "one_cycle"] = "constant"
    milestones: tuple[Count, ...] = ()
    batch_size: Count
    epochs: Count
    patience: Count | None = Field(
        default=None, description="epochs without a better validation metric; None: all epochs"
    )
    loss: Literal["l1", "mse"] = Field(description="regression; classes use the cross entropy")
    standardise: bool | Literal["tanh"] = Field(
        description="targets to mean 0 and deviation 1, or tanh of half of that"
    )
    ema: Share | None = Field(
        default=None,
        description="decay a step of the running mean of the weights, which is what is published",
    )
    restart: Restart | None = Field(
        default=None,
        description="once more, from the weights that the last epoch (without `refit` the best"
        " one) left (warm restart: Loshchilov and Hutter, ICLR 2017)",
    )


class Model(Settings):
    """A model: the file in models/ it stands in, what it reads, its sizes, its default training."""

    title: str
    architecture: Name
    representation: Name = Field(description="what it reads, where a run does not say otherwise")
    network: dict[str, Any]
    training: Training | None = Field(
        default=None, description="without it, it is fitted in one step: see models/classical"
    )
    checkpoint: Literal["float32", "float16"] = Field(
        default="float32", description="precision of the weight matrices that are published"
    )
    atoms: bool = Field(
        default=False,
        exclude=True,
        description="its network gives numbers of each atom, too: it has `with_atoms`. Changes no"
        " bits, and is no part of digests and checkpoints",
    )
    variant_of: Name | None = Field(
        default=None,
        description="the model that it is with one thing changed: reports have it in their table"
        " of ablations, and not among the models",
    )


class Classical(Settings):
    """A model on descriptors of the structure, fitted on a fold's training systems."""

    share: Share = Field(description="in the soft label, the networks having the rest")
    network: dict[str, Any] = Field(description="as that of a model in models/classical")
    representation: Name


class Distillation(Settings):
    """A network learns what the networks of another run say of systems without a label."""

    run: Reference = Field(description="the teachers: each fold is taught by its own")
    max_atoms: Count = Field(
        description="atoms of an unlabelled cell: larger cells cost more than their information"
        " is worth"
    )
    batch_size: Count = Field(description="unlabelled systems beside each batch of labelled ones")
    weight: Positive = Field(description="of their loss, where that of labelled ones has 1")
    classical: Classical | None = Field(
        default=None, description="another teacher beside the networks, whose errors are others"
    )


class Run(Settings):
    """Trainings of one model and their test: one, or one for each fold and member of an ensemble.

    The systems are those that have the first target; of the others, labels may be missing.
    """

    study: Key
    name: Key
    dataset: Name
    targets: Annotated[tuple[Name, ...], Field(min_length=1)]
    split: Name
    fold: Annotated[int, Field(ge=0, strict=True)] | Literal["all"] = 0
    size: Count | Literal["all"] = "all"
    seed: Seed = 0
    members: Annotated[int, Field(gt=1, strict=True)] | None = Field(
        default=None, description="networks of a deep ensemble, from seeds `seed`, `seed` + 1, ..."
    )
    model: Name
    representation: Name
    refit: Literal[True] | None = Field(
        default=None,
        description="train on the validation systems too, and keep the last epoch: for settings"
        " that were chosen without it. The folds then calibrate each other's intervals",
    )
    start: Reference | None = Field(
        default=None, description="the run from whose weights training starts"
    )
    distillation: Distillation | None = None
    training: dict[str, Any] = Field(default={}, description="overrides of the model's training")
    weights: dict[Name, Positive] | None = Field(
        default=None, description="by target, of its loss; 1 where nothing is said"
    )
    precision: Literal["double"] | None = Field(
        default=None,
        description="of predictions, by default single: in double, and rounded as they are"
        " published, they depend neither on the batch nor on the numerics tier",
    )

    @property
    def reference(self) -> str:
        """How other runs name it: study/name."""
        return f"{self.study}/{self.name}"

    @property
    def target(self) -> str:
        """The first target: it is validated, and its systems are the run's."""
        return self.targets[0]

    @property
    def several(self) -> bool:
        """Whether it has more networks than one: one a fold, one a member of an ensemble."""
        return self.fold == "all" or self.members is not None

    @property
    def trained(self) -> tuple[str, str, str | int, str | int]:
        """Dataset, split, fold and size: runs that share these saw the same systems."""
        return self.dataset, self.split, self.fold, self.size

    @property
    def before(self) -> str | None:
        """The run whose networks it starts from or is taught by."""
        return self.distillation.run if self.distillation else self.start


class Stability(Settings):
    """Which displacements are tried on how many systems; see `crystalmesh.report.stability`."""

    representations: Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        description="meshes to compare"
    )
    systems: Count
    displacements: tuple[Positive, ...] = Field(description="Angstrom, of every atom")


class Ensemble(Settings):
    """Networks of several runs as one ensemble: of each run so many, the first ones."""

    title: str
    runs: Annotated[dict[Name, Count], Field(min_length=2)]


class Site(Settings):
    """What the result site of a study shows beside its runs."""

    systems: tuple[Name, ...] = Field(description="ids of those whose meshes can be looked at")
    networks: tuple[Reference, Reference] = Field(
        description="on the published and on the canonical mesh: they colour the faces"
    )


class Report(Settings):
    """What a study's report shows beside the tables and figures of its runs."""

    also: tuple[str, ...] = Field(
        default=(), description="runs of other studies that it shows too, as patterns: mesh/*"
    )
    features: tuple[Name, ...] = Field(
        default=(), description="representations whose features its tables and figures read"
    )
    mesh_picture: Name | None = Field(
        default=None, description="id of the system whose mesh the report draws"
    )
    stability: Stability | None = None
    embeddings: tuple[Name, ...] = Field(
        default=(), description="runs whose vectors of systems the report draws"
    )
    ensembles: tuple[Ensemble, ...] = ()
    site: Site | None = None


class Study(Settings):
    """One published system or one question: its runs, and its report, if it has one."""

    title: str
    dataset: Name
    numerics: Tier = "portable"
    runs: dict[Key, Run]
    report: Report | None = None
    serves: tuple[str, ...] = Field(
        default=(),
        description="runs whose networks `crystalmesh predict` offers, as target: study/run",
    )
