"""`python -m lad_eval`, `torchrun -m lad_eval`, `accelerate launch -m lad_eval`."""

from lad_eval.cli import main

if __name__ == "__main__":
    main()
