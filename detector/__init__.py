"""One video in, one verdict out. Knows nothing of Ray, storage or the command line."""
