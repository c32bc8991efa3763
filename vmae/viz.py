"""All figures under one short name: `from vmae import viz`. The lessons' own are in course/viz."""

from vmae.course.viz import *  # noqa: F403
