"""Makes the parts of the manual that follow from the code."""
