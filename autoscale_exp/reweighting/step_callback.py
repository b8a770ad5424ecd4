"""A callback that acts once per optimiser step, however many batches the step has."""

from typing import Any

from pytorch_lightning import Callback, Trainer


class StepCallback(Callback):
    """Calls `on_step_end` after each optimiser step of this part of the run."""

    _last_step = 0

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Notes where this part of the run begins."""
        self._last_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Acts if the batch ends a step."""
        if trainer.global_step != self._last_step:
            self._last_step = trainer.global_step
            self.on_step_end(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        """Acts; `trainer.global_step` is the number of the step that is done."""
        raise NotImplementedError
