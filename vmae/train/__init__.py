"""Training: configurations and recipes, pre-training, fine-tuning, testing."""

from vmae.support.progress import Bar, Progress, Record, Silent
from vmae.support.recipes import RECIPES
from vmae.train.classifier import load_classifier, save_classifier
from vmae.train.config import FinetuneConfig, OptimConfig, PretrainConfig
from vmae.train.devices import accelerator_for, device_name, peak_memory
from vmae.train.evaluate import (
    Evaluation,
    evaluate,
    knn_probe,
    linear_probe,
    mean_of_views,
    pooled_features,
)
from vmae.train.finetune import FinetuneResult, Sources, augment, finetune, open_sources
from vmae.train.interrupts import LostPeer, OutOfMemory, Stopped
from vmae.train.plan import (
    Clips,
    clips_of,
    hardware,
    planned,
    precision_on,
    this_device,
)
from vmae.train.plan_table import plan_table
from vmae.train.pretrain import PretrainResult, pretrain
from vmae.train.recipe import Recipe
from vmae.train.run_folder import environment, free_folder
from vmae.train.schedule import adamw, layer_of, learning_rate, parameter_groups
from vmae.train.speed import checkpointed, compile_blocks
