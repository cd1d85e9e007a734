"""Every error that is raised on purpose: one tree, stable codes.

To add one: a class in the module of its subject (base.py says what its attributes mean), and its name
in the routes of the API that raise it.
"""

# ruff: noqa: F403 - the names of the package are those of its modules
from crochet_tasks.errors.access import *
from crochet_tasks.errors.archives import *
from crochet_tasks.errors.base import *
from crochet_tasks.errors.pipeline import *
from crochet_tasks.errors.recovery import *
from crochet_tasks.errors.requests import *
from crochet_tasks.errors.services import *
