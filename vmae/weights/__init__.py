"""Load and save weights in every published layout of VideoMAE and MAE."""

from vmae.weights.errors import CheckpointError
from vmae.weights.load_save import LAYOUTS, class_names, convert, load, load_encoder, save
from vmae.weights.tensors import load_weights, save_weights
