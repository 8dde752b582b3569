"""`restain`, `python -m restain`, and `accelerate launch -m restain`: the command line."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from restain.cli import main as run
    except KeyboardInterrupt:  # as the command line itself, once it is there
        print("restain: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
