"""Every name that a block refers to must exist, and what belongs together must fit."""

from collections.abc import Sequence

from crystalmesh.config.project import Params
from crystalmesh.config.read import lookup
from crystalmesh.config.schema import Model, Run, Study, Target
from crystalmesh.errors import CrystalmeshError

AXES = 3  # numbers of a gradient with respect to a position
# Representations whose batches hold positions: `represent.Positions` says the same, and a test.
WITH_POSITIONS = ("graph.atoms",)
# And those of which the rows of atoms are the sites of the system, in their order: see the test.
WITH_SITES = ("complex.sites", "graph.atoms", "graph.cgcnn")


def check(params: Params) -> None:
    """Raise CrystalmeshError with one line for the first thing that does not fit."""
    for key, benchmark in params.benchmarks.items():
        lookup(params.datasets, benchmark.dataset, f"dataset (benchmarks.{key})")
        lookup(params.targets, benchmark.target, f"target (benchmarks.{key})")
    for key, target in params.targets.items():
        _check_target(params, key, target)
    for dataset, splits in params.splits.items():
        lookup(params.datasets, dataset, "dataset (splits)")
        for key, split in splits.items():
            named = [*(split.targets or ()), *filter(None, (split.without, split.by))]
            for one in named:
                lookup(params.targets, one, f"target (splits.{dataset}.{key})")
    for dataset, features in params.features.items():
        lookup(params.datasets, dataset, "dataset (features)")
        for name in features:
            params.representation(name)
    for name, model in params.models.items():
        if model.variant_of:
            lookup(params.models, model.variant_of, f"model (models.{name}.variant_of)")
    for name, study in params.studies.items():
        _check_study(params, name, study)
    if sum(bool(study.serves) for study in params.studies.values()) > 1:
        raise CrystalmeshError("studies: only one of them can have `serves`")


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
    if target.gradient_of is None:
        return
    other = lookup(params.targets, target.gradient_of, f"target ({where}.gradient_of)")
    if target.level is None or target.size != AXES:
        raise CrystalmeshError(f"{where}.gradient_of: needs `level: atom` and `size: {AXES}`")
    if other.wide or (other.kind, other.transform, other.above) != ("regression", "none", None):
        raise CrystalmeshError(
            f"{where}.gradient_of: {target.gradient_of} is not a number of the system as it is"
        )


def _check_study(params: Params, name: str, study: Study) -> None:
    where = f"studies/{name}/study.yaml"
    lookup(params.datasets, study.dataset, f"dataset ({where})")
    for run in study.runs.values():
        _check_run(params, f"{where}: {run.name}", run)
    for reference in study.serves:
        run = params.run(reference)
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
        params.representation(name)
    if report.site:
        for reference in report.site.networks:
            params.run(reference)


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
    for name in run.weights or ():
        if name not in run.targets:
            raise CrystalmeshError(f"{where}.weights: {name} is none of its `targets`")
    _check_wide(params, where, run)
    params.representation(run.representation)
    if run.representation not in params.features.get(run.dataset, {}):
        raise CrystalmeshError(
            f"{where}.representation: config/ has no `features` of {run.dataset} in"
            f" {run.representation}; add them"
        )
    folds = {name for name, one in params.benchmarks.items() if one.dataset == run.dataset}
    if run.split not in {*params.splits.get(run.dataset, {}), *folds}:
        raise CrystalmeshError(f"{where}.split: {run.dataset} has no split '{run.split}'")
    if run.refit and (run.fold != "all" or model.training is None):
        raise CrystalmeshError(f"{where}.refit: needs a network trained by epochs, and `fold: all`")
    if model.training is not None or run.training:
        params.training(run)
    if run.start and run.distillation:
        raise CrystalmeshError(f"{where}.start: a distilled network starts anew; leave out one")
    if run.start:
        _check_start(params, f"{where}.start", run)
    if run.distillation:
        _check_distillation(params, f"{where}.distillation", run)


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
    first = params.run(run.start)
    one, other = (params.models[each.model] for each in (first, run))
    if (one.architecture, one.network, first.representation) != (
        other.architecture, other.network, run.representation,
    ):  # fmt: skip
        raise CrystalmeshError(f"{where}: {run.start} has another network or representation")
    if first.several:
        raise CrystalmeshError(f"{where}: {run.start} has several networks; name a run with one")


def _check_distillation(params: Params, where: str, run: Run) -> None:
    assert run.distillation
    first = params.run(run.distillation.run)
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
        params.representation(classical.representation)


def _check_same(where: str, own: Run, first: Run, keys: Sequence[str]) -> None:
    """A network and its teachers must agree in these settings."""
    for key in keys:
        if getattr(own, key) != getattr(first, key):
            raise CrystalmeshError(f"{where}.run: {first.reference} has another `{key}`")
