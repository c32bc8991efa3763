"""Diagrams computed from configurations, models, masks and recipes: no number in them is typed in.

Each function returns a `Diagram`, which Jupyter shows and `save` writes; `.svg` and `.alt` are its text.
"""

from vmae.course.diagrams.architecture import block, transformers, vit
from vmae.course.diagrams.drawing import Diagram
from vmae.course.diagrams.dual import dual_masking
from vmae.course.diagrams.images import mae
from vmae.course.diagrams.leakage import masks, rolling_ball
from vmae.course.diagrams.legend import key
from vmae.course.diagrams.masked import asymmetry, videomae
from vmae.course.diagrams.matrices import attention
from vmae.course.diagrams.training import data_path, fine_tuning, progressive_training
from vmae.course.diagrams.videos import conv_and_linear, tubelets
