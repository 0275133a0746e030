"""Talking to the other nodes: who may be asked, how they answer, and what a dead one costs."""
