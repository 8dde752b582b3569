"""`python -m restain.cli`: the command line."""

from restain.cli import main

if __name__ == "__main__":
    main()
