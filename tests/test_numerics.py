"""crystalmesh.numerics: the environment is set before torch, and enforced after."""

import json
import os
import subprocess
import sys

import pytest
import torch

from crystalmesh import numerics

PROBE = """
import json, os, sys
from crystalmesh import numerics
numerics.prepare(sys.argv[1])
import torch
numerics.enforce(sys.argv[1])
print(json.dumps({
    "environment": dict(os.environ),
    "threads": torch.get_num_threads(),
    "deterministic": torch.are_deterministic_algorithms_enabled(),
    "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
    "capability": torch.backends.cpu.get_cpu_capability(),
    "description": numerics.describe(sys.argv[1], "cpu"),
}))
"""


@pytest.mark.parametrize("tier", ["native", "portable"])
def test_a_tier_in_a_fresh_process(tier: str) -> None:
    clean = {k: v for k, v in os.environ.items() if k not in numerics.ALWAYS | numerics.PORTABLE}
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, tier], env=clean, capture_output=True, check=True, text=True
    )
    found = json.loads(probe.stdout)
    settings = numerics.ALWAYS | (numerics.PORTABLE if tier == "portable" else {})
    assert found["environment"].items() >= settings.items()
    assert found["threads"] == 1
    assert found["deterministic"]
    assert not found["tf32"]
    if tier == "portable":
        assert found["capability"] in ("AVX2", "DEFAULT")
    description = found["description"]
    assert description["tier"] == tier
    assert description["packages"]["torch"] == torch.__version__
    assert set(description) >= {"cpu", "device", "machine", "python"}


def test_too_late_when_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in numerics.ALWAYS | numerics.PORTABLE:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match="before torch"):
        numerics.prepare("native")
    for name, value in numerics.ALWAYS.items():
        monkeypatch.setenv(name, value)
    numerics.prepare("native")
