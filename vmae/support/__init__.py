"""What all folders stand on: files written whole, and the state of a run that displays show."""
