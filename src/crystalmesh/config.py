"""params.yaml as typed, validated objects, and the folders of the project."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import canonical_json, write_bytes
from crystalmesh.numerics import Tier

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
# Keys of params.yaml: no dot, which parts them in the names of settings files and DVC parameters.
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SHARED = ("dataset", "fold", "refit")  # what an experiment and those that use its networks agree in
READ = (  # settings of networks: what they let it read, and the representations that tell it
    ("truss", "the truss", "complex.truss", "complex.described"),
    ("described", "descriptors", "complex.described"),
    ("process", "descriptors", "complex.described"),
)
TELLS_TOO = {"complex.described": "complex.truss"}  # a representation that has all of another
TELLING = {  # representations that tell the space group, and what to use for it
    "descriptors.structure": "descriptors.composition",
    "truss.descriptors": "descriptors.composition",
    "complex.described": "complex.truss",
}
PREDICTORS = "predictors"  # the group of experiments whose networks `crystalmesh predict` uses


class Settings(BaseModel):
    """A block of params.yaml: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(Settings):
    """A raw file (`file` in a mirror, then `url`), or one the pipeline makes itself."""

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
    join: dict[Key, dict[Key, str]] = Field(
        default={}, description="by dataset (a table), further labels by id, and their names there"
    )
    file: str | None = None
    url: str | None = None
    sha256: Sha256 | None = None
    generator: dict[str, Any] = {}


class Benchmark(Settings):
    """Official folds and published predictions of one task, for the entries of one dataset."""

    dataset: Name
    task: Name
    source: str
    file: str | None = None
    url: str | None = None
    sha256: Sha256


class Validation(Settings):
    """What makes an entry acceptable, beside its labels."""

    min_distance: Positive = Field(description="Angstrom; atoms closer than this are rejected")
    symprec: Positive = Field(description="Angstrom; spglib's tolerance for the space group")


class Task(Settings):
    """What is predicted: a label, its transform, its unit and the range that is accepted."""

    title: str
    label: Key
    kind: Literal["regression", "classification"] = "regression"
    transform: Literal["none", "log10"] = "none"
    unit: str
    range: tuple[float, float] = Field(description="of the label, before the transform, inclusive")
    above: float | None = Field(
        default=None, description="crystals whose label is not above this are not of the task"
    )
    classes: int = 1
    size: Count | None = Field(
        default=None, description="numbers of a system, or of each atom, if it is not one"
    )

    @property
    def outputs(self) -> int:
        """Numbers a network predicts for one crystal."""
        return self.classes if self.kind == "classification" else 1


class Split(Settings):
    """Train : validation : test as a ratio of whole numbers, drawn in an order keyed by `seed`.

    With `repeats`, fold r is drawn in an order of its own, and a size cuts training and validation
    only: for learning curves that are tested on the same crystals at every size.
    """

    dataset: Name
    split: Name
    title: str
    ratio: tuple[Count, Count, Count]
    seed: int
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
    tasks: tuple[Name, ...] | None = Field(default=None, description="default: all tasks")
    without: Name | None = Field(
        default=None, description="a task: the crystals that have its label are left out"
    )
    by: Name | None = Field(
        default=None,
        description="a task: its crystals are dealt out, and another task has of every part those"
        " with its label; so what one task is tested on no other is trained on",
    )


class Features(Settings):
    """Which crystals of a dataset get a representation: all, or the first N labelled per task.

    With `calibration`, also the whole validation part of the split, for the intervals.
    """

    dataset: Name
    representation: Name
    split: Name
    sizes: Literal["all"] | dict[Key, Literal["all"] | Count]
    calibration: bool = False


class Restart(Settings):
    """A second training, from the weights of the first.

    As an experiment with `pretrained` does it, for one network: this is also for those of several
    folds, and for taught ones, whose `pretrained` are their teachers.
    """

    epochs: Count
    lr: Positive
    network: dict[str, Any] = Field(
        default={}, description="of the network's settings, those that are now others: `dropout`"
    )


class Training(Settings):
    """How a network is trained; see `crystalmesh.learn.train`."""

    optimizer: Literal["adam", "adamw", "muon", "sgd"]
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="of sgd")
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "step", "one_cycle"] = "constant"
    milestones: tuple[Count, ...] = ()
    batch_size: Count
    epochs: Count
    patience: Count
    loss: Literal["l1", "mse"] = Field(description="regression; classes use the cross entropy")
    standardise: bool | Literal["tanh"] = Field(
        description="targets to mean 0 and deviation 1, or tanh of half of that"
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="decay a step of the running mean of the weights, which is what is published",
    )
    restart: Restart | None = Field(
        default=None,
        description="once more, from the weights that the last epoch (without `refit` the best"
        " one) left (warm restart: Loshchilov and Hutter, ICLR 2017)",
    )


class Model(Settings):
    """A network: the file in models/ it stands in, its own settings, its default training."""

    title: str
    architecture: Name
    network: dict[str, Any]
    training: Training | None = Field(
        default=None, description="without it, it is fitted in one step: see models/classical"
    )
    checkpoint: Literal["float32", "float16"] = Field(
        default="float32", description="precision of the weight matrices that are published"
    )
    variant_of: Name | None = Field(
        default=None,
        description="the model that it is with one thing changed: the report has it in its table"
        " of ablations, and not among the models",
    )


class Source(Settings):
    """An experiment by group and name."""

    group: Name
    name: Name


class Classical(Settings):
    """A model on descriptors of the structure, fitted on a fold's training crystals."""

    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="in what is taught, the networks having the rest"
    )
    network: dict[str, Any] = Field(description="as that of a model in models/classical")
    structure: dict[str, Any] | None = Field(
        default=None, description="as `representations.descriptors.structure`"
    )
    truss: dict[str, Any] | None = Field(
        default=None, description="instead, as `representations.truss.descriptors`"
    )


class Taught(Settings):
    """How the networks of another experiment teach one: on crystals that nobody has labelled."""

    atoms: Count = Field(description="of the largest cell; larger crystals cost more than they say")
    batch_size: Count = Field(description="of these crystals, beside each batch of labelled ones")
    weight: Positive = Field(description="of their loss, where that of labelled ones has 1")
    substituted: Count | None = Field(
        default=None,
        description="crystals made of each training crystal by similar elements, beside them",
    )
    classical: Classical | None = Field(
        default=None, description="another teacher beside the networks, whose errors are others"
    )


class Experiment(Settings):
    """Training runs and their test: what on what, from which seeds.

    One run, or one for each fold of the split and each member of an ensemble.
    """

    dataset: Name
    task: Name
    split: Name
    fold: Annotated[int, Field(ge=0)] | Literal["all"] = 0
    size: Literal["all", "full"] | Count = "all"
    seed: int = 0
    members: Annotated[int, Field(gt=1)] | None = Field(
        default=None, description="networks of a deep ensemble, from seeds `seed`, `seed` + 1, ..."
    )
    representation: Name
    model: Name
    beside: Annotated[tuple[Name, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="tasks learned by further outputs of the same network, where labels are known;"
        " only `task` is validated, predicted and tested",
    )
    refit: Literal[True] | None = Field(
        default=None,
        description="train on the validation crystals too, and keep the last epoch: for settings"
        " that were chosen without it. The folds then calibrate each other's intervals",
    )
    pretrained: Source | None = Field(
        default=None, description="whose weights training starts from"
    )
    as_is: Literal[True] | None = Field(
        default=None,
        description="train nothing: the networks are those of `pretrained`, read at their output"
        " for `task`, which they learned beside their own",
    )
    taught: Taught | None = Field(
        default=None,
        description="start anew, and learn also what the networks of `pretrained` say on the mean"
        " of crystals without a label of `task`: each fold from those of its own training crystals",
    )
    training: dict[str, Any] = Field(default={}, description="overrides of the model's training")
    precision: Literal["double"] | None = Field(
        default=None,
        description="of predictions, by default single: in double, and rounded as they are"
        " published, they depend neither on the batch nor on the numerics tier",
    )

    @property
    def several(self) -> bool:
        """Whether it has more networks than one: one a fold, one a member of an ensemble."""
        return self.fold == "all" or self.members is not None

    @property
    def trained(self) -> tuple[str, str, str | int, str | int]:
        """Dataset, split, fold and size: experiments that share these saw the same crystals."""
        return self.dataset, self.split, self.fold, self.size

    @property
    def transferred(self) -> bool:
        """Whether its training starts from what another has learned."""
        return self.pretrained is not None and not (self.as_is or self.taught)

    @property
    def learned(self) -> tuple[str, ...]:
        """The tasks of its network's outputs."""
        return (self.task, *(self.beside or ()))


class Stability(Settings):
    """Which displacements are tried on how many crystals; see `crystalmesh.report.stability`."""

    crystals: Count
    displacements: tuple[Positive, ...] = Field(description="Angstrom, of every atom")


class Together(Settings):
    """Networks of several experiments as one ensemble."""

    title: str
    experiments: dict[Name, Annotated[dict[Name, Count], Field(min_length=2)]] = Field(
        description="by task, those whose networks are averaged, and how many of each: the first"
    )


class Report(Settings):
    """A set of experiments with one document: results/<report>/."""

    title: str
    dataset: Name
    numerics: Tier
    mesh_picture: str = Field(
        description="id of the crystal whose mesh the report draws; the first, where it has none"
    )
    stability: Stability
    maps: tuple[Name, ...] = Field(
        default=(), description="experiments whose crystal vectors the report draws"
    )
    together: tuple[Together, ...] = Field(
        default=(), description="ensembles that the table of Matbench has besides"
    )


class Site(Settings):
    """What the result site of a report shows beside its experiments."""

    dataset: Name
    crystals: tuple[Name, ...] = Field(description="ids of those whose meshes can be looked at")
    networks: tuple[Source, Source] = Field(
        description="on the published and on the canonical mesh: they colour the faces"
    )


class Params(Settings):
    """The whole of params.yaml."""

    datasets: dict[Key, Dataset]
    catalogue: dict[Key, Dataset]
    benchmarks: dict[Key, Benchmark]
    validation: Validation
    tasks: dict[Key, Task]
    splits: dict[Key, Split]
    representations: dict[Key, dict[Key, dict[str, Any]]]
    features: dict[Key, Features]
    models: dict[Key, Model]
    reports: dict[Key, Report]
    experiments: dict[Key, dict[Key, Experiment]]
    transfer: dict[Key, dict[Key, Experiment]] = Field(
        default={}, description="those that start from the weights of another: `pretrained`"
    )
    site: dict[Key, Site] = Field(default={}, description="by report")

    def group(self, name: str) -> dict[str, Experiment]:
        """All experiments of a report (or of the group `full`), by name."""
        return lookup(self.experiments, name, "report") | self.transfer.get(name, {})

    def datasets_of(self, report: str) -> list[str]:
        """The dataset of a report, and after it those that single experiments of it are on.

        Of a group without a report those of its experiments.
        """
        names = [self.reports[report].dataset] if report in self.reports else []
        return list(dict.fromkeys(names + [e.dataset for e in self.group(report).values()]))

    def experiment(self, group: str, name: str) -> Experiment:
        """One of the experiments of a group."""
        return lookup(self.group(group), name, "experiment")

    def block(self, group: str, name: str) -> str:
        """The dotted key of an experiment."""
        first = "experiments" if name in self.experiments[group] else "transfer"
        return f"{first}.{group}.{name}"

    def training(self, experiment: Experiment) -> Training:
        """The model's training settings with the experiment's overrides.

        Raises:
            ValidationError: the overrides do not fit.
            CrystalmeshError: the model is not trained by gradients.
        """
        base = self.models[experiment.model].training
        if base is None:
            raise CrystalmeshError(
                f"params.yaml: models.{experiment.model} has no `training`, so it takes no override"
            )
        return Training.model_validate(base.model_dump() | experiment.training)

    def outputs(self, experiment: Experiment) -> int:
        """Numbers that the experiment's network gives for one crystal."""
        return self.tasks[experiment.task].outputs + len(experiment.beside or ())

    def settings(self, experiment: Experiment) -> dict[str, Any]:
        """All that an experiment's checkpoint depends on; each checkpoint says it."""
        model = self.models[experiment.model]
        settings: dict[str, Any] = {
            "experiment": experiment.model_dump(mode="json", exclude_none=True),
            "model": model.model_dump(mode="json", exclude_none=True),
            "task": self.tasks[experiment.task].model_dump(mode="json", exclude_none=True),
            "representation": self.representation(experiment.representation),
        }
        if model.training is not None:
            training = self.training(experiment)
            settings["training"] = training.model_dump(mode="json", exclude_none=True)
        if experiment.beside:
            settings["beside"] = [
                self.tasks[name].model_dump(mode="json", exclude_none=True)
                for name in experiment.beside
            ]
        return settings

    def numerics(self, group: str) -> Tier:
        """The numerics tier of a report; groups without a document use the portable one."""
        return self.reports[group].numerics if group in self.reports else "portable"

    def representation(self, name: str) -> dict[str, Any]:
        """Settings of a representation, named module.variant (`mesh.published`)."""
        module, _, variant = name.partition(".")
        return lookup(lookup(self.representations, module, "representation"), variant, "variant")


def lookup(table: dict[str, T], name: str, what: str) -> T:
    """`table[name]`, or an error that names the nearest known name."""
    if name not in table:
        raise CrystalmeshError(f"params.yaml: no {what} '{name}'; {_nearest(name, list(table))}")
    return table[name]


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else "known: " + ", ".join(sorted(known))


@dataclass(frozen=True)
class Project:
    """The folder that holds params.yaml, what it says, and where each stage reads and writes."""

    root: Path
    params: Params
    tree: dict[str, Any]

    @property
    def data(self) -> Path:
        return self.root / "data"

    def results(self, report: str) -> Path:
        return self.root / "results" / report

    def raw(self, name: str) -> Path:
        suffix = "csv.gz" if name in self.params.benchmarks else "json.gz"
        return self.data / "raw" / f"{name}.{suffix}"

    def crystals(self, dataset: str) -> Path:
        return self.data / "crystals" / dataset

    def split(self, dataset: str, split: str) -> Path:
        return self.data / "splits" / dataset / f"{split}.json"

    def features(self, dataset: str, representation: str) -> Path:
        return self.data / "features" / dataset / representation

    def checkpoint(self, report: str, experiment: str) -> Path:
        return self.results(report) / "checkpoints" / f"{experiment}.safetensors"

    def history(self, report: str, experiment: str) -> Path:
        return self.results(report) / "history" / f"{experiment}.csv"

    def card(self, report: str, experiment: str) -> Path:
        return self.results(report) / "cards" / f"{experiment}.json"

    def predictions(self, report: str, experiment: str) -> Path:
        return self.results(report) / "predictions" / f"{experiment}.csv"

    def calibration(self, group: str, experiment: str) -> Path:
        return self.results(group) / "calibration" / f"{experiment}.safetensors"

    def metrics(self, report: str, experiment: str) -> Path:
        return self.results(report) / "metrics" / f"{experiment}.json"

    @property
    def scratch(self) -> Path:
        """What an interrupted stage continues from; never an input of another stage."""
        return self.root / ".crystalmesh"

    def setting(self, key: str) -> Path:
        """The file that holds the value at `key` of params.yaml: see `stamp`."""
        return self.scratch / "settings" / f"{key}.json"

    def value(self, key: str) -> Any:
        """The value at a dotted key of params.yaml."""
        value: Any = self.tree
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise CrystalmeshError(f"params.yaml: no setting '{key}'")
            value = value[part]
        return value

    def stamp(self, key: str) -> Path:
        """Write the value at `key` to its settings file if it changed, and return that file.

        Snakemake decides by file times: a settings file is younger than an output exactly when
        that output was made with other settings, whichever engine made it.
        """
        path, text = self.setting(key), canonical_json(self.value(key)).encode()
        if not path.exists() or path.read_bytes() != text:
            write_bytes(path, text)
        return path

    def restamp(self) -> None:
        """Bring every settings file up to date; each stage does so before it writes anything.

        Also those that Snakemake has not asked for yet: an output must be younger than its
        settings whichever engine makes it first.
        """
        keys = set(_keys(self.tree))
        for key in sorted(keys):
            self.stamp(key)
        for path in sorted((self.scratch / "settings").glob("*.json")):
            if path.name.removesuffix(".json") not in keys:
                path.unlink(missing_ok=True)


def _keys(tree: dict[str, Any], above: str = "", depth: int = 3) -> Iterator[str]:
    """Every dotted key of params.yaml that a stage may depend on (experiments are the deepest)."""
    for name, value in tree.items():
        yield f"{above}{name}"
        if isinstance(value, dict) and depth > 1:
            yield from _keys(value, f"{above}{name}.", depth - 1)


def _read(text: str) -> Any:
    """The content of params.yaml; a key that stands twice would silently replace the first."""
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    todo, seen = [node], set()
    while todo:
        one = todo.pop()
        if id(one) in seen:  # an alias
            continue
        seen.add(id(one))
        if isinstance(one, yaml.SequenceNode):
            todo += one.value
        elif isinstance(one, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in one.value:
                line = key.start_mark.line + 1
                first = lines.setdefault(str(key.value), line)
                if first != line:
                    raise CrystalmeshError(
                        f"params.yaml: '{key.value}' stands twice in one block, in lines {first}"
                        f" and {line}; merge them"
                    )
                todo.append(value)
    return None if node is None else loader.construct_document(node)


def load(root: Path) -> Project:
    """Read and check root/params.yaml; raises CrystalmeshError with one line for all it rejects."""
    path = root / "params.yaml"
    try:
        tree = _read(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{path}: missing; run inside the project's folder") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise CrystalmeshError(f"params.yaml: not valid YAML: {text}") from error
    try:
        params = Params.model_validate(tree)
        _check(params)
    except ValidationError as error:
        raise CrystalmeshError(_explain(error)) from error
    return Project(root, params, json.loads(json.dumps(tree)))


def find(start: Path | None = None) -> Project:
    """Load the project at or above `start` (default: the current folder)."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").exists():
            return load(folder)
    raise CrystalmeshError(f"{here}: no params.yaml here or above; run inside the project's folder")


def locate() -> Project:
    """The project at or above the current folder, else the one that this package lies in."""
    try:
        return find()
    except CrystalmeshError:
        source = Path(__file__).resolve().parents[2]
        if not (source / "params.yaml").exists():
            raise
        return load(source)


def parse(block: type[S], settings: Mapping[str, Any], where: str) -> S:
    """The settings at `where` of params.yaml, which only the code that uses them knows to check.

    Raises:
        CrystalmeshError: a setting is unknown, missing or of the wrong kind.
    """
    try:
        return block.model_validate(settings)
    except ValidationError as error:
        raise CrystalmeshError(_explain(error, (where,), list(block.model_fields))) from error


def _explain(
    error: ValidationError, place: tuple[str, ...] = (), fields: Sequence[str] = ()
) -> str:
    """One complaint of pydantic as one line: where, what, and the nearest known key.

    A misspelt key is missing and unknown at once: the unknown one says more.
    """
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in (*place, *first["loc"]))
    more = len(error.errors()) - 1
    tail = f" (and {more} more)" if more else ""
    if first["type"] == "extra_forbidden":
        known = fields or _known_keys(first["loc"][:-1])
        hint = _nearest(str(first["loc"][-1]), known) if known else "remove it"
        return f"params.yaml: {where}: unknown setting; {hint}{tail}"
    return f"params.yaml: {where}: {first['msg']}{tail}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the block at `location` may have."""
    block: Any = Params
    for part in location:
        if isinstance(block, type) and issubclass(block, BaseModel):
            field = block.model_fields.get(str(part))
            block = field.annotation if field else None
            if isinstance(block, UnionType):  # a block that may be left out
                block = block.__args__[0]
        else:
            block = getattr(block, "__args__", (None, None))[-1]
    if isinstance(block, type) and issubclass(block, BaseModel):
        return list(block.model_fields)
    return []


def _check(params: Params) -> None:
    """Every name a block refers to must exist, and overrides must be settings of training."""
    for key, benchmark in params.benchmarks.items():
        if benchmark.dataset not in params.datasets or benchmark.task not in params.tasks:
            raise CrystalmeshError(f"params.yaml: benchmarks.{key}: unknown dataset or task")
    for key, split in params.splits.items():
        lookup(params.datasets, split.dataset, f"dataset (splits.{key})")
        for task in split.tasks or ():
            lookup(params.tasks, task, f"task (splits.{key})")
        for name, one in (("without", split.without), ("by", split.by)):
            if one:
                lookup(params.tasks, one, f"task (splits.{key}.{name})")
    for key, features in params.features.items():
        lookup(params.datasets, features.dataset, f"dataset (features.{key})")
        params.representation(features.representation)
    for name, report in params.reports.items():
        lookup(params.datasets, report.dataset, f"dataset (reports.{name})")
        lookup(params.experiments, name, f"group of experiments (reports.{name})")
        for one in report.maps:
            lookup(params.group(name), one, f"experiment (reports.{name}.maps)")
        for k, ensemble in enumerate(report.together):
            where = f"reports.{name}.together.{k}.experiments"
            if len({sum(members.values()) for members in ensemble.experiments.values()}) > 1:
                raise CrystalmeshError(
                    f"params.yaml: {where}: not as many networks for each task; give `together` a"
                    " line for each number"
                )
            for task, members in ensemble.experiments.items():
                for one, wanted in members.items():
                    experiment = lookup(params.group(name), one, f"experiment ({where})")
                    if wanted > (experiment.members or 1):
                        raise CrystalmeshError(
                            f"params.yaml: {where}.{task}.{one}: {wanted} networks, and the"
                            f" experiment has {experiment.members or 1}"
                        )
                    if lookup(params.models, experiment.model, f"model ({where})").variant_of:
                        raise CrystalmeshError(
                            f"params.yaml: {where}.{task}: the model of {one} is a variant, which"
                            " the table of Matbench has not; take it out"
                        )
                    if (experiment.task, experiment.fold) != (task, "all"):
                        raise CrystalmeshError(
                            f"params.yaml: {where}.{task}: {one} is not of this task over all folds"
                        )
    for name, site in params.site.items():
        lookup(params.reports, name, f"report (site.{name})")
        lookup(params.datasets, site.dataset, f"dataset (site.{name})")
        for source in site.networks:
            params.experiment(source.group, source.name)
    for key, model in params.models.items():
        if model.variant_of:
            lookup(params.models, model.variant_of, f"model (models.{key}.variant_of)")
    for group in params.transfer:
        lookup(params.experiments, group, f"group of experiments (transfer.{group})")
    for group in params.experiments:
        for name, experiment in params.group(group).items():
            where = params.block(group, name)
            if where.startswith("transfer.") != (experiment.pretrained is not None):
                raise CrystalmeshError(
                    f"params.yaml: {where}: experiments with `pretrained`, and only these, belong"
                    f" under transfer.{group}"
                )
            _check_experiment(params, where, experiment)


def _check_same(where: str, own: Experiment, first: Experiment, keys: Sequence[str]) -> None:
    """Two experiments of which one uses the networks of the other must agree in these keys."""
    for key in keys:
        if getattr(own, key) != getattr(first, key):
            raise CrystalmeshError(
                f"params.yaml: {where}.{key}: not as in the experiment whose networks it uses;"
                " make both the same"
            )


def _check_taught(where: str, experiment: Experiment, taught: Taught) -> None:
    if taught.substituted and experiment.representation not in (
        "complex.orbits",
        "complex.whole",
        "complex.nearest",
    ):
        raise CrystalmeshError(
            f"{where}.substituted: needs complex.orbits, whole or nearest, all of which is known"
            " once elements are exchanged"
        )
    if other := taught.classical:
        if taught.substituted:
            raise CrystalmeshError(
                f"{where}.classical: substituted crystals have no structure to describe; leave out"
                " one of both"
            )
        if bool(other.structure) == bool(other.truss):
            raise CrystalmeshError(
                f"{where}.classical: needs either structure or truss, the settings of what it"
                " is fitted on"
            )


def _told_too(params: Params, one: str, other: str) -> bool:
    """Whether a representation has all of one, made with the same settings."""
    return TELLS_TOO.get(other) == one and params.representation(one) == params.representation(
        other
    )


def _check_as_is(params: Params, where: str, own: Experiment, first: Experiment) -> None:
    """The networks of `first` must be all that the experiment needs, and know its task."""
    _check_same(where, own, first, (*SHARED, "members", "seed", "model"))
    if sorted(own.learned) != sorted(first.learned):
        raise CrystalmeshError(
            f"params.yaml: {where}.beside: with `as_is`, `task` and `beside` together must be the"
            f" tasks of the other experiment: {', '.join(first.learned)}"
        )
    if params.tasks[first.task].kind == "classification":
        raise CrystalmeshError(f"params.yaml: {where}.as_is: networks of classes are not shared")


def _check_experiment(params: Params, where: str, experiment: Experiment) -> None:
    lookup(params.datasets, experiment.dataset, f"dataset ({where})")
    lookup(params.tasks, experiment.task, f"task ({where})")
    lookup(params.models, experiment.model, f"model ({where})")
    for name in experiment.beside or ():
        task = lookup(params.tasks, name, f"task ({where}.beside)")
        if task.kind == "classification" or name == experiment.task:
            raise CrystalmeshError(
                f"params.yaml: {where}.beside: '{name}' must be another task, and no classes"
            )
        if params.models[experiment.model].training is None:
            raise CrystalmeshError(
                f"params.yaml: {where}.beside: models.{experiment.model} learns one task only"
            )
    params.representation(experiment.representation)
    splits = {(s.dataset, s.split) for s in params.splits.values()}
    folds = {(b.dataset, name) for name, b in params.benchmarks.items()}
    if (experiment.dataset, experiment.split) not in splits | folds:
        raise CrystalmeshError(
            f"params.yaml: {where}.split: {experiment.dataset} has no split '{experiment.split}'"
        )
    if experiment.refit and (
        experiment.fold != "all" or params.models[experiment.model].training is None
    ):
        raise CrystalmeshError(
            f"params.yaml: {where}.refit: needs a network trained by epochs, and `fold: all`"
        )
    network = params.models[experiment.model].network
    for key, what, *needed in READ:
        if network.get(key) and experiment.representation not in needed:
            raise CrystalmeshError(
                f"params.yaml: {where}.representation: models.{experiment.model} reads {what}; use"
                f" {needed[0]}"
            )
    if network.get("process") and params.tasks[experiment.task].kind == "classification":
        raise CrystalmeshError(
            f"params.yaml: {where}.model: the process of models.{experiment.model} knows no classes"
        )
    for key in ("as_is", "taught"):
        if getattr(experiment, key) and experiment.pretrained is None:
            raise CrystalmeshError(f"params.yaml: {where}.{key}: needs `pretrained`")
    if experiment.as_is and experiment.taught:
        raise CrystalmeshError(f"params.yaml: {where}.taught: with `as_is` nothing is trained")
    if source := experiment.pretrained:
        first = params.experiment(source.group, source.name)
        one, other = (params.models[e.model] for e in (first, experiment))
        same = (one.architecture, one.network) == (other.architecture, other.network)
        # one that is taught starts anew: it may be another network, and read more
        alike = first.representation == experiment.representation or (
            experiment.taught and _told_too(params, first.representation, experiment.representation)
        )
        if not alike or not (same or experiment.taught):
            raise CrystalmeshError(
                f"params.yaml: {where}.pretrained: {source.name} is of another model or"
                " representation"
            )
        if experiment.as_is:
            _check_as_is(params, where, experiment, first)
        elif experiment.taught:
            _check_same(where, experiment, first, (*SHARED, "split", "size", "task", "beside"))
            if params.tasks[first.task].kind == "classification":
                raise CrystalmeshError(f"params.yaml: {where}.taught: not of classes")
            _check_taught(f"params.yaml: {where}.taught", experiment, experiment.taught)
        elif first.several:
            raise CrystalmeshError(
                f"params.yaml: {where}.pretrained: {source.name} has several networks; name an"
                " experiment with one"
            )
        elif first.as_is and network.get("process"):  # its processes are in another order
            raise CrystalmeshError(
                f"params.yaml: {where}.pretrained: {source.name} reads processes of another"
                " experiment; name that one"
            )
    instead = TELLING.get(experiment.representation)
    if experiment.task == "space_group" and instead:
        raise CrystalmeshError(
            f"params.yaml: {where}.representation: {experiment.representation} tell the space"
            f" group; use {instead}"
        )
    if params.models[experiment.model].training is None and not experiment.training:
        return
    unknown = [key for key in experiment.training if key not in Training.model_fields]
    if unknown:
        hint = _nearest(unknown[0], list(Training.model_fields))
        raise CrystalmeshError(
            f"params.yaml: {where}.training.{unknown[0]}: unknown setting; {hint}"
        )
    try:
        params.training(experiment)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise CrystalmeshError(
            f"params.yaml: {where}.training.{wrong['loc'][0]}: {wrong['msg']}"
        ) from error
