"""Load and save weights in every published layout of VideoMAE and MAE."""

from vmae.weights.errors import CheckpointError
from vmae.weights.loading import class_names, load, load_encoder
from vmae.weights.saving import LAYOUTS, convert, save
from vmae.weights.tensors import load_weights, save_weights
