"""Accelerators to plan for without having one: their peak speed and memory, and the share that training reaches."""

from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.errors import UserError
from autoscale_exp.lm.size import ModelSize


@dataclass(frozen=True)
class Accelerator:
    """One device.

    Attributes:
        peak_flops: dense bfloat16 FLOPs per second, by the maker's data sheet.
        memory: memory in bytes.
    """

    peak_flops: float
    memory: float


ACCELERATORS = {
    "a100": Accelerator(312e12, 80e9),  # NVIDIA A100 80GB SXM
    "h100": Accelerator(989.4e12, 80e9),  # NVIDIA H100 SXM
    "h200": Accelerator(989.4e12, 141e9),  # NVIDIA H200 SXM
}

# Parameters, and the share of the peak that one run of a GPT-2 of this size reached on one H200 in bf16, eager:
# 352,000 tokens/s with 32 rows of 256 at a time, and 217,800 (gpt2) and 57,400 (gpt2_large) with 20 rows of 1,024.
# bert_base (109M) reached .21, with 375,700 tokens/s. Other accelerators are taken to reach the same shares.
MEASURED_SHARES = [(13.9e6, 0.0319), (124.4e6, 0.188), (774.0e6, 0.302)]


def accelerator_of(name: str) -> Accelerator:
    """Looks an accelerator up by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in ACCELERATORS:
        raise UserError(f"plan.accelerator is '{name}'; known are {', '.join(ACCELERATORS)}, or null for this machine")
    return ACCELERATORS[name]


def tokens_per_second(accelerator: Accelerator, size: ModelSize) -> float:
    """Tokens per second that one run of a model is expected to train on, alone on an accelerator.

    Between the measured sizes, the share of the peak is linear in the log of the parameters. Below them, launching
    kernels takes most of the time, so the share falls in proportion to the parameters. Above them it is constant.
    """
    params, shares = np.array(MEASURED_SHARES).T
    share = float(np.interp(np.log(size.params), np.log(params), shares)) * min(1.0, size.params / params[0])
    return share * accelerator.peak_flops / size.flops_per_token
