"""Environment of a run: versions, hardware and commit."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from mlkd.version import __version__

PACKAGES = (
    "torch", "transformers", "tokenizers", "sentencepiece", "datasets", "safetensors", "numpy", "scipy",
    "hydra-core", "omegaconf", "sentence-transformers", "faiss-cpu", "faiss-gpu",
)  # fmt: skip


def describe_environment(device: str) -> dict[str, object]:
    """Versions, hardware and commit: what a reader needs to repeat the run; no variables, names or addresses."""
    versions: dict[str, str] = {"python": platform.python_version(), "mlkd": __version__}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    versions["torch"] = torch.__version__  # with the build (+cpu, +cu130), which the package's own metadata may lack
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": versions,
        "platform": platform.platform(),
        "device": device,
        "cuda_devices": cuda,
        "cuda_version": torch.version.cuda,
        "cpu": cpu_model(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def cpu_model() -> str:
    """The processor as the system names it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    """Output of git in the current folder; None without git or outside a repository."""
    executable = shutil.which("git")
    if executable is None:
        return None
    try:
        done = subprocess.run([executable, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()
