import pytest

pytest.register_assert_rewrite("tests.acceptance.api.every_route")
