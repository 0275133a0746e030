"""What the mirror costs beside Debian's docker-registry and nginx on the same files, measured in one run.

Every figure is a pair: ours and a peer's, taken in turns in the same minutes with the same client. Times alone say
more about the machine than about the program, so what counts is their ratio.
"""
