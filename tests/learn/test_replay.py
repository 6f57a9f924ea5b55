"""Steps that a GPU plays again: with what stands in for recording, but for the last test."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crystalmesh import config
from crystalmesh.config import Project
from crystalmesh.files import read_csv
from crystalmesh.learn import replay
from crystalmesh.learn.batches import Batches, Sample
from crystalmesh.learn.replay import Replay
from crystalmesh.learn.train import train
from crystalmesh.models import network

NAME = "log_k-complex"


def history(project: Project) -> Any:
    read = read_csv(project.history("demo", NAME))
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

    def of(net: nn.Module, sample: Sample, batch_size: int, _: torch.device) -> Replay:
        return Replay(net, sample, batch_size)

    monkeypatch.setattr(Replay, "of", of)


def test_training_is_the_same(averaged: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout is 0: it would be drawn for rows of no crystal, too."""
    train(averaged, "demo", NAME)
    plain = history(averaged)
    played: list[dict[str, int]] = []
    recording(monkeypatch, played)
    train(averaged, "demo", NAME)
    assert played
    np.testing.assert_allclose(history(averaged), plain, rtol=1e-4)


def test_what_recording_draws_is_not_missed(
    averaged: Project, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree["models"]["complex"]["network"] |= {"dropout": 0.3}
    (averaged.root / "params.yaml").write_text(json.dumps(tree))
    project = config.load(averaged.root)
    played: list[dict[str, int]] = []
    found = []
    for draws in (1, 7):
        recording(monkeypatch, played, draws)
        train(project, "demo", NAME)
        found.append(history(project))
    assert played
    np.testing.assert_array_equal(*found)


def test_batches_that_are_larger(averaged: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go through the network as they are."""
    train(averaged, "demo", NAME)
    plain = history(averaged)
    played: list[dict[str, int]] = []
    recording(monkeypatch, played)
    monkeypatch.setattr(replay, "SPREAD", -0.5)
    monkeypatch.setattr(replay, "STEP", 1)
    train(averaged, "demo", NAME)
    experiment = averaged.params.experiment("demo", NAME)
    sample = Sample.load(averaged, experiment)
    size = averaged.params.training(experiment).batch_size
    steps = len(Batches(sample, sample.train, size)) * len(plain)
    assert 0 < len(played) < steps
    np.testing.assert_allclose(history(averaged), plain, rtol=1e-4)


def test_nearly_all_batches_fit(averaged: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that a remainder of one has joined."""
    monkeypatch.setattr(replay, "STEP", 1)
    sample = Sample.load(averaged, averaged.params.experiment("demo", NAME))
    size = len(sample.train.ids) - 1
    assert [len(y) for _, y in Batches(sample, sample.train, size)] == [size + 1]
    for spread, least, most in ((3.0, 0.9, 1.0), (-1.0, 0.0, 0.5)):
        monkeypatch.setattr(replay, "SPREAD", spread)
        fits = []
        for batch_size in (4, size):
            play = Replay(nn.Identity(), sample, batch_size)
            for seed in range(20):
                for batch, _ in Batches(sample, sample.train, batch_size, shuffle=(seed,)):
                    crystals = len(batch["atoms_pointer"]) - 1
                    assert crystals < play.sizes["crystals"]
                    fits.append(len(play.padded(batch)["atoms_pointer"]) - 1 > crystals)
        assert least <= np.mean(fits) <= most


def test_only_complexes_on_a_gpu(averaged: Project) -> None:
    sample = Sample.load(averaged, averaged.params.experiment("demo", NAME))
    assert Replay.of(nn.Identity(), sample, 4, torch.device("cpu")) is None
    assert Replay.of(nn.Identity(), sample, 4, torch.device("cuda")) is not None
    other = Sample.load(averaged, averaged.params.experiment("demo", "log_k-cgcnn"))
    assert Replay.of(nn.Identity(), other, 4, torch.device("cuda")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records on a GPU; not run yet")
def test_a_record_gives_what_the_network_gives(averaged: Project) -> None:
    experiment = averaged.params.experiment("demo", NAME)
    sample = Sample.load(averaged, experiment)
    net = network("complex", averaged.params.models["complex"].network, 2).cuda()
    play = Replay(net, sample, 4)
    for inputs, _ in Batches(sample, sample.train, 4):
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
