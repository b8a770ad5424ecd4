"""How a run is spread over devices: how many there are, by which strategy, and how many rows each takes at a time."""

import os

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import plural
from autoscale_exp.base.machine import has_gpu
from autoscale_exp.config import TrainingConf

FP16 = ("16-mixed", "16-true")  # for GPUs; on a CPU Lightning takes bfloat16 for the first, and the second overflows
STRATEGIES = ("auto", "ddp", "fsdp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


def num_devices(conf: TrainingConf) -> int:
    """Number of devices over all nodes that the trainer section asks for.

    Raises:
        UserError: it asks for none, or the value is no number of devices.
    """
    devices = conf.trainer.get("devices", 1)
    if isinstance(devices, str) and "," in devices:
        devices = devices.split(",")
    if devices in ("auto", -1, "-1"):
        import torch

        devices = 1 if conf.trainer.get("accelerator") == "cpu" else max(1, torch.cuda.device_count())
    nodes = conf.trainer.get("num_nodes", 1)
    try:
        count = int(devices if not isinstance(devices, list) else len(devices)) * int(nodes)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise UserError(
            f"trainer.devices is {conf.trainer.get('devices', 1)} and trainer.num_nodes is {nodes}; devices are a "
            "number of at least 1, auto or -1 for all, or a list of indices, and nodes a number of at least 1"
        )
    return count


def is_started_elsewhere(conf: TrainingConf) -> bool:
    """Whether torchrun, or srun with a task per device, has started this process as one of several of a run."""
    of_srun = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) == num_devices(conf) > 1
    return "TORCHELASTIC_RUN_ID" in os.environ or of_srun


def is_first_process(conf: TrainingConf) -> bool:
    """Whether this is the only process of a run or the first of several, which holds the run."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
    return num_devices(conf) == 1 or all(rank == "0" for rank in ranks)


def lacking_device(conf: TrainingConf) -> str | None:
    """What this machine lacks of the devices that a run asks for, and what to do; None if it lacks nothing.

    It imports torch only for a run that cannot be trained on a CPU.
    """
    accelerator, precision = conf.trainer.get("accelerator", "auto"), conf.trainer.get("precision")
    needs_gpu = accelerator in ("gpu", "cuda") or precision in FP16
    devices = num_devices(conf) // int(conf.trainer.get("num_nodes", 1))
    if not needs_gpu and not (devices > 1 and accelerator == "auto" and has_gpu()):
        return None
    import torch

    if torch.backends.mps.is_available():  # a Mac's GPU
        return None
    count = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and not count:
        return f"trainer.accelerator is '{accelerator}', but torch finds no GPU; give trainer.accelerator=cpu"
    if precision in FP16 and (accelerator == "cpu" or not count):
        return f"trainer.precision is '{precision}', which needs a GPU; give bf16-mixed or 32-true"
    if 0 < count < devices and not is_started_elsewhere(conf):  # then each process may see only its own
        asked = conf.trainer["devices"]
        return f"trainer.devices is {asked}, but torch finds {plural(count, 'GPU')}; give {count} or fewer"
    return None


def check_devices(conf: TrainingConf) -> None:
    """Checks that this machine has the devices that a run asks for.

    Raises:
        UserError: it has not.
    """
    if reason := lacking_device(conf):
        raise UserError(reason)


def check_strategy(conf: TrainingConf) -> None:
    """Checks that runs with `trainer.strategy` are known to train the same as on one device.

    Raises:
        UserError: they are not, or the strategy would start processes of its own or needs more devices.
    """
    strategy = conf.trainer.get("strategy", "auto")
    named = strategy.get("_target_", "") if isinstance(strategy, dict) else str(strategy)
    if named not in STRATEGIES and not named.endswith(".DDPStrategy"):
        raise UserError(
            f"trainer.strategy is '{named}', with which runs are not known to train as on one device; allowed are "
            f"{', '.join(STRATEGIES)}, or a _target_ of Lightning's DDPStrategy"
        )
    if named == "fsdp" and num_devices(conf) == 1:
        raise UserError(
            "trainer.strategy is 'fsdp', which shards a model over several devices, but the run has one; give more "
            "(trainer.devices), or leave out trainer.strategy"
        )


def micro_batch(step_rows: int, micro_batch_rows: int | None, num_devices: int) -> tuple[int, int]:
    """Returns the rows per device and forward pass, and the forward passes per optimiser step.

    Raises:
        UserError: the rows of a step cannot be divided evenly.
    """
    rows = micro_batch_rows or step_rows // num_devices
    if rows < 1 or step_rows % (rows * num_devices):
        raise UserError(
            f"model.optimizer.batch_rows is {step_rows}, which {num_devices} devices x micro_batch_rows {rows} do not "
            "divide; choose micro_batch_rows so that they do"
        )
    return rows, step_rows // (rows * num_devices)
