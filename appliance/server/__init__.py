"""Processes of the three units: gunicorn with gevent workers, readiness and watchdog for systemd."""

__all__ = ["devserver", "sdnotify", "start"]
