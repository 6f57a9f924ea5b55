"""The folder that holds the settings, what they say, and where each stage reads and writes."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from crystalmesh.config import read
from crystalmesh.config.read import Place, lookup, parse
from crystalmesh.config.schema import (
    Benchmark,
    Dataset,
    Features,
    Model,
    Run,
    Settings,
    Split,
    Study,
    Target,
    Training,
    Validation,
)
from crystalmesh.errors import CrystalmeshError
from crystalmesh.numerics import Tier


class Params(Settings):
    """All that config/ and studies/ say.

    `splits` and `features` are by dataset; `representations` by module and variant.
    """

    validation: Validation
    datasets: dict[str, Dataset]
    benchmarks: dict[str, Benchmark] = Field(default={})
    targets: dict[str, Target]
    splits: dict[str, dict[str, Split]]
    representations: dict[str, dict[str, dict[str, Any]]]
    features: dict[str, dict[str, Features]]
    models: dict[str, Model]
    studies: dict[str, Study] = Field(default={})

    def study(self, name: str) -> Study:
        """A study by name."""
        return lookup(self.studies, name, "study")

    def run(self, reference: str, where: str | None = None) -> Run:
        """A run by study/name; `where` says in messages what names it."""
        study, _, name = reference.partition("/")
        runs = lookup(self.studies, study, "study", where).runs
        return lookup(runs, name, f"run of study {study}", where)

    @property
    def raw(self) -> dict[str, Dataset | Benchmark]:
        """What has a raw file: datasets and benchmarks, but for what is declared only."""
        datasets = {name: one for name, one in self.datasets.items() if not one.catalogue}
        return {**datasets, **self.benchmarks}

    def targets_of(self, dataset: str) -> dict[str, Target]:
        """The targets of a dataset: those of its splits (one that names none has all) and folds.

        So a new target concerns only datasets that are to have it.
        """
        named = [split.targets or self.targets for split in self.splits.get(dataset, {}).values()]
        named += [(one.target,) for one in self.benchmarks.values() if one.dataset == dataset]
        kept = {name for names in named for name in names}
        return {name: one for name, one in self.targets.items() if name in kept or not named}

    def shown(self, study: str) -> list[Run]:
        """The runs that a study's report shows: its own, and those of other studies."""
        one = self.study(study)
        runs = list(one.runs.values())
        for pattern in one.report.also if one.report else ():
            found = [
                run
                for other in self.studies.values()
                for run in other.runs.values()
                if fnmatch.fnmatch(run.reference, pattern) and run not in runs
            ]
            if not found:
                raise CrystalmeshError(
                    f"studies/{study}/study.yaml: report.also: no run is '{pattern}'"
                )
            runs += found
        return runs

    def datasets_of(self, study: str) -> list[str]:
        """The dataset of a study, and after it those that single runs of it are on."""
        names = [self.study(study).dataset]
        return list(dict.fromkeys(names + [run.dataset for run in self.shown(study)]))

    def benchmarks_of(self, study: str) -> list[str]:
        """The benchmarks of the targets of a study that has a run on official folds of one."""
        runs = [run for run in self.shown(study) if run.fold == "all"]
        if not any(run.split in self.benchmarks for run in runs):
            return []
        targets = {target for run in runs for target in run.targets}
        return [name for name, one in self.benchmarks.items() if one.target in targets]

    def numerics(self, run: Run) -> Tier:
        """The numerics tier that a run is trained in."""
        return self.study(run.study).numerics

    def training(self, run: Run) -> Training:
        """The model's training settings with the run's overrides.

        Raises:
            CrystalmeshError: the overrides do not fit, or the model is not trained by gradients.
        """
        where = f"studies/{run.study}/study.yaml: {run.name}.training"
        base = self.models[run.model].training
        if base is None:
            raise CrystalmeshError(f"{where}: {run.model} is not trained by epochs; leave it out")
        return parse(Training, base.model_dump() | run.training, where)

    def outputs(self, run: Run) -> int:
        """Numbers that the run's network gives for one system, or for one atom."""
        return sum(self.targets[name].outputs for name in run.targets)

    def weights(self, run: Run) -> list[float] | None:
        """Weights of the targets of a run in its loss; None where all have the same."""
        given = run.weights
        return [given.get(name, 1.0) for name in run.targets] if given else None

    def settings(self, run: Run) -> dict[str, Any]:
        """All that a run's checkpoint depends on; each checkpoint says it."""
        model = self.models[run.model]
        settings: dict[str, Any] = {
            "run": dump(run),
            "model": dump(model) | {"title": ""},
            "targets": {name: dump(self.targets[name]) | {"title": ""} for name in run.targets},
            "representation": self.representation(run.representation),
        }
        for title in (settings["model"], *settings["targets"].values()):
            del title["title"]
        if model.training is not None:
            settings["training"] = dump(self.training(run))
        if run.distillation and (other := run.distillation.classical):
            settings["teacher"] = self.representation(other.representation)
        return settings

    def representation(self, name: str, where: str | None = None) -> dict[str, Any]:
        """Settings of a representation, named module.variant (`mesh.published`)."""
        module, _, variant = name.partition(".")
        variants = lookup(self.representations, module, "representation", where)
        return lookup(variants, variant, "variant", where)


def dump(block: BaseModel) -> dict[str, Any]:
    """A block as JSON values, without what is not given."""
    return block.model_dump(mode="json", exclude_none=True)


@dataclass(frozen=True)
class Project:
    """The folder that holds config/ and studies/, what they say, and where stages read and write.

    Attributes:
        root: the folder.
        params: config/ and studies/.
    """

    root: Path
    params: Params

    @property
    def data(self) -> Path:
        return self.root / "data"

    def results(self, study: str) -> Path:
        return self.root / "results" / study

    def raw(self, name: str) -> Path:
        one = lookup(self.params.raw, name, "dataset or benchmark")
        return self.data / "raw" / f"{name}.{one.suffix}"

    def raws(self, dataset: str) -> list[Path]:
        """The raw files that a dataset is made of: its own, and the table that it joins."""
        return [self.raw(name) for name in (dataset, *self.params.datasets[dataset].join)]

    def crystals(self, dataset: str) -> Path:
        return self.data / "crystals" / dataset

    def split(self, dataset: str, split: str) -> Path:
        return self.data / "splits" / dataset / f"{split}.json"

    def features(self, dataset: str, representation: str) -> Path:
        return self.data / "features" / dataset / representation

    def checkpoint(self, run: Run) -> Path:
        return self.results(run.study) / "checkpoints" / f"{run.name}.safetensors"

    def history(self, run: Run) -> Path:
        return self.results(run.study) / "history" / f"{run.name}.csv"

    def card(self, run: Run) -> Path:
        return self.results(run.study) / "cards" / f"{run.name}.json"

    def predictions(self, run: Run, target: str) -> Path:
        return self.results(run.study) / "predictions" / run.name / f"{target}.csv"

    def metrics(self, run: Run) -> Path:
        return self.results(run.study) / "metrics" / f"{run.name}.json"

    def benchmark(self, name: str) -> Path:
        """Published algorithms' errors on a benchmark."""
        return self.root / "results" / "benchmarks" / f"{name}.json"

    def calibration(self, run: Run, target: str) -> Path:
        folder = self.results(self.serving or run.study) / "calibration"
        return folder / run.study / f"{run.name}.{target}.safetensors"

    @property
    def scratch(self) -> Path:
        """What an interrupted stage continues from; never an input of another stage."""
        return self.root / ".crystalmesh"

    def relative(self, path: Path) -> str:
        """A path below the project, as plans and messages name it."""
        return path.relative_to(self.root).as_posix()

    @property
    def serving(self) -> str | None:
        """The study that says which networks `crystalmesh predict` offers."""
        return next((name for name, one in self.params.studies.items() if one.serves), None)

    def served(self) -> list[tuple[Run, str]]:
        """Each run whose network is offered, with its targets of one number or class a system."""
        study = self.params.studies[self.serving] if self.serving else None
        runs = [self.params.run(one) for one in study.serves] if study else []
        targets = self.params.targets
        return [(run, one) for run in runs for one in run.targets if not targets[one].wide]


def load(root: Path) -> Project:
    """Read and check config/ and the plans of the studies under `root`.

    Raises:
        CrystalmeshError: one line for what is wrong; a plan is older than its study.
    """
    from crystalmesh.config import check, plan  # both use what stands here

    project = Project(root, config(root))
    params = project.params.model_copy(update={"studies": plan.studies(project)})
    check.check(params)
    return Project(root, params)


def config(root: Path) -> Params:
    """What config/ says, without the studies.

    Raises:
        CrystalmeshError: one line for what is wrong.
    """
    tree, files = _settings(root)
    params = parse(Params, tree, "config", files)
    for name, model in params.models.items():
        where = read.at("config", ("models", name, "representation"), files)
        params.representation(model.representation, where)
    for dataset, features in params.features.items():
        for name in features:
            where = read.at("config", ("features", dataset, name), files)
            params.representation(name, where)
    return params


def settings(root: Path) -> dict[str, Any]:
    """The blocks of config/*.yaml and config/models/*.yaml as one tree."""
    return _settings(root)[0]


def _settings(root: Path) -> tuple[dict[str, Any], dict[Place, tuple[str, Place]]]:
    """The blocks of config/ as one tree, and where in which file they and their names stand.

    A block may stand in several files, each of its names in one. A model's name is that of its
    file; its `variants` are models beside it, each with what it has of its own.
    """
    tree: dict[str, Any] = {}
    files: dict[Place, tuple[str, Place]] = {}
    for path in sorted((root / "config").glob("*.yaml")):
        name = path.relative_to(root).as_posix()
        for block, content in read.yaml(path, name).items():
            if block in ("models", "studies"):
                place = {"models": "config/models", "studies": "studies"}[block]
                raise CrystalmeshError(f"{name}: {block}: stands in {place}; move it there")
            files[block,] = name, (block,)
            for key in read.mapping(content, f"{name}: {block}"):
                if (block, key) in files:
                    raise CrystalmeshError(f"{name}: {block}.{key} stands in another file too")
                files[block, key] = name, (block, key)
            tree[block] = tree.get(block, {}) | content
    tree["models"] = _models(root, files)
    features = tree.get("features", {})
    for dataset, content in features.items():
        where = read.at("config", ("features", dataset), files)
        blocks = dict(read.mapping(content, where))
        every = read.listing(blocks.pop("all", []), f"{where}.all")
        features[dataset] = {str(one): {} for one in every} | blocks
    return tree, files


def _models(root: Path, files: dict[Place, tuple[str, Place]]) -> dict[str, Any]:
    """The models of config/models by name; `files` is told where each stands."""
    models: dict[str, Any] = {}
    paths = sorted((root / "config" / "models").glob("*.yaml"))
    names = {path.stem: path.relative_to(root).as_posix() for path in paths}
    files |= {("models", stem): (name, ()) for stem, name in names.items()}
    for path in paths:
        name = names[path.stem]
        base = {"architecture": path.stem} | read.yaml(path, name)
        variants = read.mapping(base.pop("variants", {}), f"{name}: variants")
        models[path.stem] = base
        for variant, own in variants.items():
            where = f"{name}: variants.{variant}"
            if ("models", variant) in files:
                other = files["models", variant][0]
                raise CrystalmeshError(f"{where}: a model of {other} has that name; choose another")
            files["models", variant] = name, ("variants", variant)
            models[variant] = _merged(base, read.mapping(own, where))
    return models


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A block with another's settings over its own, block by block."""
    merged = dict(base)
    for key, value in own.items():
        inner = base.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        merged[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def root(start: Path | None = None) -> Path:
    """The folder of the project at or above `start` (default: the current folder)."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "config" / "models").is_dir():
            return folder
    raise CrystalmeshError(f"{here}: no config/ here or above; run inside the project's folder")


def find(start: Path | None = None) -> Project:
    """Load the project at or above `start` (default: the current folder)."""
    return load(root(start))


def locate() -> Project:
    """The project at or above the current folder, else the one that this package lies in."""
    try:
        return find()
    except CrystalmeshError:
        source = Path(__file__).resolve().parents[3]
        if not (source / "config").exists():
            raise
        return load(source)
