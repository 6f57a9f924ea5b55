"""Every name that a block refers to must exist, and what belongs together must fit."""

import re
from collections.abc import Collection, Sequence

from crystalmesh.config.project import Params
from crystalmesh.config.read import lookup, nearest
from crystalmesh.config.schema import KEY, Dataset, Features, Model, Run, Split, Study, Target
from crystalmesh.errors import CrystalmeshError

AXES = 3  # numbers of a gradient with respect to a position
# Representations whose batches hold positions: `represent.Positions` says the same, and a test.
WITH_POSITIONS = ("graph.atoms",)
# And those of which the rows of atoms are the sites of the system, in their order: see the test.
WITH_SITES = ("complex.sites", "graph.atoms", "graph.cgcnn")


def check(params: Params) -> None:
    """Raise CrystalmeshError with one line for the first thing that does not fit."""
    _check_names(params)
    for key, benchmark in params.benchmarks.items():
        lookup(params.datasets, benchmark.dataset, f"dataset (benchmarks.{key})")
        lookup(params.targets, benchmark.target, f"target (benchmarks.{key})")
        _check_file(f"benchmarks.{key}", benchmark.file)
    for key, target in params.targets.items():
        _check_target(params, key, target)
    for key, one in params.datasets.items():
        _check_dataset(params, key, one)
    for dataset, splits in params.splits.items():
        lookup(params.datasets, dataset, "dataset (splits)")
        for key, split in splits.items():
            _check_split(params, dataset, key, split)
    for dataset, features in params.features.items():
        lookup(params.datasets, dataset, "dataset (features)")
        for name, block in features.items():
            _check_features(params, dataset, f"features.{dataset}.{name}", block)
    for name, model in params.models.items():
        if model.variant_of:
            lookup(params.models, model.variant_of, f"model (models.{name}.variant_of)")
    for name, study in params.studies.items():
        _check_study(params, name, study)
    _check_order(params)
    if sum(bool(study.serves) for study in params.studies.values()) > 1:
        raise CrystalmeshError("studies: only one of them can have `serves`")


def _check_names(params: Params) -> None:
    """They are parts of paths, and of the keys of plans. Those of studies: see `plan`."""
    splits = {f"splits.{name}": block for name, block in params.splits.items()}
    for block in ("datasets", "benchmarks", "targets", "models"):
        splits[block] = getattr(params, block)
    for where, names in splits.items():
        for name in names:
            if not re.fullmatch(KEY, name):
                raise CrystalmeshError(
                    f"{where}.{name}: a name has letters, digits, _ and - only; change it"
                )


def _check_file(where: str, file: str | None) -> None:
    if file is not None and ".." in file.split("/"):
        raise CrystalmeshError(
            f"{where}.file: {file} leads out of the folder; give it as it lies in the mirror or in"
            " the project"
        )


def _check_dataset(params: Params, name: str, dataset: Dataset) -> None:
    """It has a source, and what it joins is another one."""
    where = f"datasets.{name}"
    _check_file(where, dataset.file)
    if dataset.kind == "file" and not (dataset.file or dataset.url or dataset.sha256):
        raise CrystalmeshError(
            f"{where}: nothing says where it comes from; give it `file` or `url` with `sha256`, or"
            " a `kind`"
        )
    for other in dataset.join:
        lookup(params.datasets, other, f"dataset ({where}.join)")
        if other == name:
            raise CrystalmeshError(f"{where}.join: it joins itself; name another dataset")


def _check_split(params: Params, dataset: str, name: str, split: Split) -> None:
    """Its settings are those of its kind, and it names what there is."""
    where = f"splits.{dataset}.{name}"
    if name in _benchmarks(params, dataset):
        raise CrystalmeshError(f"{where}: a benchmark of {dataset} has this name; change one")
    for one in (*(split.targets or ()), *filter(None, (split.without, split.by))):
        lookup(params.targets, one, f"target ({where})")
    used = {"group": ("group", "block", "repeats"), "given": ("columns",), "random": ("repeats",)}
    for key in ("group", "block", "columns", "repeats"):
        if getattr(split, key) and key not in used[split.kind]:
            kinds = " or ".join(kind for kind in used if key in used[kind])
            raise CrystalmeshError(
                f"{where}.{key}: a {split.kind} split has none; leave it out, or give `kind:"
                f" {kinds}`"
            )
    needed = {"group": "group", "given": "columns"}.get(split.kind)
    if needed and not getattr(split, needed):
        raise CrystalmeshError(f"{where}.{needed}: missing; a {split.kind} split needs it")
    kept = params.datasets[dataset].columns
    groups = (split.group,) if split.group not in (None, "formula", "system") else ()
    for column in (*groups, *split.columns):
        if column not in kept:
            raise CrystalmeshError(
                f"{where}: {dataset} keeps no column '{column}'; add it to datasets.{dataset}"
                ".columns"
            )


def _benchmarks(params: Params, dataset: str) -> set[str]:
    """Those whose official folds are splits of a dataset."""
    return {name for name, one in params.benchmarks.items() if one.dataset == dataset}


def _split_targets(params: Params, where: str, dataset: str, split: str) -> Collection[str]:
    """The targets that a split has, as far as the settings say it: official folds have all."""
    own = params.splits.get(dataset, {})
    known = [*own, *_benchmarks(params, dataset)]
    if split not in known:
        hint = nearest(split, known) if known else "add it to config/splits.yaml"
        raise CrystalmeshError(f"{where}.split: {dataset} has no split '{split}'; {hint}")
    named = own[split].targets if split in own else None
    return named or params.targets_of(dataset)


def _check_features(params: Params, dataset: str, where: str, features: Features) -> None:
    """`split` and `sizes` together say for which systems they are made."""
    if features.split is None:
        if features.sizes or features.calibration:
            raise CrystalmeshError(f"{where}.split: missing; `sizes` and `calibration` are of one")
        return
    known = _split_targets(params, where, dataset, features.split)
    if not features.sizes:
        raise CrystalmeshError(f"{where}.sizes: missing; say how many systems of each target")
    for target in features.sizes:
        if target not in known:
            raise CrystalmeshError(
                f"{where}.sizes: the split {features.split} has no target '{target}';"
                f" {nearest(target, list(known))}"
            )


def _check_target(params: Params, name: str, target: Target) -> None:
    """A gradient is of a number of the system; a wide target has no classes."""
    where = f"targets.{name}"
    plain = target.kind == "regression" and target.transform == "none" and target.above is None
    if target.wide and not plain:
        key = "level" if target.level else "size"
        raise CrystalmeshError(
            f"{where}.{key}: labels of atoms, and several numbers, have no classes, transform or"
            " `above`"
        )
    if target.extensive and (target.wide or not plain):
        raise CrystalmeshError(f"{where}.extensive: only a number of the system can be that")
    _check_numbers(where, target)
    if target.gradient_of is None:
        return
    other = lookup(params.targets, target.gradient_of, f"target ({where}.gradient_of)")
    if target.level is None or target.size != AXES:
        raise CrystalmeshError(f"{where}.gradient_of: needs `level: atom` and `size: {AXES}`")
    if other.wide or (other.kind, other.transform, other.above) != ("regression", "none", None):
        raise CrystalmeshError(
            f"{where}.gradient_of: {target.gradient_of} is not a number of the system as it is"
        )


def _check_numbers(where: str, target: Target) -> None:
    """Its range and its classes."""
    low, high = target.range
    if not low <= high:
        raise CrystalmeshError(f"{where}.range: {low} is not below {high}; the lowest is first")
    if target.transform == "log10" and high <= 0:  # single labels of 0 and below are rejected
        raise CrystalmeshError(
            f"{where}.range: up to {high}, and there is no log10 of 0 and below; end above 0"
        )
    if target.kind == "classification" and target.classes < 2:
        raise CrystalmeshError(f"{where}.classes: a classification needs two at least; give them")
    if target.kind == "regression" and target.classes > 1:
        raise CrystalmeshError(
            f"{where}.classes: a regression has none; leave it out, or give `kind: classification`"
        )


def _check_study(params: Params, name: str, study: Study) -> None:
    where = f"studies/{name}/study.yaml"
    lookup(params.datasets, study.dataset, f"dataset ({where})")
    for run in study.runs.values():
        _check_run(params, f"{where}: {run.name}", run)
    for reference in study.serves:
        run = params.run(reference, f"{where}: serves")
        if run.fold == "all" or params.models[run.model].training is None:
            raise CrystalmeshError(f"{where}: serves: {reference} is no network of one fold")
        if all(params.targets[one].wide for one in run.targets):
            raise CrystalmeshError(
                f"{where}: serves: {reference}: none of its targets is one number or class of a"
                " system, and others are not offered"
            )
    report = study.report
    if report is None:
        return
    shown = {run.name: run for run in params.shown(name)}
    if len(shown) < len(params.shown(name)):
        raise CrystalmeshError(f"{where}: report.also: two of the runs have one name")
    for one in report.embeddings:
        run = lookup(shown, one, f"run ({where}: report.embeddings)")
        if params.targets[run.target].wide:
            raise CrystalmeshError(
                f"{where}: report.embeddings: {one}: its first target is not one number or class of"
                " a system"
            )
    for ensemble in report.ensembles:
        for one, wanted in ensemble.runs.items():
            run = lookup(shown, one, f"run ({where}: report.ensembles)")
            if wanted > (run.members or 1):
                raise CrystalmeshError(
                    f"{where}: report.ensembles: {wanted} networks of {one}, which has"
                    f" {run.members or 1}"
                )
    for name in report.stability.representations if report.stability else ():
        params.representation(name, f"{where}: report.stability.representations")
    if report.site:
        for reference in report.site.networks:
            params.run(reference, f"{where}: report.site.networks")


def _check_run(params: Params, where: str, run: Run) -> None:
    lookup(params.datasets, run.dataset, f"dataset ({where})")
    model = lookup(params.models, run.model, f"model ({where})")
    targets = [lookup(params.targets, name, f"target ({where})") for name in run.targets]
    if len(targets) > 1:
        if any(target.kind == "classification" for target in targets):
            raise CrystalmeshError(f"{where}.targets: classes stand alone; give them a run")
        if len(set(run.targets)) < len(targets):
            raise CrystalmeshError(f"{where}.targets: one of them stands there twice")
        if model.training is None:
            raise CrystalmeshError(f"{where}.targets: {run.model} learns one target only")
    _check_wide(params, where, run)
    params.representation(run.representation, f"{where}.representation")
    if run.representation not in params.features.get(run.dataset, {}):
        raise CrystalmeshError(
            f"{where}.representation: config/ has no `features` of {run.dataset} in"
            f" {run.representation}; add them"
        )
    _check_parts(params, where, run)
    if run.refit and (run.fold != "all" or model.training is None):
        raise CrystalmeshError(f"{where}.refit: needs a network trained by epochs, and `fold: all`")
    if model.training is not None or run.training:
        params.training(run)
    for key in ("weights", "start", "distillation"):
        if getattr(run, key) and model.training is None:
            raise CrystalmeshError(
                f"{where}.{key}: {run.model} is fitted in one step, not by epochs; leave it out"
            )
    for name in run.weights or ():
        if name not in run.targets:
            raise CrystalmeshError(f"{where}.weights: {name} is none of its `targets`")
    if run.start and run.distillation:
        raise CrystalmeshError(f"{where}.start: a distilled network starts anew; leave out one")
    if run.start:
        _check_start(params, f"{where}.start", run)
    if run.distillation:
        _check_distillation(params, f"{where}.distillation", run)


def _check_parts(params: Params, where: str, run: Run) -> None:
    """Its split is one of its dataset, and has its targets and its fold."""
    known = _split_targets(params, where, run.dataset, run.split)
    for name in run.targets:
        if name not in known:
            raise CrystalmeshError(
                f"{where}.targets: the split {run.split} of {run.dataset} has no '{name}'; add it"
                " to the `targets` of the split, or use another one"
            )
    own = params.splits.get(run.dataset, {}).get(run.split)
    if own and run.fold != "all" and run.fold >= own.folds:
        raise CrystalmeshError(
            f"{where}.fold: {run.fold}, and the last one of the split {run.split} is"
            f" {own.folds - 1}; give one that there is"
        )


def _check_order(params: Params) -> None:
    """No run waits for itself, be it by way of others."""
    for study in params.studies.values():
        for run in study.runs.values():
            waiting = [run.reference]
            while run.before and run.before not in waiting:
                run = params.run(run.before)
                waiting.append(run.reference)
            if run.before:
                circle = [*waiting[waiting.index(run.before) :], run.before]
                raise CrystalmeshError(
                    f"studies: {' -> '.join(circle)}: a run waits for itself; take out one `start`"
                    " or `distillation`"
                )


def _check_wide(params: Params, where: str, run: Run) -> None:
    """Targets of each atom and of several numbers: what learns them, and from what."""
    model = params.models[run.model]
    for name in run.targets:
        target = params.targets[name]
        if target.wide and model.training is None:
            raise CrystalmeshError(
                f"{where}.targets: {name}: {run.model} is fitted in one step, and learns one number"
                " or class of a system only"
            )
        if target.gradient_of is None:
            if target.level:
                _check_atoms(where, run, model, name)
            continue
        if target.gradient_of not in run.targets:
            raise CrystalmeshError(
                f"{where}.targets: {name} is the gradient of {target.gradient_of}, which is not"
                " among them; add it"
            )
        if run.representation not in WITH_POSITIONS:
            raise CrystalmeshError(
                f"{where}.representation: {name} is a gradient with respect to positions, which"
                f" {run.representation} does not have; use {' or '.join(WITH_POSITIONS)}"
            )
        if model.training is not None and params.training(run).standardise == "tanh":
            raise CrystalmeshError(
                f"{where}.training.standardise: tanh is not linear, as {name} needs it"
            )


def _check_atoms(where: str, run: Run, model: Model, name: str) -> None:
    """A target of each atom that is no gradient: it needs a network that has vectors of atoms."""
    if not model.atoms:
        raise CrystalmeshError(
            f"{where}.model: {name} is of each atom, and {run.model} gives no numbers of atoms (its"
            " settings in config/models have no `atoms: true`)"
        )
    if run.representation not in WITH_SITES:
        raise CrystalmeshError(
            f"{where}.representation: {name} is of each atom, and {run.representation} has not one"
            f" row for each; use {' or '.join(WITH_SITES)}"
        )


def _check_start(params: Params, where: str, run: Run) -> None:
    assert run.start
    first = params.run(run.start, where)
    one, other = (params.models[each.model] for each in (first, run))
    if (one.architecture, one.network, first.representation) != (
        other.architecture, other.network, run.representation,
    ):  # fmt: skip
        raise CrystalmeshError(f"{where}: {run.start} has another network or representation")
    if first.several:
        raise CrystalmeshError(f"{where}: {run.start} has several networks; name a run with one")


def _check_distillation(params: Params, where: str, run: Run) -> None:
    assert run.distillation
    first = params.run(run.distillation.run, f"{where}.run")
    if params.models[first.model].training is None:
        raise CrystalmeshError(
            f"{where}.run: {first.reference} has no networks, {first.model} being fitted in one"
            " step; name another run"
        )
    _check_same(where, run, first, ("dataset", "fold", "refit", "split", "size", "targets"))
    own, other = (one.representation for one in (run, first))
    if own.partition(".")[0] != other.partition(".")[0] or (
        params.representation(own) != params.representation(other)
    ):
        raise CrystalmeshError(f"{where}.run: {first.reference} cannot read {own}")
    if any(params.targets[name].kind == "classification" for name in run.targets):
        raise CrystalmeshError(f"{where}: not of classes")
    if any(params.targets[name].extensive or params.targets[name].wide for name in run.targets):
        raise CrystalmeshError(
            f"{where}: not of gradients and other targets of more than one number a system, nor of"
            " extensive ones"
        )
    if classical := run.distillation.classical:
        at = f"{where}.classical.representation"
        params.representation(classical.representation, at)


def _check_same(where: str, own: Run, first: Run, keys: Sequence[str]) -> None:
    """A network and its teachers must agree in these settings."""
    for key in keys:
        if getattr(own, key) != getattr(first, key):
            raise CrystalmeshError(f"{where}.run: {first.reference} has another `{key}`")
