"""OCI mirror, seeding and verification for air-gapped K3s sites."""

__version__ = "0.2.0"
