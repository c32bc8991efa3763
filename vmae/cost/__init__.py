"""The cost of a model: parameters, multiply-adds, memory; and the measured speed of a device."""

from vmae.cost.flops import classifier_multiply_adds, parameters, pretraining_multiply_adds
from vmae.cost.memory import clip_activations, training_memory
from vmae.cost.rates import flops_share, matmul_rate
from vmae.cost.saved import saved_tensors
