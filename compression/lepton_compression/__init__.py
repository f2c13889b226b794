"""Compression: codecs for members' updates, and compression of models for deployment."""
