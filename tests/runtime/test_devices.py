"""Device and precision of a run, on machines with and without a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.runtime import devices
from mlkd.runtime.devices import Device, Hardware, peak_memory_bytes, place
from mlkd.runtime.precision import Precision, autocast_type

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let torch say that it has a GPU, or none."""

    def pretend(available: bool, bf16: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)

    return pretend


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        (Device.auto, False, "cpu"),
        (Device.auto, True, "cuda"),
        (Device.cpu, True, "cpu"),
        (Device.cpu, False, "cpu"),
        (Device.cuda, True, "cuda"),
    ],
)
def test_the_device(gpu: Callable[..., None], device: Device, available: bool, expected: str) -> None:
    gpu(available)
    assert Hardware(device=device).resolve().type == expected


def test_cuda_that_is_absent_is_not_replaced(gpu: Callable[..., None]) -> None:
    gpu(False)
    with pytest.raises(MlkdError) as caught:
        Hardware(device=Device.cuda).resolve()
    assert caught.value.problems[0].code == "E501" and caught.value.exit_code == 5


@pytest.mark.parametrize("field", ["precision", "teacher_precision"])
def test_a_gpu_without_bf16_is_told(gpu: Callable[..., None], field: str) -> None:
    gpu(True, bf16=False)
    with pytest.raises(MlkdError, match="no bf16") as caught:
        Hardware(**{field: Precision.bf16}).resolve()
    assert caught.value.problems[0].code == "E501"
    assert Hardware(**{field: Precision.bf16}, device=Device.cpu).resolve() == CPU
    assert Hardware(**{field: Precision.auto}).resolve() == CUDA
    assert autocast_type(Precision.auto, CUDA) is None


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", ""])
def test_precision_by_device(gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch, feature: str) -> None:
    gpu(True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: True, "avx2": True}, raising=False)
    table = {
        (Precision.fp32, "cpu"): None,
        (Precision.fp32, "cuda"): None,
        (Precision.bf16, "cpu"): torch.bfloat16,
        (Precision.bf16, "cuda"): torch.bfloat16,
        (Precision.auto, "cpu"): torch.bfloat16 if feature else None,
        (Precision.auto, "cuda"): torch.bfloat16,
    }
    for (precision, device), expected in table.items():
        assert autocast_type(precision, torch.device(device)) is expected


def test_threads_and_tokens() -> None:
    before = torch.get_num_threads()
    try:
        Hardware(threads=1, device=Device.cpu).resolve()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert [Hardware().forward_tokens(d) for d in (CPU, CUDA)] == [2048, 65536]
    assert [Hardware(max_tokens=100).forward_tokens(d) for d in (CPU, CUDA)] == [100, 100]


def test_ranges() -> None:
    with pytest.raises(MlkdError) as caught:
        Hardware(num_processes=0, threads=0, max_tokens=-1)
    problems = [(p.code, p.where) for p in caught.value.problems]
    assert problems == [("E204", "num_processes"), ("E204", "threads"), ("E204", "max_tokens")]


def test_a_gpu_for_each_process(gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert Hardware(num_processes=2, threads=1).resolve_for_training() == CUDA
    with pytest.raises(
        MlkdError, match=r"3 processes need a GPU each; torch sees 2 \(CUDA_VISIBLE_DEVICES=4,5\)"
    ) as caught:
        Hardware(num_processes=3).resolve_for_training()
    assert (caught.value.problems[0].code, caught.value.problems[0].where) == ("E501", "hardware.num_processes")
    assert Hardware(num_processes=3, threads=1, device=Device.cpu).resolve_for_training() == CPU


def test_processes_share_out_torchs_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "TORCH_THREADS", 7)
    before = torch.get_num_threads()
    try:
        for processes, threads, expected in ((2, None, 3), (9, None, 1), (2, 4, 4)):
            Hardware(device=Device.cpu, num_processes=processes, threads=threads).resolve_for_training()
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_several_processes_serve_training_alone() -> None:
    with pytest.raises(MlkdError, match="several processes serve training alone") as caught:
        Hardware(num_processes=2).resolve()
    assert caught.value.exit_code == 2


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert Hardware(device=Device.cpu).resolve_for_training() == CPU
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MlkdError, match=r"hardware\.num_processes=2"):
        Hardware(device=Device.cpu).resolve_for_training()


def test_bf16_on_a_cpu_gets_the_kernel_with_a_fast_backward_pass(make_encoder: Callable[..., SentenceEncoder]) -> None:
    for precision, kernel in ((None, "sdpa"), (torch.bfloat16, "eager")):
        encoder = make_encoder()
        before = encoder.encode(["bei sta", "kra"])
        place(encoder.backbone, CPU, precision)
        assert encoder.backbone.config._attn_implementation == kernel
        torch.testing.assert_close(encoder.encode(["bei sta", "kra"]), before, rtol=0, atol=1e-5)


def test_peak_memory_counts_bytes() -> None:
    assert 50e6 < peak_memory_bytes(CPU) < 1e12  # a process with torch in it, in bytes and not in KiB


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_encodes_as_the_cpu_does(make_encoder: Callable[..., SentenceEncoder], sentences: list[str]) -> None:
    expected = make_encoder().encode(sentences)
    for precision, tolerance in ((None, 1e-4), (torch.bfloat16, 0.1)):
        encoder = make_encoder()
        encoder.precision = precision
        place(encoder.backbone, CUDA, precision)
        encoder.to(CUDA)
        torch.testing.assert_close(encoder.encode(sentences), expected, rtol=0, atol=tolerance)
    assert peak_memory_bytes(CUDA) > 0
