"""`python -m crochet_tasks`: the command line, where its script `crochet` is not on the path."""

from crochet_tasks.cli import main

if __name__ == "__main__":
    main()
