"""Three real systemd hosts on a bridge with no way out.

``root`` builds the tree the hosts boot from, ``site`` runs them, ``sink`` proves that nothing tries to leave,
``images`` makes what a stick carries. ``python -m tests.lab`` is the command line.
"""
