"""What every lesson takes from the course: `from vmae.course.lessons import check, diagrams, viz`."""

from vmae.course import diagrams, gallery, making, viz
from vmae.course.checks import check
from vmae.course.predictions import predict

__all__ = ["check", "diagrams", "gallery", "making", "predict", "viz"]
