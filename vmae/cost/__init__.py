"""What a model costs: parameters, multiply-adds, memory, and what a device can do."""

from vmae.cost.flops import classifier_multiply_adds, parameters, pretraining_multiply_adds
from vmae.cost.memory import clip_activations, training_memory
from vmae.cost.rates import flops_share, matmul_rate

__all__ = [
    "classifier_multiply_adds",
    "clip_activations",
    "flops_share",
    "matmul_rate",
    "parameters",
    "pretraining_multiply_adds",
    "training_memory",
]
