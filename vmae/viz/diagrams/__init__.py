"""Diagrams computed from configurations, models, masks and recipes: no number in them is typed in.

Each function returns a `Diagram`, which Jupyter shows and `save` writes; `.svg` and `.alt` are its text.
"""

from vmae.viz.diagrams.architecture import block, transformers, vit
from vmae.viz.diagrams.drawing import Diagram
from vmae.viz.diagrams.dual import dual_masking
from vmae.viz.diagrams.images import mae
from vmae.viz.diagrams.leakage import masks, rolling_ball
from vmae.viz.diagrams.legend import key
from vmae.viz.diagrams.masked import asymmetry, videomae
from vmae.viz.diagrams.matrices import attention
from vmae.viz.diagrams.training import data_path, fine_tuning, progressive_training
from vmae.viz.diagrams.videos import conv_and_linear, tubelets
