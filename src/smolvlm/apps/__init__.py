"""Applications: finished tools that stand on the public verbs of `smolvlm` alone."""
