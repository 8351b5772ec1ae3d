"""`python -m jobs` is `deepfake-scan`, where a cluster has the code but no installed command."""

from jobs.cli import main

main()
