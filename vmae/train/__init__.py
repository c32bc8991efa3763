"""Training: schedules, checkpoints, pre-training, fine-tuning, evaluation."""
