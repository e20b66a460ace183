"""Resuming a run: everything that decides how it goes on, into a checkpoint and back."""

from __future__ import annotations

import logging
from dataclasses import asdict

from mlkd.distributed.gradient_sync import collect_random_states
from mlkd.distributed.random_state import from_checkpoint, num_streams, random_state, set_random_state
from mlkd.optim.adamw import load_optimizer_tensors, optimizer_tensors
from mlkd.runtime.checkpoints import Checkpoint, CheckpointWriter
from mlkd.training.gradient import GradientComputation
from mlkd.training.state import TrainState

log = logging.getLogger("mlkd")


def save_training_state(run: GradientComputation, writer: CheckpointWriter) -> None:
    """Write a checkpoint of everything that decides how the run goes on."""
    others = collect_random_states(run.process_group, run.weights(), run.state.step)
    tensors = {
        "student": run.student.state_dict(),
        "loss": run.loss.state_dict(),
        "masked_lm": run.masked_lm.state_dict() if run.masked_lm is not None else {},
        "optimizer": optimizer_tensors(run.optimizer),
        "sparse_adamw": run.sparse_adamw.tensors() if run.sparse_adamw is not None else {},
        "random": {**random_state(run.student.device), **others},
    }
    writer.save(run.state.step, {name: group for name, group in tensors.items() if group}, asdict(run.state))


def restore_training_state(run: GradientComputation, checkpoint: Checkpoint) -> None:
    """Continue where `checkpoint` was saved."""
    run.student.load_state_dict(checkpoint.tensors["student"])
    run.loss.load_state_dict(checkpoint.tensors.get("loss", {}))
    if run.masked_lm is not None:
        run.masked_lm.load_state_dict(checkpoint.tensors["masked_lm"])
    load_optimizer_tensors(run.optimizer, checkpoint.tensors["optimizer"])
    if run.sparse_adamw is not None:
        run.sparse_adamw.load_tensors(checkpoint.tensors["sparse_adamw"])
    run.state = TrainState(**checkpoint.state)
    random = checkpoint.tensors["random"]
    own = from_checkpoint(random, run.process_group.rank)
    if own is None:
        run.process_group.seed(run.data.batches.seed, run.state.step)
    else:
        set_random_state(run.student.device, own)
    if num_streams(random) != run.process_group.size:
        what = "saved by %d process(es), continued by %d: dropout draws other numbers from here on"
        log.warning(what, num_streams(random), run.process_group.size)
