"""`python -m restain`, and `accelerate launch -m restain`: the command line."""

from restain.cli import main

if __name__ == "__main__":
    main()
