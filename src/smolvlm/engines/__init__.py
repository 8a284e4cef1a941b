"""Engines run a checkpoint behind one protocol: see `smolvlm.engines.base`."""
