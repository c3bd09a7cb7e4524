"""`python -m worker` is `topic-import`."""

from worker.cli import main

if __name__ == "__main__":
    main()
