"""VTAB Flow: should you bother with a pre-trained vision model, and with which?"""

__version__ = "0.1.0"
