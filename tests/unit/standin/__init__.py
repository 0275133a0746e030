"""Tests of the stand-in for K3s."""
