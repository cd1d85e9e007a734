"""The search itself: pure computation on arrays, no database, no Celery; clocks only measure its speed."""
