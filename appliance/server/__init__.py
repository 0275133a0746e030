"""Running the applications: gunicorn with gevent workers, readiness and watchdog for systemd."""
