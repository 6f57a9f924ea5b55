"""CUDA graphs: with what stands in for recording on a CPU, but for the last test."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crystalmesh.config.project import Project
from crystalmesh.files import read_csv
from crystalmesh.learn import cuda_graphs
from crystalmesh.learn.batches import Batches, Sample
from crystalmesh.learn.cuda_graphs import Recorder
from crystalmesh.models import network
from crystalmesh.represent.graph import Cgcnn
from tests.conftest import Tree, run_of
from tests.learn.conftest import Renew, fit

NAME = "two"


def history(project: Project) -> Any:
    read = read_csv(project.history(run_of(project, NAME)))
    return np.array([[float(row[key]) for key in ("train_loss", "val_metric")] for row in read])


def recording(
    monkeypatch: pytest.MonkeyPatch, played: list[dict[str, int]], draws: int = 7
) -> None:
    """Let the CPU be taken for a GPU whose records are the network itself.

    As there, recording runs the network, which draws, and what was given out before is overwritten.
    """

    def graphed(module: nn.Module, like: tuple[dict[str, Tensor]]) -> Any:
        torch.rand(draws)
        shapes = {key: len(value) for key, value in like[0].items()}
        last: list[Tensor] = []

        def play(batch: dict[str, Tensor]) -> Any:
            assert {key: len(value) for key, value in batch.items()} == shapes
            played.append(shapes)
            for old in last:
                old.data.fill_(torch.nan)
            last[:] = [module(batch)]
            return last[0]

        return play

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)

    def of(net: nn.Module, sample: Sample, batch_size: int, _: torch.device) -> Recorder:
        return Recorder(net, sample, batch_size)

    monkeypatch.setattr(Recorder, "of", of)


def test_training_is_the_same(two: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout is 0: it would be drawn for rows of no crystal, too."""
    fit(two, NAME)
    plain = history(two)
    played: list[dict[str, int]] = []
    recording(monkeypatch, played)
    fit(two, NAME)
    assert played
    np.testing.assert_allclose(history(two), plain, rtol=1e-4)


def test_what_recording_draws_is_not_missed(
    two: Project, tree: Tree, renew: Renew, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert two
    tree["models"]["complex"]["network"] |= {"dropout": 0.3}
    project = renew(tree)
    played: list[dict[str, int]] = []
    found = []
    for draws in (1, 7):
        recording(monkeypatch, played, draws)
        fit(project, NAME)
        found.append(history(project))
    assert played
    np.testing.assert_array_equal(*found)


def test_batches_that_are_larger(two: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go through the network as they are."""
    fit(two, NAME)
    plain = history(two)
    played: list[dict[str, int]] = []
    recording(monkeypatch, played)
    monkeypatch.setattr(cuda_graphs, "SPREAD", -0.5)
    monkeypatch.setattr(cuda_graphs, "STEP", 1)
    fit(two, NAME)
    run = run_of(two, NAME)
    sample = Sample.load(two, run)
    size = two.params.training(run).batch_size
    steps = len(Batches(sample, sample.train, size)) * len(plain)
    assert 0 < len(played) < steps
    np.testing.assert_allclose(history(two), plain, rtol=1e-4)


def test_nearly_all_batches_fit(two: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that a remainder of one has joined."""
    monkeypatch.setattr(cuda_graphs, "STEP", 1)
    sample = Sample.load(two, run_of(two, NAME))
    size = len(sample.train.ids) - 1
    assert [len(y) for _, y, *_ in Batches(sample, sample.train, size)] == [size + 1]
    for spread, least, most in ((3.0, 0.9, 1.0), (-1.0, 0.0, 0.5)):
        monkeypatch.setattr(cuda_graphs, "SPREAD", spread)
        fits = []
        for batch_size in (4, size):
            play = Recorder(nn.Identity(), sample, batch_size)
            for seed in range(20):
                for batch, *_ in Batches(sample, sample.train, batch_size, shuffle=(seed,)):
                    crystals = len(batch["atoms_pointer"]) - 1
                    assert crystals < play.sizes["crystals"]
                    fits.append(len(play.padded(batch)["atoms_pointer"]) - 1 > crystals)
        assert least <= np.mean(fits) <= most


def test_only_complexes_on_a_gpu(two: Project) -> None:
    sample = Sample.load(two, run_of(two, NAME))
    assert Recorder.of(nn.Identity(), sample, 4, torch.device("cpu")) is None
    assert Recorder.of(nn.Identity(), sample, 4, torch.device("cuda")) is not None
    other = replace(sample, maker=Cgcnn({"neighbours": 12, "cutoff": 8.0}))
    assert Recorder.of(nn.Identity(), other, 4, torch.device("cuda")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records on a GPU; not run yet")
def test_a_record_gives_what_the_network_gives(two: Project) -> None:
    run = run_of(two, NAME)
    sample = Sample.load(two, run)
    net = network("complex", two.params.models["complex"].network, 2).cuda()
    play = Recorder(net, sample, 4)
    for inputs, *_ in Batches(sample, sample.train, 4):
        gradients = []
        for batch in (inputs, play.padded(inputs)):
            net.zero_grad()
            crystals = len(inputs["atoms_pointer"]) - 1
            outputs = play({key: value.cuda() for key, value in batch.items()})[:crystals]
            outputs.square().sum().backward()
            gradients.append(
                [
                    outputs.detach(),
                    *(p.grad.clone() for p in net.parameters() if p.grad is not None),
                ]
            )
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert play._recorded is not None
