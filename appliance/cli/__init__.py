"""The command ``appliance``: one module for each group of commands, which parse, call and print."""

__all__ = ["main"]
