"""`python -m sdconv`: the command line, where its console script is not on the path."""

from sdconv.main import main

if __name__ == "__main__":
    main()
