"""Training: crops in, a weights file out. Needs torch; uses neither Ray nor storage nor settings files."""
