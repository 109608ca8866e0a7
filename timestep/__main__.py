"""`python -m timestep` is `timestep`."""

from timestep.cli import main

if __name__ == "__main__":
    main()
