"""The settings that decide the bits of every result; `prepare` must run before torch is loaded."""

import functools
import importlib.metadata
import os
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Tier = Literal["native", "portable"]

# One arithmetic thread: one and two threads sum in different orders and give different bits, so
# the number of cores must never reach the arithmetic. Stages run side by side instead.
ALWAYS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_DYNAMIC": "FALSE",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
# NumPy, SciPy and numba make the data of every report, whatever its tier: on one code path for
# every x86-64 CPU with AVX2 and FMA. What that leaves unused of newer CPUs does not show in a
# stage's time.
X86_64 = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "",
}
if platform.machine() == "x86_64":
    ALWAYS |= X86_64
# The portable tier does the same for torch. See `_portable_kernels` for what these leave open.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}


def prepare(tier: Tier) -> None:
    """Set the environment of the tier; raises RuntimeError when torch is already imported."""
    settings = ALWAYS | (PORTABLE if tier == "portable" else {})
    if "torch" in sys.modules and any(os.environ.get(k) != v for k, v in settings.items()):
        raise RuntimeError("numerics.prepare must run before torch is imported")
    os.environ.update(settings)


def enforce(tier: Tier) -> None:
    """Switch torch to one thread and to deterministic algorithms; raises where none exists."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Not filling new memory with NaN takes a tenth of a training's time off: no operation here
    # reads what none has written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    if tier == "portable":
        _portable_kernels()


@functools.cache
def _portable_kernels() -> Any:
    """Give torch NumPy's matrix product and square root on the CPU; returns what keeps them there.

    torch asks MKL for both. MKL's square root differs between CPUs under every MKL_CBWR (it seems
    to be refined from RSQRTPS, an approximation that each vendor makes its own way); NumPy's is
    the correctly rounded instruction. MKL's products are the same everywhere with
    MKL_CBWR=COMPATIBLE only, at less than half the speed of NumPy's OpenBLAS, whose kernels and
    block sizes OPENBLAS_CORETYPE fixes.
    Autograd works above these, so gradients use them too. Other devices are not touched.
    """
    import numpy as np
    import torch
    from torch import Tensor

    def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
        """a @ b of [m, k] and [k, n], or of batches of them."""
        a, b = a.detach(), b.detach()
        if out is None:
            out = a.new_empty((*a.shape[:-1], b.shape[-1]))
        np.matmul(a.numpy(), b.numpy(), out=out.detach().numpy())
        return out

    def biased(bias: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
        """beta bias + alpha a @ b."""
        return product(a, b).mul_(alpha).add_(bias.detach(), alpha=beta)

    def root(x: Tensor, out: Tensor | None = None) -> Tensor:
        x = x.detach() if x.is_floating_point() else x.to(torch.get_default_dtype())
        # NaN of a negative number is told by the value, as torch does it, and not by a warning.
        with np.errstate(invalid="ignore"):
            result = torch.from_numpy(np.asarray(np.sqrt(x.numpy())))
        return result if out is None else out.copy_(result)

    kernels: dict[str, Callable[..., Tensor]] = {
        "mm": product,
        "mm.out": lambda a, b, *, out: product(a, b, out),
        "bmm": product,
        "bmm.out": lambda a, b, *, out: product(a, b, out),
        "addmm": lambda bias, a, b, *, beta=1, alpha=1: biased(bias, a, b, beta, alpha),
        "addmm_": lambda x, a, b, *, beta=1, alpha=1: x.copy_(biased(x, a, b, beta, alpha)),
        "addmm.out": lambda x, a, b, *, beta=1, alpha=1, out: out.copy_(
            biased(x, a, b, beta, alpha)
        ),
        "sqrt": root,
        "sqrt_": lambda x: root(x, x),
        "sqrt.out": lambda x, *, out: root(x, out),
    }
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that kernels are replaced is what we want
        for name, kernel in kernels.items():
            library.impl(name, kernel, "CPU", allow_override=True)
    return library


def describe(tier: Tier, device: str) -> dict[str, Any]:
    """What the bits may depend on: tier, device, CPU and the versions of the numeric packages."""
    packages = ("numpy", "scipy", "spglib", "torch", "lightning", "scikit-learn", "matplotlib")
    return {
        "tier": tier,
        "device": device,
        "machine": platform.machine(),
        "cpu": cpu(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def cpu() -> dict[str, Any]:
    """Model name and the vector extensions, as Linux tells them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    lines = {key.strip(): value.strip() for key, _, value in pairs}
    flags = sorted(f for f in lines.get("flags", "").split() if f.startswith(("avx", "fma", "sse")))
    return {"model": lines.get("model name", ""), "flags": flags}
