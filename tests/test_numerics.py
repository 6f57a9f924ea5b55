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


KERNELS = """
import warnings
warnings.simplefilter("error")
from crystalmesh import numerics
numerics.prepare("portable")
import numpy as np
import torch
torch.manual_seed(0)
a, b, x = torch.randn(5, 7), torch.randn(7, 3), torch.rand(4, 6)
whole = torch.arange(6).view(2, 3)

def results():
    return {
        "mm": a @ b,
        "bmm": torch.bmm(a[None], b[None]),
        "linear": torch.nn.functional.linear(a, b.t()),
        "addmm": torch.addmm(torch.ones(3), a, b, beta=0.5, alpha=2.0),
        "addmm in place": torch.ones(7, 7).addmm_(a.t(), a),
        "addmm out": torch.addmm(torch.ones(3), a, b, out=torch.empty(5, 3)),
        "mm out": torch.mm(a, b, out=torch.empty(3, 5).t()),
        "empty": torch.randn(4, 0) @ torch.randn(0, 2),
        "integers": whole @ whole.t(),
        "sqrt": x.sqrt(),
        "sqrt of integers": whole.sqrt(),
        "sqrt of none": torch.tensor([-1.0, float("nan")]).sqrt(),
    }

expected = results()
numerics.enforce("portable")
found = results()
for name, value in expected.items():
    torch.testing.assert_close(found[name], value, equal_nan=True, msg=name)
# the very bits of NumPy, in place, into a given tensor and strided too
assert np.array_equal(found["mm"].numpy(), a.numpy() @ b.numpy())
assert np.array_equal(found["sqrt"].numpy(), np.sqrt(x.numpy()))
assert np.array_equal(x.t().sqrt().numpy(), np.sqrt(x.numpy()).T)
assert np.array_equal(torch.sqrt(x, out=torch.empty(4, 6)).numpy(), np.sqrt(x.numpy()))
assert np.array_equal(x.clone().sqrt_().numpy(), np.sqrt(x.numpy()))
# autograd goes through
w = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
v = torch.rand(5, 7, dtype=torch.float64, requires_grad=True)
layer = torch.nn.functional.linear
assert torch.autograd.gradcheck(lambda w, v: layer(v, w).square().sqrt(), (w, v))
print("good")
"""


def test_the_portable_kernels_are_torchs_but_for_the_last_bits() -> None:
    clean = {k: v for k, v in os.environ.items() if k not in numerics.ALWAYS | numerics.PORTABLE}
    ended = subprocess.run(
        [sys.executable, "-c", KERNELS], env=clean, capture_output=True, check=False, text=True
    )
    assert ended.stdout == "good\n", ended.stderr
