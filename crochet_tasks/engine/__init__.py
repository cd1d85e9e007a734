"""The search itself: pure computation on arrays, no database, no Celery, no clock."""
