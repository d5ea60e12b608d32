"""A training run in a process of its own, which can be told to die: ``python -m tests.resume_run FOLDER --help``.

Each rank appends a line per batch to ``FOLDER/steps_RANK.txt``: epoch, number, digest of its images and boxes, loss and
learning rate.
"""

import argparse
import hashlib
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn

import detlit
from detlit.callbacks import Checkpoint, GracefulStop, default_callbacks
from detlit.checkpoint_io import AtomicCheckpointIO
from tests.tiny import tiny_detector


class Note(Callback):
    """Writes down what every rank trained on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pixels = batch.images.cpu().numpy().tobytes() + batch.boxes.cpu().numpy().tobytes()
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        line = [trainer.current_epoch, batch_idx, hashlib.sha256(pixels).hexdigest()[:16], outputs["loss"].item(), lr]
        with (self.folder / f"steps_{trainer.global_rank}.txt").open("a") as file:
            print(*line, file=file)


class Die(Callback):
    """Sends a signal to this process, or to all ranks, at a hook once so many optimizer steps are done."""

    def __init__(self, number: signal.Signals, step: int, hook: str) -> None:
        self.number, self.step = number, step
        setattr(self, hook, self._die)

    def _die(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step >= self.step and not trainer.sanity_checking:
            self.step = 1_000_000
            if self.number == signal.SIGKILL:
                os.killpg(0, self.number)
            elif trainer.global_rank == 0:
                os.kill(os.getpid(), self.number)


class Noisy(nn.Module):
    """A layer that draws from torch's global generator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.01 * torch.randn_like(x) if self.training else x


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--every_n_steps", type=int)
    parser.add_argument("--precise_batch_norm", type=int)
    parser.add_argument("--ckpt_path")
    parser.add_argument("--signal", choices=[number.name for number in signal.Signals])
    parser.add_argument("--step", type=int, default=1_000_000)
    parser.add_argument("--hook", default="on_train_batch_start")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    seed_everything(1, verbose=False)

    images = {"num_images": 12 * options.devices, "image_size": 64}
    data = detlit.DetectionDataModule(
        train=detlit.ShapesDataset(**images),
        val=detlit.ShapesDataset(num_images=4, image_size=64, seed=1),
        image_size=64,
        batch_size=2,
        num_workers=options.workers,
    )
    detector = tiny_detector(data.num_classes)
    detector.neck.register_forward_hook(lambda _, __, output: [Noisy()(x) for x in output])
    module = detlit.DetectionModule(
        detector,
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        lr_scheduler=partial(detlit.WarmupCosine, warmup_steps=3),
        class_names=data.class_names,
    )
    callbacks = default_callbacks(
        ema=detlit.EMA(0.9), checkpoint=Checkpoint(dirpath=options.folder, every_n_steps=options.every_n_steps)
    )
    for callback in callbacks:
        if isinstance(callback, GracefulStop):
            callback.agree_every_n_steps = 2
    callbacks.append(Note(options.folder))
    if options.precise_batch_norm:
        callbacks.append(detlit.PreciseBatchNorm(options.precise_batch_norm))
    if options.signal:
        callbacks.append(Die(signal.Signals[options.signal], options.step, options.hook))
    trainer = Trainer(
        accelerator="cpu",
        devices=options.devices,
        strategy="auto" if options.devices == 1 else "ddp_fork",
        precision=options.precision,
        accumulate_grad_batches=options.accumulate,
        max_epochs=options.epochs,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=options.folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, ckpt_path=options.ckpt_path)


if __name__ == "__main__":
    main()
