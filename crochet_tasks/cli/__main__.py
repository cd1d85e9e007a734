"""`python -m crochet_tasks.cli`."""

from crochet_tasks.cli.program import main

if __name__ == "__main__":
    main()
