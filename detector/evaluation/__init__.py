"""What scores are worth: figures with intervals, calibration, thresholds. Arithmetic on arrays; no torch."""
