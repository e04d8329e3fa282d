"""Make hosts that run a container engine, and keep track of how to reach them."""

__version__ = "0.1.0"
