"""Every kind of run that a study has is trained in small by test_independence.py.

A study that brings a model or a representation has it there without a word. A kind that no small
run has, such as a new optimizer or another way of training, fails here: add a run of it to
chain.py. The reports of all studies are made again from their predictions by `.ci/run`.
"""

import pytest

from crystalmesh.config import plan
from crystalmesh.config.project import Params, load
from crystalmesh.config.schema import Run
from tests.conftest import write_settings
from tests.workflow import chain
from tests.workflow.conftest import ROOT

PARAMS = load(ROOT).params
SETTINGS = ("members", "refit", "start", "distillation", "weights", "precision")


def kinds(params: Params, run: Run) -> set[tuple[str, str]]:
    """What a run is an example of, each a name and a value."""
    base = params.models[run.model]
    found = {("representation", run.representation)}
    found |= {("target", params.targets[target].kind) for target in run.targets}
    found |= {("set", name) for name in SETTINGS if getattr(run, name) is not None}
    found |= {("folds", "all")} if run.fold == "all" else set()
    found |= {("targets", "several")} if len(run.targets) > 1 else set()
    training = params.training(run) if base.training else None
    return found | chain.kinds(base.model_copy(update={"training": training}))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """All that the runs of the tiny report are examples of."""
    root = tmp_path_factory.mktemp("small")
    tree = chain.settings("portable", "kinds")
    write_settings(root, tree)
    params = plan.fresh(root).params
    return {kind for run in params.study("demo").runs.values() for kind in kinds(params, run)}


@pytest.mark.parametrize("study", sorted(PARAMS.studies))
def test_every_kind_of_run_is_trained_in_small(study: str, small: set[tuple[str, str]]) -> None:
    runs = PARAMS.study(study).runs.values()
    assert {kind for run in runs for kind in kinds(PARAMS, run)} - small == set()


def test_a_kind_that_is_not_there_is_found(small: set[tuple[str, str]]) -> None:
    run = next(run for run in PARAMS.study("demo").runs.values() if run.members)
    other = run.model_copy(update={"representation": "graph.nonesuch"})
    assert kinds(PARAMS, other) - small == {("representation", "graph.nonesuch")}
