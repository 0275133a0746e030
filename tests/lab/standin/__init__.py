"""A stand-in for K3s, for tests on machines without a K3s release. It says that it is one wherever it speaks."""
