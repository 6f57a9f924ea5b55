"""The settings that decide the bits of every result; `prepare` must run before torch is loaded."""

import importlib.metadata
import os
import platform
import sys
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
# The portable tier keeps every x86-64 CPU with AVX2 on one code path.
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


def enforce() -> None:
    """Switch torch to one thread and to deterministic algorithms; raises where none exists."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def describe(tier: Tier, device: str) -> dict[str, Any]:
    """What the bits may depend on: tier, device, CPU and the versions of the numeric packages."""
    packages = ("numpy", "scipy", "spglib", "torch", "lightning", "scikit-learn", "matplotlib")
    return {
        "tier": tier,
        "device": device,
        "machine": platform.machine(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def _cpu() -> dict[str, Any]:
    """Model name and the vector extensions, as Linux tells them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    lines = {key.strip(): value.strip() for key, _, value in pairs}
    flags = sorted(f for f in lines.get("flags", "").split() if f.startswith(("avx", "fma", "sse")))
    return {"model": lines.get("model name", ""), "flags": flags}
