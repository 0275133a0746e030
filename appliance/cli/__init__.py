"""The command ``appliance``: one file for each group of commands; parse, call, print, nothing else."""
