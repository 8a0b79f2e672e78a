"""`python -m controlplane` is `shorthold`."""

from controlplane.cli.main import main

if __name__ == "__main__":
    main()
